"""Ledger: every score becomes a row, judged as it comes and never changed afterwards."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, select, update

from server import errors, events, noise, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.results import sanity, scores, tallies, throttle
from server.results.rows import COUNTED, get_result, is_quarantined
from server.results.tracks import REPORTED, get_row, track_name

_AUTHOR = Prepared(
    select(tables.commits.c.agent_id).where(tables.commits.c.seq == bindparam("seq"))
)
_JUDGED = ("record_gain", "record_z", "parent_gain", "parent_z")
_R, _T = tables.results.c, tables.tracks.c
_REPORTS = Prepared(
    select(_R.id, _R.val_bpb, _R.track_id, _R.author, _R.status, _R.kind, _R.late)
    .join(tables.tracks, _T.id == _R.track_id)
    .where(
        _R.code == bindparam("code"),
        _R.val_bpb.is_not(None),
        _R.quarantine.is_(None),
        _T.platform == bindparam("platform"),
        _T.budget_seconds == bindparam("budget_seconds"),
        _T.scoring == REPORTED,
    )
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A score as it was told."""

    track: Row[Any]
    code: str
    agent_id: str
    source: wire.Source
    outcome: wire.Outcome
    commit_seq: int | None = None
    val_bpb: float | None = None
    #: Why what was given as a score is no number.
    flaw: str | None = None
    #: An agent's own word; None lets the running best decide.
    status: wire.Status | None = None
    description: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    run: Row[Any] | None = None
    fence: int | None = None
    post_id: int | None = None
    digest: str | None = None
    is_late: bool = False


def enter(conn: Connection, entry: Entry, now: datetime) -> wire.Result:
    """Insert one row and sum its code up anew.

    Raises IntegrityError when the lease of a measured one has a result already.
    """
    told = entry.val_bpb
    problem = _find_problem(conn, entry)
    value = told if told is not None and math.isfinite(told) else None
    judged = {} if problem or entry.is_late or value is None else _compare(conn, entry, value)
    kind = entry.run.kind if entry.run else None
    is_numbered = not entry.is_late and tallies.is_experiment(kind)
    row = {
        "commit_seq": entry.commit_seq,
        "code": entry.code,
        "run_id": entry.run.id if entry.run else None,
        "fence": entry.fence,
        "kind": kind,
        "seed": entry.run.seed if entry.run else None,
        "agent_id": entry.agent_id,
        "author": _find_author(conn, entry),
        "number": tallies.next_number(conn, entry.track.id) if is_numbered else None,
        "post_id": entry.post_id,
        "source": entry.source,
        "track_id": entry.track.id,
        "outcome": entry.outcome,
        "status": entry.status or _status(conn, entry.track.id, value, problem),
        "val_bpb": value,
        "quarantine": problem,
        "throttled": _find_throttle(conn, entry, problem),
        "metrics": entry.metrics,
        "description": entry.description,
        "digest": entry.digest,
        "late": int(entry.is_late),
        "created_at": now,
        **dict.fromkeys(_JUDGED),
        **judged,
    }
    id: int = _adding(*row).scalar(conn, **row)
    if not entry.is_late and not problem:
        tallies.add(conn, entry.track.id, row["author"], row["status"], kind)
    if not entry.is_late:
        scores.refresh(conn, entry.track.id, entry.code, now)
    if entry.source is not wire.Source.REPORTED and value is not None and not problem:
        _doubt_reports(conn, entry, value, now)
    return get_result(conn, id)


@cache
def _adding(*columns: str) -> Prepared:
    return Prepared(insert(tables.results).returning(_R.id), *columns)


def release(conn: Connection, id: int, now: datetime) -> wire.Result:
    """Let a quarantined result count; raise NotFound, or InvalidRequest when it does already."""
    r = tables.results
    row = conn.execute(select(r).where(r.c.id == id)).one_or_none()
    if row is None:
        raise errors.NotFound("result not found")
    if not is_quarantined(row):
        raise errors.InvalidRequest(f"result {id} is not in quarantine")
    if row.val_bpb is None or not 0 < row.val_bpb < sanity.TOO_HIGH:
        raise errors.InvalidRequest(f"result {id} holds no number that could count")
    best = scores.find_best_single(conn, row.track_id, before_id=id)
    is_keep = best is None or row.val_bpb < best
    status = wire.Status.KEEP if is_keep else wire.Status.DISCARD
    values: dict[str, Any] = {"released_at": now}
    if row.source != wire.Source.REPORTED:
        values["status"] = status
    conn.execute(update(r).where(r.c.id == id).values(values))
    if not row.late:
        status = values.get("status", row.status)
        tallies.add(conn, row.track_id, row.author, status, row.kind)
    scores.refresh(conn, row.track_id, row.code, now)
    return get_result(conn, id)


