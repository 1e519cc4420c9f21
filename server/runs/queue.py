"""The queue of a track: which leaves wait for a first run in it.

A claim brings the queue up to date with what was pushed since the last one, so a push writes
nothing for tracks and costs the same however many there are. Equal code is queued once.
"""

import secrets
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Row,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from server import tables, wire
from server.db import Connection
from server.prepared import Prepared

#: The seed of the first run of any code, as in autoresearch; every other run has its own.
FIRST_SEED = 42
#: Commits looked at in one step, so that the first claim of a new track stays short.
STEP = 2_000

R = tables.runs


_NEWEST = Prepared(select(func.max(tables.commits.c.seq)))


def newest_seq(conn: Connection) -> int:
    return _NEWEST.scalar(conn) or 0


def advance(conn: Connection, track: Row[Any], now: datetime) -> bool:
    """Look at the next commits; False when all were seen before."""
    newest = newest_seq(conn)
    after, upto = track.seen_seq, min(track.seen_seq + STEP, newest)
    if upto <= after:
        return False
    _withdraw_inner(conn, track.id, after, upto)
    _add_leaves(conn, track.id, after, upto, now)
    t = tables.tracks
    conn.execute(update(t).where(t.c.id == track.id).values(seen_seq=upto))
    return True


def enqueue(
    conn: Connection,
    commit_seq: int,
    code: str,
    kind: wire.RunKind,
    track_id: int | None,
    account: str | None,
    now: datetime,
) -> int:
    """Add one run of a commit; `account` is whose share it uses."""
    row = _row(commit_seq, code, kind, track_id, account, now)
    id: int = _adding(*row).scalar(conn, **row)
    return id


def add_replicates(
    conn: Connection, track_id: int, score: Row[Any], count: int, now: datetime
) -> None:
    """Queue runs of a scored code with new seeds, on nobody's account."""
    for _ in range(count):
        kind = wire.RunKind.REPLICATE
        enqueue(conn, score.commit_seq, score.code, kind, track_id, None, now)


def add_rerun(conn: Connection, run: Row[Any], now: datetime) -> None:
    """Queue a run that was throttled once more, as a replicate; a rerun has no rerun."""
    if run.rerun_of is None:
        kind = wire.RunKind.REPLICATE
        row = _row(run.commit_seq, run.code, kind, run.track_id, None, now)
        conn.execute(insert(R), row | {"rerun_of": run.id})


def withdraw_replicates(conn: Connection, track_id: int, code: str) -> None:
    """Take back replicates of the hub's own that no worker has had yet."""
    _WITHDRAW_REPLICATES.run(conn, track=track_id, code=code)


def withdraw_first(conn: Connection, run_id: int, track_id: int) -> None:
    """Take back the first run of a code that is trained by this run already."""
    _WITHDRAW_FIRST.run(conn, run=run_id, track=track_id)


def count_replicates(conn: Connection, track_id: int, code: str) -> tuple[int, int]:
    """Replicates of the hub's own: how many were ever asked for, and how many are to come."""
    asked, to_come = _REPLICATES.all(conn, track=track_id, code=code)[0]
    return asked, to_come


@cache
def _adding(*columns: str) -> Prepared:
    return Prepared(insert(R).returning(R.c.id), *columns)


# Spelled out, so that the partial index can serve it.
_QUEUED = R.c.state == literal_column("'queued'")
_OWN_REPLICATES = (
    *(R.c.track_id == bindparam("track"), R.c.code == bindparam("code")),
    *(R.c.kind == wire.RunKind.REPLICATE, R.c.agent_id.is_(None)),
)
_TO_COME = or_(R.c.state == wire.RunState.QUEUED, R.c.state == wire.RunState.RUNNING)
_REPLICATES = Prepared(select(func.count(), func.count().filter(_TO_COME)).where(*_OWN_REPLICATES))
_WITHDRAW_REPLICATES = Prepared(delete(R).where(*_OWN_REPLICATES, R.c.fence == 0, _QUEUED))
_WITHDRAW_FIRST = Prepared(
    delete(R).where(
        R.c.track_id == bindparam("track"),
        R.c.code == select(R.c.code).where(R.c.id == bindparam("run")).scalar_subquery(),
        _QUEUED,
        R.c.kind == wire.RunKind.FIRST,
        R.c.fence == 0,
        R.c.id != bindparam("run"),
    )
)


def _withdraw_inner(conn: Connection, track_id: int, after: int, upto: int) -> None:
    """Drop first runs that wait for commits on which their own agents have built by now."""
    p, c = tables.commit_parents, tables.commits
    parents = select(p.c.parent).where(p.c.child > after, p.c.child <= upto)
    is_wanted = exists().where(c.c.code == R.c.code, _is_wanted())
    conn.execute(
        delete(R).where(
            R.c.track_id == track_id,
            _QUEUED,
            R.c.kind == wire.RunKind.FIRST,
            R.c.fence == 0,
            R.c.commit_seq.in_(parents),
            ~is_wanted,
        )
    )


def count_unseen(conn: Connection, track_id: int | None, seen_seq: int) -> int:
    """How many first runs the next claims would queue; of the newest commits, `STEP` at most."""
    after = max(seen_seq, newest_seq(conn) - STEP)
    leaves = _new_leaves(track_id, after).subquery()
    query = select(func.count(leaves.c.code.distinct()))
    return int(conn.execute(query).scalar_one())


def _add_leaves(conn: Connection, track_id: int, after: int, upto: int, now: datetime) -> None:
    c = tables.commits
    leaves = conn.execute(_new_leaves(track_id, after).where(c.c.seq <= upto).order_by(c.c.seq))
    first = wire.RunKind.FIRST
    rows: dict[str, dict[str, Any]] = {}
    for leaf in leaves:
        rows.setdefault(leaf.code, _row(leaf.seq, leaf.code, first, track_id, leaf.agent_id, now))
    if rows:
        conn.execute(insert(R), list(rows.values()))


def _new_leaves(track_id: int | None, after: int) -> Select[Any]:
    """Commits that want a first run in the track, whose code has none there."""
    c = tables.commits
    known = exists().where(R.c.code == c.c.code, R.c.track_id == track_id)
    return select(c.c.seq, c.c.code, c.c.agent_id).where(c.c.seq > after, _is_wanted(), ~known)


def _is_wanted() -> Any:
    """A leaf, or a commit on which only others have built: nobody takes back another's work."""
    c, link, child = tables.commits, tables.commit_parents.alias(), tables.commits.alias()
    own = exists().where(
        link.c.parent == c.c.seq,
        child.c.seq == link.c.child,
        child.c.agent_id.is_not_distinct_from(c.c.agent_id),
    )
    return or_(c.c.child_count == 0, ~own)


def _row(
    commit_seq: int,
    code: str,
    kind: wire.RunKind,
    track_id: int | None,
    account: str | None,
    now: datetime,
) -> dict[str, Any]:
    return {
        "commit_seq": commit_seq,
        "track_id": track_id,
        "code": code,
        "agent_id": account,
        "kind": kind,
        "seed": FIRST_SEED if kind is wire.RunKind.FIRST else secrets.randbelow(2**31),
        "state": wire.RunState.QUEUED,
        "fence": 0,
        "attempt": 0,
        "created_at": now,
        "worker": {},
    }
