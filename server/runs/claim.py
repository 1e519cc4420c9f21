"""Claims: a worker gets the next run of its track; what was not kept alive goes back."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, bindparam, insert, or_, select, update

from server import agents, events, results, tables, wire
from server.db import Connection
from server.policy import Policy
from server.prepared import Prepared
from server.runs import challenge, choice, queue
from server.runs.rows import get_run, story
from server.shown import CommitRow

MAX_ATTEMPTS = 3
#: In posts, as `GroupCommit` counts.
CLAIM_COST = 16


R = tables.runs
_now = bindparam("now", type_=R.c.deadline_at.type)
_IS_OVERDUE = and_(
    R.c.state == wire.RunState.RUNNING, or_(R.c.lease_expires_at < _now, R.c.deadline_at < _now)
)
_OVERDUE = Prepared(select(R).where(_IS_OVERDUE))
_OVERDUE_ID = Prepared(select(R.c.id).where(_IS_OVERDUE).limit(1))
_LEASE = Prepared(
    update(R)
    .where(R.c.id == bindparam("run"), R.c.state == wire.RunState.QUEUED)
    .values(
        state=wire.RunState.RUNNING,
        worker_id=bindparam("holder"),
        track_id=bindparam("track"),
        fence=R.c.fence + 1,
        attempt=R.c.attempt + 1,
        worker=bindparam("about"),
        started_at=bindparam("at"),
        lease_expires_at=bindparam("until"),
        deadline_at=bindparam("end"),
        progress=None,
        step=None,
        loss=None,
        tokens=None,
    )
    .returning(R.c.fence)
)
_NOTE_LEASE = Prepared(insert(tables.leases), "run_id", "fence", "worker_id", "created_at")


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a worker may be silent, and in which order runs are leased."""

    lease_seconds: float = 60.0
    policy: Policy = Policy.FIFO

    @property
    def heartbeat_seconds(self) -> float:
        return self.lease_seconds / 4

    def deadline(self, budget_seconds: int, now: datetime) -> datetime:
        """Twice the budget and five minutes: start-up, compilation and scoring included."""
        return now + timedelta(seconds=2 * budget_seconds + 300)

    def lease_until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.lease_seconds)


def has_work(conn: Connection, claim: wire.Claim, now: datetime) -> bool:
    """Whether a claim is worth a write transaction; spares idle workers the write lock."""
    if _OVERDUE_ID.first(conn, now=now):
        return True
    track = results.find_track(conn, claim)
    seen = track.seen_seq if track is not None else 0
    if queue.newest_seq(conn) > seen:
        return True
    return choice.has_queued(conn, track.id if track is not None else None)


def claim(
    conn: Connection, worker: agents.Agent, claim: wire.Claim, terms: LeaseTerms, now: datetime
) -> wire.Run | None:
    """Lease the next run of the worker's track, or None. Overdue leases expire first."""
    agents.touch(conn, worker, now)
    expire(conn, now)
    track = results.open_track(conn, claim, now)
    run_id = _choose(conn, track.id, terms, now)
    if run_id is None:
        return None
    _lease(conn, run_id, worker.id, claim, track.id, terms, now)
    leased = get_run(conn, run_id)
    events.append(conn, "run", worker.id, str(run_id), story(leased), now)
    return leased.model_copy(update={"heartbeat_seconds": terms.heartbeat_seconds})


def _choose(conn: Connection, track_id: int, terms: LeaseTerms, now: datetime) -> int | None:
    """The next run of the queue, which is brought up to date as far as that takes."""
    while True:
        is_newer = queue.advance(conn, results.lock_track(conn, track_id), now)
        run_id = choice.choose(conn, results.lock_track(conn, track_id), terms.policy, now)
        if run_id is not None or not is_newer:
            return run_id


def expire(conn: Connection, now: datetime) -> None:
    """Take back every run whose lease or deadline has passed."""
    for run in _OVERDUE.rows(conn, now=now):
        what = "deadline" if run.deadline_at < now else "lease"
        failure = f"{what} of {run.worker_id} passed in attempt {run.attempt}"
        requeue(conn, run, failure, run.attempt, now)
        events.append(conn, "run", run.worker_id, str(run.id), {"state": "expired"}, now)


def request(
    conn: Connection, actor: str, commit: CommitRow, request: wire.RunRequest, now: datetime
) -> list[wire.Run]:
    """Queue runs of any commit; each joins the track of the worker that takes it."""
    ids = [
        queue.enqueue(conn, commit.seq, commit.code, request.kind, None, actor, now)
        for _ in range(request.count)
    ]
    asked = [get_run(conn, id) for id in ids]
    for run in asked:
        events.append(conn, "run", actor, str(run.id), story(run), now)
    return asked


def _lease(
    conn: Connection,
    run_id: int,
    worker_id: str,
    claim: wire.Claim,
    track_id: int,
    terms: LeaseTerms,
    now: datetime,
) -> None:
    about = claim.model_dump(include={"device", "vram_mb", "sandbox", "worker_version"})
    fence = _LEASE.scalar(
        conn,
        run=run_id,
        holder=worker_id,
        track=track_id,
        about=about,
        at=now,
        until=terms.lease_until(now),
        end=terms.deadline(claim.budget_seconds, now),
    )
    _NOTE_LEASE.run(conn, run_id=run_id, fence=fence, worker_id=worker_id, created_at=now)
    queue.withdraw_first(conn, run_id, track_id)


def requeue(conn: Connection, run: Row[Any], failure: str, attempts: int, now: datetime) -> None:
    """Put a run back, or out of the queue after its last attempt."""
    r = tables.runs
    is_spent = attempts >= MAX_ATTEMPTS
    conn.execute(
        update(r)
        .where(r.c.id == run.id, r.c.fence == run.fence, r.c.state == wire.RunState.RUNNING)
        .values(
            state=wire.RunState.QUARANTINED if is_spent else wire.RunState.QUEUED,
            attempt=attempts,
            failure=failure,
            worker_id=None,
            lease_expires_at=None,
            deadline_at=None,
        )
    )
    if is_spent:
        # A challenge that waited for it must go on without it.
        challenge.settle(conn, run.worker_id, run.track_id, run.code, now)
    else:
        choice.refund(conn, run)
