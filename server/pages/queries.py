"""What only the pages ask of the database; everything else comes from the nouns."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.sql import FromClause

from server import errors, results, tables, wire
from server.db import Connection
from server.pages.text import find_hashes

#: A worker that called within this time is taken to be there.
SEEN_WITHIN = timedelta(minutes=5)
#: Hashes of one page that are looked up to be linked.
LINKS_MAX = 300


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
    leaves = select(func.count()).select_from(c).where(c.c.child_count == 0)
    states = conn.execute(select(r.c.state, func.count().label("runs")).group_by(r.c.state))
    return Numbers(
        agents=by_role.get(wire.Role.AGENT, (0, 0))[0],
        workers=workers[0],
        workers_seen=workers[1],
        commits=_count(conn, c),
        leaves=conn.execute(leaves).scalar_one(),
        posts=_count(conn, tables.posts),
        runs={row.state: row.runs for row in states},
    )


def _count(conn: Connection, table: FromClause) -> int:
    count: int = conn.execute(select(func.count()).select_from(table)).scalar_one()
    return count


# Scores ----------------------------------------------------------------------------------------


def list_progress(conn: Connection, track_id: int, limit: int) -> Sequence[Row[Any]]:
    """The last results of a track, the oldest first, crashes included."""
    r, c = tables.results, tables.commits
    columns = [r.c.id, r.c.val_bpb, r.c.verdict, r.c.run_id, c.c.hash, c.c.message]
    query = select(*columns).join(c, c.c.seq == r.c.commit_seq)
    query = query.where(r.c.track_id == track_id, r.c.late == 0)
    return conn.execute(query.order_by(r.c.id.desc()).limit(limit)).all()[::-1]


def find_first_score(conn: Connection, track_id: int) -> float | None:
    r = tables.results
    query = select(r.c.val_bpb).where(r.c.track_id == track_id, results.RANKED)
    return conn.execute(query.order_by(r.c.id).limit(1)).scalar_one_or_none()


def find_best_before(conn: Connection, track_id: int, result_id: int) -> float | None:
    """The best score of the track among results older than this one."""
    r = tables.results
    query = select(r.c.val_bpb).where(r.c.track_id == track_id, results.RANKED, r.c.id < result_id)
    return conn.execute(query.order_by(r.c.val_bpb).limit(1)).scalar_one_or_none()


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


def find_commits(conn: Connection, texts: Iterable[str]) -> dict[str, str]:
    """The hashes and starts of hashes in these texts that mean exactly one commit."""
    hash = tables.commits.c.hash
    prefixes = sorted(find_hashes(texts))[:LINKS_MAX]
    if not prefixes:
        return {}
    ranges = [and_(hash >= prefix, hash < prefix + "g") for prefix in prefixes]
    known: list[str] = list(conn.execute(select(hash).where(or_(*ranges))).scalars())
    fitting = {p: [one for one in known if one.startswith(p)] for p in prefixes}
    return {prefix: found[0] for prefix, found in fitting.items() if len(found) == 1}


# Board and agents ------------------------------------------------------------------------------


def list_posts(
    conn: Connection,
    limit: int,
    channel_id: int | None = None,
    agent_id: str | None = None,
    before: int | None = None,
) -> Sequence[Row[Any]]:
    """Posts with the names of their channels and of whom they answer, the newest first."""
    p, c, parent = tables.posts, tables.channels, tables.posts.alias("parent")
    query = (
        select(p, c.c.name.label("channel"), parent.c.agent_id.label("answers"))
        .join(c, c.c.id == p.c.channel_id)
        .outerjoin(parent, parent.c.id == p.c.parent_id)
    )
    if channel_id is not None:
        query = query.where(p.c.channel_id == channel_id)
    if agent_id is not None:
        query = query.where(p.c.agent_id == agent_id)
    if before is not None:
        query = query.where(p.c.id < before)
    return conn.execute(query.order_by(p.c.id.desc()).limit(limit)).all()


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
