"""What only the pages ask of the database; everything else comes from the nouns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, func, literal_column, select
from sqlalchemy.sql import FromClause

from server import errors, results, tables, wire
from server.db import Connection
from server.pages.progress import Point, Series, Status
from server.pages.progress.labels import tidy
from server.pages.threads import select_posts

#: A worker that called within this time is taken to be there.
SEEN_WITHIN = timedelta(minutes=5)
#: Characters of a subject beside a point of a plot.
LABEL_CHARS = 140


@dataclass(frozen=True, slots=True)
class Numbers:
    agents: int
    workers: int
    workers_seen: int
    commits: int
    leaves: int
    posts: int
    runs: dict[str, int]


def count_all(conn: Connection, now: datetime) -> Numbers:
    a, c, r = tables.agents, tables.commits, tables.runs
    roles = conn.execute(
        select(a.c.role, func.count(), func.count().filter(a.c.last_seen_at > now - SEEN_WITHIN))
        .where(a.c.disabled_at.is_(None))
        .group_by(a.c.role)
    )
    by_role = {role: (every, seen) for role, every, seen in roles}
    workers = by_role.get(wire.Role.WORKER, (0, 0))
    # Spelled out, so that the index of the leaves alone answers it.
    leaves = select(func.count()).select_from(c).where(c.c.child_count == literal_column("0"))
    unfinished = [state for state in wire.RunState if state is not wire.RunState.FINISHED]
    states = conn.execute(
        select(r.c.state, func.count()).where(r.c.state.in_(unfinished)).group_by(r.c.state)
    )
    runs = {row[0]: row[1] for row in states}
    # Nearly all are finished: they are what is left.
    runs[wire.RunState.FINISHED] = _count(conn, r) - sum(runs.values())
    return Numbers(
        agents=by_role.get(wire.Role.AGENT, (0, 0))[0],
        workers=workers[0],
        workers_seen=workers[1],
        commits=_count(conn, c),
        leaves=conn.execute(leaves).scalar_one(),
        posts=_count(conn, tables.posts),
        runs=runs,
    )


def _count(conn: Connection, table: FromClause) -> int:
    count: int = conn.execute(select(func.count()).select_from(table)).scalar_one()
    return count


# Scores ----------------------------------------------------------------------------------------


def see_progress(conn: Connection, track: wire.Track, limit: int) -> Series:
    """The last `limit` experiments of a track as a picture needs them."""
    return to_series(results.read_progress(conn, track, limit))


def to_series(progress: wire.Progress) -> Series:
    return Series(
        title=progress.track.label,
        points=[_point(point) for point in progress.points],
        total=progress.experiments,
        baseline=progress.baseline,
        earlier_best=progress.earlier_best,
    )


def to_label(text: str) -> str:
    """A stranger's text as one short line with nothing that hides."""
    return tidy(text, LABEL_CHARS)


def _point(point: wire.ProgressPoint) -> Point:
    return Point(
        number=point.number,
        at=point.created_at,
        val_bpb=point.val_bpb,
        status=Status.QUARANTINED if point.is_quarantined else Status(point.status),
        label=point.label,
        commit=point.commit if point.is_linked else "",
        is_confirmed=point.is_confirmed,
        run_id=point.run_id,
    )


def list_run_results(conn: Connection, run_id: int) -> Sequence[Row[Any]]:
    """All that was reported for a run, late reports included."""
    r = tables.results
    return conn.execute(select(r).where(r.c.run_id == run_id).order_by(r.c.id)).all()


# Commits ---------------------------------------------------------------------------------------


def list_parents(conn: Connection, seq: int) -> Sequence[Row[Any]]:
    c, p = tables.commits, tables.commit_parents
    query = select(c).join(p, p.c.parent == c.c.seq).where(p.c.child == seq)
    return conn.execute(query.order_by(p.c.position)).all()


def list_children(conn: Connection, seq: int, limit: int) -> Sequence[Row[Any]]:
    """The newest first."""
    c, p = tables.commits, tables.commit_parents
    query = select(c).join(p, p.c.child == c.c.seq).where(p.c.parent == seq).distinct()
    return conn.execute(query.order_by(c.c.seq.desc()).limit(limit)).all()


def find_subjects(conn: Connection, hashes: Collection[str]) -> dict[str, str]:
    """The subject line of each of these commits."""
    c = tables.commits
    rows = conn.execute(select(c.c.hash, c.c.message).where(c.c.hash.in_(hashes)))
    return {row.hash: row.message for row in rows}


# Board and agents ------------------------------------------------------------------------------


def list_posts(
    conn: Connection,
    limit: int,
    channel_id: int | None = None,
    agent_id: str | None = None,
    before: int | None = None,
) -> Sequence[Row[Any]]:
    """The newest first."""
    p, query = tables.posts, select_posts()
    if channel_id is not None:
        query = query.where(p.c.channel_id == channel_id)
    if agent_id is not None:
        query = query.where(p.c.agent_id == agent_id)
    if before is not None:
        query = query.where(p.c.id < before)
    return conn.execute(query.order_by(p.c.id.desc()).limit(limit)).all()


def list_talk(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """Posts as `list_posts` has them, without those that only announce results."""
    query = select_posts().where(tables.channels.c.name != results.CHANNEL)
    return conn.execute(query.order_by(tables.posts.c.id.desc()).limit(limit)).all()


def get_agent(conn: Connection, id: str) -> Row[Any]:
    row = conn.execute(select(tables.agents).where(tables.agents.c.id == id)).one_or_none()
    if row is None:
        raise errors.NotFound(f"no agent is called {id}")
    return row


def get_machine(conn: Connection, run_id: int) -> dict[str, Any]:
    """What the worker told of itself when it claimed the run."""
    r = tables.runs
    about: dict[str, Any] = conn.execute(select(r.c.worker).where(r.c.id == run_id)).scalar_one()
    return about


def list_agents(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """Those who push and post, with how much; the last seen first."""
    a, c, p = tables.agents, tables.commits, tables.posts
    pushed = select(func.count()).where(c.c.agent_id == a.c.id).scalar_subquery()
    posted = select(func.count()).where(p.c.agent_id == a.c.id).scalar_subquery()
    query = select(a, pushed.label("commits"), posted.label("posts"))
    return conn.execute(_latest(query.where(a.c.role != wire.Role.WORKER), limit)).all()


def list_workers(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """The last seen first."""
    a = tables.agents
    return conn.execute(_latest(select(a).where(a.c.role == wire.Role.WORKER), limit)).all()


def _latest(query: Select[Any], limit: int) -> Select[Any]:
    a = tables.agents.c
    return query.order_by(a.last_seen_at.desc().nulls_last(), a.id).limit(limit)


def count_finished(conn: Connection, since: datetime) -> dict[str, int]:
    """How many runs each worker has finished since then."""
    r = tables.runs
    # Not the bare column: its index would be walked from end to end, to have the groups in order.
    worker = func.coalesce(r.c.worker_id, "").label("worker")
    query = select(worker, func.count().label("runs")).where(r.c.finished_at > since)
    return {row.worker: row.runs for row in conn.execute(query.group_by(worker))}


def count_throttled(conn: Connection, worker_id: str) -> int:
    """How many of a worker's results were slower than they should be."""
    r = tables.results
    query = select(func.count()).where(r.c.agent_id == worker_id, r.c.throttled.is_not(None))
    return int(conn.execute(query).scalar_one())


def list_numbered_posts(conn: Connection, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """The posts with these numbers, the newest first."""
    query = select_posts().where(tables.posts.c.id.in_(ids))
    return conn.execute(query.order_by(tables.posts.c.id.desc())).all()
