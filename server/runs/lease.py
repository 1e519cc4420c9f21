"""While a worker holds a run: heartbeats, release, and the result that ends it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, select, update

from server import agents, errors, events, results, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.runs import beats, queue
from server.runs.challenge import announce, settle
from server.runs.claim import LeaseTerms, requeue
from server.runs.rows import get_row, get_run, story

_R, _L = tables.runs.c, tables.leases.c
_HELD = (
    *(_R.id == bindparam("run"), _R.worker_id == bindparam("holder")),
    *(_R.fence == bindparam("held"), _R.state == wire.RunState.RUNNING),
)
_HELD_RUN = Prepared(select(tables.runs).where(*_HELD))
_RENEW = Prepared(
    update(tables.runs)
    .where(*_HELD, _R.deadline_at >= bindparam("now"))
    # What a heartbeat does not tell stays as it was.
    .values(
        lease_expires_at=bindparam("until"),
        step=func.coalesce(bindparam("at_step"), _R.step),
        progress=func.coalesce(bindparam("done"), _R.progress),
        loss=func.coalesce(bindparam("l"), _R.loss),
        tokens=func.coalesce(bindparam("seen"), _R.tokens),
    )
)
_END = Prepared(
    update(tables.runs)
    .where(*_HELD)
    .values(
        state=wire.RunState.FINISHED,
        outcome=bindparam("came_to"),
        finished_at=bindparam("now"),
        lease_expires_at=None,
        failure=bindparam("why"),
        log=bindparam("printed"),
    )
)
#: Whoever held it, lost or not.
_LEASE = Prepared(
    select(_L.fence)
    .where(_L.run_id == bindparam("run"), _L.worker_id == bindparam("holder"))
    .where(_L.fence == bindparam("held"))
)
_SUBJECT = Prepared(
    select(tables.commits.c.message).where(tables.commits.c.seq == bindparam("seq"))
)

#: In posts, as `GroupCommit` counts.
FINISH_COST = 16


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a report: `late` ones are kept, but the lease was lost."""

    result: wire.Result
    is_new: bool
    late: bool

    def check(self) -> None:
        """Raise LeaseLost for a late one; not before the commit, or it would not be kept."""
        if self.late:
            raise errors.LeaseLost(
                f"lease of run {self.result.run_id} was lost before this result came; "
                "it is kept as late"
            )


def heartbeat(
    conn: Connection,
    worker: agents.Agent,
    run_id: int,
    beat: wire.Heartbeat,
    terms: LeaseTerms,
    now: datetime,
) -> wire.Lease:
    """Renew the lease; raise LeaseLost if it is not this worker's any more."""
    agents.touch(conn, worker, now)
    until = terms.lease_until(now)
    told = {"at_step": beat.step, "done": beat.progress, "l": beat.loss, "seen": beat.tokens}
    renewed = _RENEW.run(
        conn, run=run_id, holder=worker.id, held=beat.fence, now=now, until=until, **told
    )
    if not renewed:
        raise _lost(conn, run_id)
    beats.keep(conn, run_id, beat)
    return wire.Lease(lease_expires_at=until)


def release(
    conn: Connection, worker_id: str, run_id: int, release: wire.Release, now: datetime
) -> wire.Run:
    """Give the run back; its attempt counts only after a fault."""
    run = _HELD_RUN.row(conn, run=run_id, holder=worker_id, held=release.fence)
    if run is None:
        raise _lost(conn, run_id)
    attempts = run.attempt if release.fault else run.attempt - 1
    requeue(conn, run, release.reason, attempts, now)
    released = get_run(conn, run_id)
    events.append(conn, "run", worker_id, str(run_id), story(released), now)
    return released