def rebuild(conn: Connection, now: datetime) -> list[Row[Any]]:
    """Sum up what was recorded before there were scores; instant when there is nothing to do.

    Returns the new scores in the order of their first results.
    """
    r, s = tables.results, tables.scores
    if conn.execute(select(s.c.code).limit(1)).first():
        return []
    groups = conn.execute(
        select(r.c.track_id, r.c.code)
        .where(COUNTED)
        .group_by(r.c.track_id, r.c.code)
        .order_by(func.min(r.c.id))
    )
    made = [scores.refresh(conn, row.track_id, row.code, now) for row in groups.all()]
    return [score for score in made if score is not None]


def _find_author(conn: Connection, entry: Entry) -> str:
    """Who pushed the commit; of one that is not here, whose word it is."""
    if entry.commit_seq is None:
        return entry.agent_id
    return _AUTHOR.scalar(conn, seq=entry.commit_seq) or ""


def _find_problem(conn: Connection, entry: Entry) -> str | None:
    if entry.is_late:
        return None
    if entry.outcome is wire.Outcome.FLAGGED:
        return f"flagged by the worker: {entry.description or 'no reason given'}"
    if entry.val_bpb is None:
        return entry.flaw
    return sanity.find_problem(conn, entry.track, entry.code, entry.source, entry.val_bpb)


def _find_throttle(conn: Connection, entry: Entry, problem: str | None) -> float | None:
    is_measured = entry.source is wire.Source.MEASURED and entry.outcome is wire.Outcome.OK
    if not is_measured or problem or entry.is_late:
        return None
    return throttle.find_throttle(conn, entry.track, entry.code, entry.metrics)


def _status(
    conn: Connection, track_id: int, value: float | None, problem: str | None
) -> wire.Status:
    """As autoresearch has it: keep what is better than all single scores before."""
    if value is None:
        return wire.Status.CRASH
    best = scores.find_best_single(conn, track_id)
    is_keep = problem is None and (best is None or value < best)
    return wire.Status.KEEP if is_keep else wire.Status.DISCARD


def _compare(conn: Connection, entry: Entry, value: float) -> dict[str, float]:
    sigma = scores.sigma_of(conn, entry.track.id)
    record = scores.find_reference(conn, entry.track.id)
    parent = (
        scores.find_parent(conn, entry.track.id, entry.commit_seq)
        if entry.commit_seq is not None
        else None
    )
    judged: dict[str, float] = {}
    for name, other in (("record", record), ("parent", parent)):
        if other is not None:
            gain = other.val_bpb - value
            judged[f"{name}_gain"] = gain
            judged[f"{name}_z"] = noise.z_score(gain, sigma, 1, other.n)
    return judged


def _doubt_reports(conn: Connection, entry: Entry, measured: float, now: datetime) -> None:
    """Put reports of the same code into quarantine that are far from what was measured now."""
    r, track = tables.results, entry.track
    machine = {"platform": track.platform, "budget_seconds": track.budget_seconds}
    for report in _REPORTS.rows(conn, code=entry.code, **machine):
        if not sanity.is_near(measured, report.val_bpb, track):
            why = f"reported as {report.val_bpb:.6f}, but workers measured {measured:.6f}"
            conn.execute(update(r).where(r.c.id == report.id).values(quarantine=why))
            if not report.late:
                tallies.add(conn, report.track_id, report.author, report.status, report.kind, by=-1)
            scores.refresh(conn, report.track_id, entry.code, now)
            payload = {"reason": why, "track": track_name(get_row(conn, report.track_id))}
            events.append(conn, "result", entry.agent_id, str(report.id), payload, now)
