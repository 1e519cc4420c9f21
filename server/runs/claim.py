"""Who trains what next: candidates, claims, expiry."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, insert, or_, select, update

from server import events, results, tables, wire
from server.db import Connection
from server.runs.rows import get_run, story

MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a worker may be silent, and how often it should speak, seconds."""

    lease_seconds: float = 60.0

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
    r = tables.runs
    if conn.execute(select(r.c.id).where(_overdue(now)).limit(1)).first():
        return True
    track = results.find_track(conn, claim)
    return _find_queued(conn, track) is not None or _find_leaf(conn, track) is not None


def claim(
    conn: Connection, worker_id: str, claim: wire.Claim, terms: LeaseTerms, now: datetime
) -> wire.Run | None:
    """Lease the next run of the worker's track, or None. Overdue leases expire first.

    Queued runs go before leaves that were never trained in this track; both oldest first.
    """
    expire(conn, now)
    track = results.find_track(conn, claim)
    run_id = _find_queued(conn, track) or _open_leaf(conn, track, claim, now)
    if run_id is None:
        return None
    track = results.open_track(conn, claim, now)
    _lease(conn, run_id, worker_id, claim, track.id, terms, now)
    leased = get_run(conn, run_id)
    events.append(conn, "run", worker_id, str(run_id), story(leased), now)
    return leased.model_copy(update={"heartbeat_seconds": terms.heartbeat_seconds})


def expire(conn: Connection, now: datetime) -> None:
    """Take back every run whose lease or deadline has passed."""
    r = tables.runs
    for run in conn.execute(select(r).where(_overdue(now))).all():
        what = "deadline" if run.deadline_at < now else "lease"
        failure = f"{what} of {run.worker_id} passed in attempt {run.attempt}"
        requeue(conn, run, failure, run.attempt)
        events.append(conn, "run", run.worker_id, str(run.id), {"state": "expired"}, now)


def request(
    conn: Connection, actor: str, commit_seq: int, request: wire.RunRequest, now: datetime
) -> list[wire.Run]:
    """Queue runs of any commit; each joins the track of the worker that takes it."""
    asked = [
        get_run(conn, _open(conn, commit_seq, request.kind, None, now))
        for _ in range(request.count)
    ]
    for run in asked:
        events.append(conn, "run", actor, str(run.id), story(run), now)
    return asked


def _overdue(now: datetime) -> ColumnElement[bool]:
    r = tables.runs
    return and_(
        r.c.state == wire.RunState.RUNNING, or_(r.c.lease_expires_at < now, r.c.deadline_at < now)
    )


def _find_queued(conn: Connection, track: Row[Any] | None) -> int | None:
    """Id of the oldest queued run of this track, or of none yet, that has no live twin."""
    r, live = tables.runs, tables.runs.alias("live")
    track_id = track.id if track is not None else None
    twin = exists().where(
        live.c.commit_seq == r.c.commit_seq,
        live.c.track_id == track_id,
        live.c.kind == r.c.kind,
        live.c.state == wire.RunState.RUNNING,
    )
    return conn.execute(
        select(r.c.id)
        .where(r.c.state == wire.RunState.QUEUED)
        .where(or_(r.c.track_id == track_id, r.c.track_id.is_(None)))
        .where(~twin)
        .order_by(r.c.id)
        .limit(1)
    ).scalar_one_or_none()


def _find_leaf(conn: Connection, track: Row[Any] | None) -> int | None:
    """Seq of the oldest leaf that has no run in this track."""
    c, r = tables.commits, tables.runs
    query = select(c.c.seq).where(c.c.child_count == 0).order_by(c.c.seq).limit(1)
    if track is not None:
        query = query.where(~exists().where(r.c.commit_seq == c.c.seq, r.c.track_id == track.id))
    return conn.execute(query).scalar_one_or_none()


def _open_leaf(
    conn: Connection, track: Row[Any] | None, claim: wire.Claim, now: datetime
) -> int | None:
    """Make the first run of the oldest untrained leaf; None when there is no such leaf."""
    leaf = _find_leaf(conn, track)
    if leaf is None:
        return None
    track = track or results.open_track(conn, claim, now)
    return _open(conn, leaf, wire.RunKind.FIRST, track.id, now)


def _open(
    conn: Connection, commit_seq: int, kind: wire.RunKind, track_id: int | None, now: datetime
) -> int:
    row: dict[str, Any] = {
        "commit_seq": commit_seq,
        "track_id": track_id,
        "kind": kind,
        "state": wire.RunState.QUEUED,
        "fence": 0,
        "attempt": 0,
        "created_at": now,
        "worker": {},
    }
    id: int = conn.execute(insert(tables.runs).returning(tables.runs.c.id), row).scalar_one()
    return id


def _lease(
    conn: Connection,
    run_id: int,
    worker_id: str,
    claim: wire.Claim,
    track_id: int,
    terms: LeaseTerms,
    now: datetime,
) -> None:
    r = tables.runs
    about = claim.model_dump(include={"device", "vram_mb", "sandbox", "worker_version"})
    fence = conn.execute(
        update(r)
        .where(r.c.id == run_id, r.c.state == wire.RunState.QUEUED)
        .values(
            state=wire.RunState.RUNNING,
            worker_id=worker_id,
            track_id=track_id,
            fence=r.c.fence + 1,
            attempt=r.c.attempt + 1,
            worker=about,
            started_at=now,
            lease_expires_at=terms.lease_until(now),
            deadline_at=terms.deadline(claim.budget_seconds, now),
            progress=None,
            step=None,
            loss=None,
            tokens=None,
        )
        .returning(r.c.fence)
    ).scalar_one()
    lease = {"run_id": run_id, "fence": fence, "worker_id": worker_id, "created_at": now}
    conn.execute(insert(tables.leases), lease)


def requeue(conn: Connection, run: Row[Any], failure: str, attempts: int) -> None:
    r = tables.runs
    state = wire.RunState.QUARANTINED if attempts >= MAX_ATTEMPTS else wire.RunState.QUEUED
    conn.execute(
        update(r)
        .where(r.c.id == run.id, r.c.fence == run.fence, r.c.state == wire.RunState.RUNNING)
        .values(
            state=state,
            attempt=attempts,
            failure=failure,
            worker_id=None,
            lease_expires_at=None,
            deadline_at=None,
        )
    )
