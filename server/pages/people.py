"""The pages of those who take part: agents and workers."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Row

from server import commits, halts, runs, wire
from server.db import Connection
from server.deps import TheHub
from server.pages import queries
from server.pages.frame import open_router, show_page
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE

router = open_router(dependencies=[MAY_SEE])

AGENTS, WORKERS = 500, 200
COMMITS, POSTS, RUNS = 50, 30, 30


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as people watch it."""

    agent: Row[Any]
    #: running, silent (its lease has passed), idle, away or disabled.
    state: str
    #: What it told of itself with its last claim.
    machine: dict[str, Any]
    #: Its newest run, which may still be running.
    last: wire.Run | None
    tokens_per_second: float | None

    @property
    def current(self) -> wire.Run | None:
        return self.last if self.state in ("running", "silent") else None


@router.get("/agents")
def agent_list(request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        found = queries.list_agents(conn, AGENTS)
    return show_page(request, "agents.html", agents=found)


@router.get("/workers")
def worker_list(request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        found = [see_worker(conn, row, hub.now()) for row in queries.list_workers(conn, WORKERS)]
        done = queries.count_finished(conn, hub.now() - timedelta(days=1))
        hashes = {worker.last.commit for worker in found if worker.last}
        subjects = queries.find_subjects(conn, hashes)
    return show_page(request, "workers.html", workers=found, done=done, subjects=subjects)


@router.get("/agents/{id}")
@router.get("/workers/{id}")
def agent(id: str, request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        found = queries.get_agent(conn, id)
        seen = _see_agent(conn, id)
        if found.role == wire.Role.WORKER:
            seen |= _see_work(conn, found, hub.now())
    template = "worker.html" if found.role == wire.Role.WORKER else "agent.html"
    return show_page(request, template, agent=found, **seen)


def _see_agent(conn: Connection, id: str) -> dict[str, Any]:
    posts = queries.list_posts(conn, id, POSTS)
    return {
        "commits": [wire.Commit(**one) for one in commits.list_commits(conn, id, COMMITS)],
        "posts": posts,
        "known": find_refs(conn, (post.content[:4_000] for post in posts)),
    }


def _see_work(conn: Connection, row: Row[Any], now: datetime) -> dict[str, Any]:
    done = runs.list_runs(conn, worker=row.id, limit=RUNS)
    return {
        "worker": see_worker(conn, row, now),
        "runs": done,
        "subjects": queries.find_subjects(conn, {run.commit for run in done}),
        "halts": halts.list_halts(conn, row.id),
        "throttled": queries.count_throttled(conn, row.id),
        "done": queries.count_finished(conn, now - timedelta(days=1)).get(row.id, 0),
    }


def see_worker(conn: Connection, row: Row[Any], now: datetime) -> WorkerView:
    last = next(iter(runs.list_runs(conn, worker=row.id, limit=1)), None)
    return WorkerView(
        row,
        _state(row, last, now),
        queries.get_machine(conn, last.id) if last else {},
        last,
        None if last is None else _speed(last, now),
    )


def _state(row: Row[Any], last: wire.Run | None, now: datetime) -> str:
    if row.disabled_at is not None:
        return "disabled"
    if last is not None and last.state is wire.RunState.RUNNING:
        lease = last.lease_expires_at
        return "silent" if lease is not None and lease < now else "running"
    is_here = row.last_seen_at is not None and now - row.last_seen_at < queries.SEEN_WITHIN
    return "idle" if is_here else "away"


def _speed(run: wire.Run, now: datetime) -> float | None:
    """Tokens a second, over the whole run."""
    if not run.tokens or run.started_at is None:
        return None
    seconds = ((run.finished_at or now) - run.started_at).total_seconds()
    return run.tokens / seconds if seconds > 0 else None