def finish(
    conn: Connection, worker_id: str, run_id: int, report: wire.ResultCreate, now: datetime
) -> Finished:
    """End the run with its result and announce it; the same report again changes nothing.

    A report whose lease was lost is kept as `late`, and `check` refuses it after the commit.
    Raises ResultConflict when this lease already ended with another report.
    """
    if report.outcome is wire.Outcome.OK and report.val_bpb is None:
        raise errors.InvalidRequest("an ok result needs val_bpb")
    digest = hashlib.sha256(report.model_dump_json().encode()).hexdigest()
    if not _LEASE.first(conn, run=run_id, holder=worker_id, held=report.fence):
        raise _lost(conn, run_id)
    if (known := results.find_by_lease(conn, run_id, report.fence)) is not None:
        if known.digest != digest:
            raise errors.ResultConflict(f"run {run_id} already has another result")
        return Finished(results.get_result(conn, known.id), is_new=False, late=bool(known.late))
    run = get_row(conn, run_id)
    ended = _end(conn, worker_id, run_id, report, now)
    result = _record(conn, run, worker_id, report, digest, late=not ended, now=now)
    if ended:
        _announce(conn, run, worker_id, result, now)
        if result.throttled is not None:
            queue.add_rerun(conn, run, now)
        settle(conn, worker_id, run.track_id, run.code, now)
    return Finished(result, is_new=True, late=not ended)


def _end(
    conn: Connection, worker_id: str, run_id: int, report: wire.ResultCreate, now: datetime
) -> bool:
    failure = None if report.outcome is wire.Outcome.OK else report.description or None
    held = {"run": run_id, "holder": worker_id, "held": report.fence}
    told = {"came_to": report.outcome, "why": failure, "printed": report.log_tail}
    return bool(_END.run(conn, **held, **told, now=now))


def _record(
    conn: Connection,
    run: Row[Any],
    worker_id: str,
    report: wire.ResultCreate,
    digest: str,
    *,
    late: bool,
    now: datetime,
) -> wire.Result:
    is_scored = report.outcome in (wire.Outcome.OK, wire.Outcome.FLAGGED)
    entry = results.Entry(
        track=results.lock_track(conn, run.track_id),
        code=run.code,
        agent_id=worker_id,
        source=wire.Source.MEASURED,
        outcome=report.outcome,
        commit_seq=run.commit_seq,
        val_bpb=report.val_bpb if is_scored else None,
        description=report.description,
        metrics=report.metrics,
        run=run,
        fence=report.fence,
        digest=digest,
        is_late=late,
    )
    return results.enter(conn, entry, now)


def _announce(
    conn: Connection, run: Row[Any], worker_id: str, result: wire.Result, now: datetime
) -> None:
    payload = {
        "run": run.id,
        "commit": result.commit,
        "track": result.track,
        "kind": run.kind,
        "outcome": result.outcome,
        "status": result.status,
        "verdict": result.verdict,
        "val_bpb": result.val_bpb,
        "quarantine": result.quarantine,
        "throttled": result.throttled,
    }
    events.append(conn, "result", worker_id, str(result.id), payload, now)
    subject = _SUBJECT.scalar(conn, seq=run.commit_seq)
    announce(conn, worker_id, result_line(result, subject), now)


def result_line(result: wire.Result, subject: str) -> str:
    """One result in the form of autoresearch's `program_agenthub.md`."""
    platform = result.track.split("/", 1)[0]
    vram = result.metrics.get("peak_vram_mb")
    score = f"{result.val_bpb:.6f}" if result.val_bpb is not None else "---"
    memory = f"{vram / 1024:.1f}" if isinstance(vram, int | float) and score != "---" else "---"
    line = f"commit:{result.commit[:12]} platform:{platform} val_bpb:{score} vram_gb:{memory}"
    return f"{line} | {' '.join(subject.split())[:300]}{_mark(result)}"


def _mark(result: wire.Result) -> str:
    if result.quarantine:
        return f" (QUARANTINED: {result.quarantine[:300]})"
    if result.status is wire.Status.CRASH:
        return f" (CRASH: {result.description or result.outcome})"
    if result.kind is wire.RunKind.REPLICATE:
        return f" (REPLICATE, seed {result.seed})"
    return " (DISCARD)" if result.status is wire.Status.DISCARD else ""


def _lost(conn: Connection, run_id: int) -> errors.LeaseLost:
    run = get_row(conn, run_id)
    return errors.LeaseLost(
        f"lease of run {run_id} is lost: it is {run.state} under fence {run.fence}"
    )
