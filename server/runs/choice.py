"""Which queued run a worker gets.

Outside, a fair share: each agent has an account per track, and the one that has had least is
served next (start-time fair queueing: an agent that comes late starts where the others are).
Inside, the hub's policy. Replicates and audits of the hub's own are on nobody's account; a part
of the capacity is reserved for them.
"""

import random
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from server import results, tables, wire
from server.db import Connection
from server.policy import Candidate, Policy, rank
from server.prepared import Prepared

#: Part of the capacity that replicates and audits may take while others wait.
RESERVED = 0.15
#: How much of it may be saved up, in runs.
_RESERVE_MAX = 3.0
#: A run that waited for so many budgets goes first, whatever the policy says.
AGED_BUDGETS = 20
#: How many runs of an agent a policy looks at, the oldest.
_CANDIDATES_MAX = 200

R, _S = tables.runs, tables.scores
_LIVE = R.alias("live")
_FIRST = (wire.RunKind.FIRST,)
# Spelled out, so that the partial index can serve it.
_QUEUED = R.c.state == literal_column("'queued'")
_IS_HUBS_KIND = or_(R.c.kind == wire.RunKind.REPLICATE, R.c.kind == wire.RunKind.AUDIT)
_HUBS_OWN = and_(R.c.agent_id.is_(None), _IS_HUBS_KIND)


#: Queues of a track, and of requested runs that join the track of who takes them.
_QUEUES = (R.c.track_id == bindparam("track"), R.c.track_id.is_(None))
# Whether a run of the same commit and kind is live in the track: one at a time.
_TWIN = exists().where(
    _LIVE.c.commit_seq == R.c.commit_seq,
    _LIVE.c.track_id == bindparam("track"),
    _LIVE.c.kind == R.c.kind,
    # Spelled out as above, and so found by the index of live runs.
    _LIVE.c.state == literal_column("'running'"),
)
_WAITING = [Prepared(select(R.c.id).where(queue, _QUEUED, ~_TWIN).limit(1)) for queue in _QUEUES]
_ACCOUNTS = [
    Prepared(
        select(R.c.agent_id, func.min(R.c.id))
        .where(queue, _QUEUED, ~_HUBS_OWN)
        .group_by(R.c.agent_id)
    )
    for queue in _QUEUES
]
_SERVED = Prepared(
    select(tables.shares.c.agent_id, tables.shares.c.served).where(
        tables.shares.c.track_id == bindparam("track")
    )
)
_SHARE = Prepared(
    update(tables.shares)
    .where(tables.shares.c.track_id == bindparam("track"))
    .where(tables.shares.c.agent_id == bindparam("account"))
    .values(served=bindparam("upto"))
)
_FIRST_SHARE = Prepared(insert(tables.shares), "track_id", "agent_id", "served")
_BOOK = Prepared(
    update(tables.tracks)
    .where(tables.tracks.c.id == bindparam("track"))
    .values(served=bindparam("start"), reserve=bindparam("left"))
)


def choose(conn: Connection, track: Row[Any], policy: Policy, now: datetime) -> int | None:
    """Id of the queued run to lease next in a track, booked on its account; None without one."""
    if track.reserve >= 1 and (own := _choose_own(conn, track)) is not None:
        return own
    for account, start in _by_service(conn, track, _list_accounts(conn, track.id)):
        run = _pick(conn, track, account, policy, now)
        # All that an account has may wait for twins that run; then the next one has its turn.
        if run is not None:
            _book(conn, track, account or "", start)
            return run
    return _choose_own(conn, track)


def refund(conn: Connection, run: Row[Any]) -> None:
    """Take back what the lease of a run was charged: it will be leased again."""
    s = tables.shares
    if run.agent_id is None and run.kind in (wire.RunKind.REPLICATE, wire.RunKind.AUDIT):
        track = results.lock_track(conn, run.track_id)
        _book_reserve(conn, track, min(track.reserve + 1, _RESERVE_MAX))
        return
    mine = (s.c.track_id == run.track_id, s.c.agent_id == (run.agent_id or ""))
    conn.execute(update(s).where(*mine).values(served=s.c.served - 1))


def has_queued(conn: Connection, track_id: int | None) -> bool:
    """Whether anything waits that could be leased in this track."""
    # One question each, for an OR of both would look through the queues of all tracks.
    return any(waiting.first(conn, track=track_id) is not None for waiting in _WAITING)


def _list_accounts(conn: Connection, track_id: int) -> dict[str | None, int]:
    """Agents with something in the queue, and the oldest of it; None stands for nobody."""
    found: dict[str | None, int] = {}
    for accounts in _ACCOUNTS:
        for agent, oldest in accounts.all(conn, track=track_id):
            found[agent] = min(oldest, found.get(agent, oldest))
    return found


def _choose_own(conn: Connection, track: Row[Any]) -> int | None:
    own = _find_own(conn, track.id)
    if own is not None:
        _book_reserve(conn, track, max(track.reserve - 1, 0.0))
    return own


def _find_own(conn: Connection, track_id: int) -> int | None:
    """Of the hub's own runs: the record's, which all its challengers wait for, then those of
    challenges that have begun, and of each kind the one whose code promises most.

    To begin with all who look lucky would end no challenge: there is always a newer one.
    """
    record = results.find_record(conn, track_id)
    found: int | None = _OWN.scalar(conn, track=track_id, record=record.code if record else "")
    return found


_OWN = Prepared(
    select(R.c.id)
    .outerjoin(_S, and_(_S.c.track_id == bindparam("track"), _S.c.code == R.c.code))
    .where(_QUEUES[0], _QUEUED, _HUBS_OWN, ~_TWIN)
    .order_by(R.c.code != bindparam("record"), _S.c.n == 0, _S.c.val_bpb, R.c.id)
    .limit(1)
)


