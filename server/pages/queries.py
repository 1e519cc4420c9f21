"""What only the pages ask of the database; everything else comes from the nouns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Integer, Row, Select, bindparam, func, literal_column, select
from sqlalchemy.sql import FromClause

from server import errors, results, tables, wire
from server.db import Connection
from server.pages.progress import Point, Series, Status
from server.pages.progress.labels import tidy
from server.pages.threads import select_posts
from server.prepared import Prepared, PreparedIn

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


def to_series(progress: results.Progress) -> Series:
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


_STATUSES = {status: Status(status) for status in wire.Status}


def _point(point: results.Experiment) -> Point:
    return Point(
        point.number,
        point.created_at,
        point.val_bpb,
        Status.QUARANTINED if point.is_quarantined else _STATUSES[point.status],
        point.label,
        point.commit if point.is_linked else "",
        point.is_confirmed,
        point.run_id,
    )


def list_run_results(conn: Connection, run_id: int) -> Sequence[Row[Any]]:
    """All that was reported for a run, late reports included."""
    return _RUN_RESULTS.rows(conn, run=run_id)


_RUN_RESULTS = Prepared(
    select(tables.results)
    .where(tables.results.c.run_id == bindparam("run"))
    .order_by(tables.results.c.id)
)


# Commits ---------------------------------------------------------------------------------------

_C, _P = tables.commits, tables.commit_parents
_PARENTS = Prepared(
    select(_C)
    .join(_P, _P.c.parent == _C.c.seq)
    .where(_P.c.child == bindparam("seq"))
    .order_by(_P.c.position)
)
_NEWEST_CHILDREN = (
    select(_P.c.child)
    .where(_P.c.parent == bindparam("seq"))
    .distinct()
    .order_by(_P.c.child.desc())
    .limit(bindparam("limit", type_=Integer))
    .subquery()
)
_CHILDREN = Prepared(
    select(_C)
    .join(_NEWEST_CHILDREN, _NEWEST_CHILDREN.c.child == _C.c.seq)
    .order_by(_C.c.seq.desc())
)
_SUBJECTS = PreparedIn(lambda hashes: select(_C.c.hash, _C.c.message).where(_C.c.hash.in_(hashes)))


def list_parents(conn: Connection, seq: int) -> Sequence[Row[Any]]:
    return _PARENTS.rows(conn, seq=seq)


def list_children(conn: Connection, seq: int, limit: int) -> Sequence[Row[Any]]:
    """The newest first."""
    return _CHILDREN.rows(conn, seq=seq, limit=limit)


def find_subjects(conn: Connection, hashes: Collection[str]) -> dict[str, str]:
    """The subject line of each of these commits."""
    return dict(_SUBJECTS.all(conn, hashes))


# Board and agents ------------------------------------------------------------------------------


def list_posts(conn: Connection, agent_id: str, limit: int) -> Sequence[Row[Any]]:
    """An agent's, the newest first."""
    return _POSTS_OF.rows(conn, agent=agent_id, limit=limit)


_POSTS_OF = Prepared(
    select_posts()
    .where(tables.posts.c.agent_id == bindparam("agent"))
    .order_by(tables.posts.c.id.desc())
    .limit(bindparam("limit", type_=Integer))
)


def list_talk(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """Posts as `list_posts` has them, without those that only announce results."""
    query = select_posts().where(tables.channels.c.name != results.CHANNEL)
    return conn.execute(query.order_by(tables.posts.c.id.desc()).limit(limit)).all()


_AGENT = Prepared(select(tables.agents).where(tables.agents.c.id == bindparam("id")))
_MACHINE = Prepared(select(tables.runs.c.worker).where(tables.runs.c.id == bindparam("id")))


def get_agent(conn: Connection, id: str) -> Row[Any]:
    row: Row[Any] | None = _AGENT.row(conn, id=id)
    if row is None:
        raise errors.NotFound(f"no agent is called {id}")
    return row


def get_machine(conn: Connection, run_id: int) -> dict[str, Any]:
    """What the worker told of itself when it claimed the run."""
    about: dict[str, Any] = _MACHINE.scalar(conn, id=run_id)
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
    return _NUMBERED.rows(conn, ids)


_NUMBERED = PreparedIn(
    lambda ids: select_posts().where(tables.posts.c.id.in_(ids)).order_by(tables.posts.c.id.desc())
)