def _by_service(
    conn: Connection, track: Row[Any], waiting: dict[str | None, int]
) -> list[tuple[str | None, float]]:
    """Accounts and where their next runs start, the least served first."""
    served: dict[str, float] = dict(_SERVED.all(conn, track=track.id))
    starts = {one: float(max(served.get(one or "", 0.0), track.served)) for one in waiting}
    return sorted(starts.items(), key=lambda item: (item[1], waiting[item[0]]))


def _pick(
    conn: Connection, track: Row[Any], account: str | None, policy: Policy, now: datetime
) -> int | None:
    # The hub's own runs, which have no account either, are not for this.
    kinds = (wire.RunKind.REQUESTED, wire.RunKind.REPLICATE, wire.RunKind.AUDIT)
    asked = _find(conn, track.id, account, kinds[:1] if account is None else kinds)
    first = _find(conn, track.id, account, _FIRST)
    found = [run for run in (asked, first) if run is not None]
    if not found:
        return None
    oldest = min(found, key=lambda run: int(run.id))
    if oldest.created_at < now - timedelta(seconds=AGED_BUDGETS * track.budget_seconds):
        return int(oldest.id)
    if asked is not None:
        return int(asked.id)  # What an agent asked for itself goes before its leaves.
    if policy is Policy.FIFO:
        return int(oldest.id)
    if policy is Policy.NEWEST:
        return int(_find(conn, track.id, account, _FIRST, is_newest=True).id)
    return _find_best(conn, track, account, policy)


def _find(
    conn: Connection,
    track_id: int,
    account: str | None,
    kinds: tuple[wire.RunKind, ...],
    *,
    is_newest: bool = False,
) -> Any:
    """An account's oldest run that could be leased now; None without one."""
    # First runs are always of some track.
    queues = range(1 if kinds == _FIRST else 2)
    finders = [_finder(queue, kinds, is_newest, account is None) for queue in queues]
    found = [finder.row(conn, track=track_id, account=account) for finder in finders]
    return min((run for run in found if run is not None), key=lambda run: run.id, default=None)


@cache
def _finder(
    queue: int, kinds: tuple[wire.RunKind, ...], is_newest: bool, is_nobody: bool
) -> Prepared:
    # A single kind is in the order of its index.
    by: ColumnElement[Any] = R.c.id.desc() if is_newest else R.c.id
    if len(kinds) > 1:
        # Not by the plain id: the planner would rather look through the whole queue in its order.
        by = R.c.id + 0
    runs = _runs_of(queue, kinds, is_nobody)
    return Prepared(runs.with_only_columns(R.c.id, R.c.created_at).order_by(by).limit(1))


def _runs_of(queue: int, kinds: tuple[wire.RunKind, ...], is_nobody: bool) -> Select[Any]:
    """An account's runs that could be leased now."""
    is_kind = or_(*(R.c.kind == kind for kind in kinds))
    is_own = R.c.agent_id.is_(None) if is_nobody else R.c.agent_id == bindparam("account")
    runs = select(R.c.id, R.c.commit_seq)
    return runs.where(_QUEUES[queue], _QUEUED, is_own, is_kind, ~_TWIN)


def _find_best(conn: Connection, track: Row[Any], account: str | None, policy: Policy) -> int:
    rows = _candidates(account is None).rows(conn, track=track.id, account=account)
    candidates = [Candidate(row.id, row.val_bpb, max(row.n or 0, 1), row.visits) for row in rows]
    # Seeded by what has been served, so that a claim can be replayed.
    rng = random.Random(f"{track.id}/{track.served}/{track.reserve}")  # noqa: S311
    sigma = results.sigma_of(conn, track.id)
    best = rank(policy, candidates, track.scored, sigma, rng)[0]
    return candidates[best].seq


@cache
def _candidates(is_nobody: bool) -> Prepared:
    """An account's oldest first runs, and of each commit's first parent: its score, the runs
    behind it, its children with a score."""
    p, c, v = tables.commit_parents, tables.commits, tables.visits
    track: ColumnElement[int] = bindparam("track", type_=Integer)
    runs = _runs_of(0, _FIRST, is_nobody)
    own = runs.order_by(R.c.id).limit(_CANDIDATES_MAX).subquery("own")
    return Prepared(
        select(own.c.id, _S.c.val_bpb, _S.c.n, func.coalesce(v.c.n, 0).label("visits"))
        .select_from(own)
        .outerjoin(p, and_(p.c.child == own.c.commit_seq, p.c.position == 0))
        .outerjoin(c, c.c.seq == p.c.parent)
        .outerjoin(_S, and_(_S.c.track_id == track, _S.c.code == c.c.code))
        .outerjoin(v, and_(v.c.track_id == track, v.c.parent == p.c.parent))
    )


def _book(conn: Connection, track: Row[Any], account: str, start: float) -> None:
    """Charge one run to an account, and let the reserve grow by its part of it."""
    if not _SHARE.run(conn, track=track.id, account=account, upto=start + 1):
        _FIRST_SHARE.run(conn, track_id=track.id, agent_id=account, served=start + 1)
    reserve = min(track.reserve + RESERVED / (1 - RESERVED), _RESERVE_MAX)
    _BOOK.run(conn, track=track.id, start=start, left=reserve)


def _book_reserve(conn: Connection, track: Row[Any], left: float) -> None:
    t = tables.tracks
    conn.execute(update(t).where(t.c.id == track.id).values(reserve=left))
