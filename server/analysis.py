"""Analysis: what a track has come to. Where it is going, what paid, what failed, who works."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select

from server import results, tables, wire
from server.db import Connection

#: Experiments that make a trend, and the recent keep rate.
WINDOW = 20
#: The newest experiments that changes and failures are counted among.
LOOKED_AT = 5_000
#: A worker this long silent with a run is stale, or without one gone.
_STALE = timedelta(minutes=2)
_GONE = timedelta(hours=1)
_DAY = timedelta(days=1)
#: Kinds of change that are listed, and experiments that make one of them worth it.
_KINDS_MAX = 10
_TRIED_MIN = 2

R, C = tables.results, tables.commits


def analyse(conn: Connection, track: wire.Track, now: datetime) -> wire.Analysis:
    progress = results.read_progress(conn, track, WINDOW)
    last = results.last_gain(results.list_falls(conn, track.id), track.noise or 0.0)
    since = max(progress.experiments - max(last, 1), 0)
    oldest = _find_oldest(conn, track.id, progress.experiments)
    changes = _list_changes(conn, track.id, oldest)
    return wire.Analysis(
        track=track,
        trend=name_trend(progress.experiments, since),
        experiments=progress.experiments,
        since_gain=since,
        keep_rate=progress.keep_rate,
        recent_keep_rate=find_keep_rate(progress.points),
        crashes=progress.crashes,
        best=progress.best,
        record=results.find_standing(conn, track.id),
        paid=_paid(conn, track.id, oldest, changes),
        failed=_failed(changes),
        failures=_list_failures(conn, track.id, oldest),
        workers=list_workers(conn, now),
        quarantined=track.quarantined,
        challengers=_count_challengers(conn, track.id),
    )


def list_workers(conn: Connection, now: datetime) -> list[wire.WorkerStat]:
    """Those that matter first: stale, training, idle, gone."""
    rows = conn.execute(_select_workers(now)).all()
    held = _list_held(conn)
    labels = {row.id: results.track_label(row) for row in conn.execute(select(tables.tracks))}
    workers = [
        wire.WorkerStat(
            id=row.id,
            state=_state(row, held.get(row.id), now),
            last_seen_at=row.last_seen_at,
            run_id=held[row.id].id if row.id in held else None,
            track=labels.get(row.track_id),
            runs=row.runs,
        )
        for row in rows
    ]
    order = list(_WORKER_ORDER)
    return sorted(workers, key=lambda one: order.index(one.state))


def _select_workers(now: datetime) -> Select[Any]:
    """Those seen last, each with the track of its newest run and how many it began in a day."""
    a, r = tables.agents, tables.runs
    mine = r.c.worker_id == a.c.id
    track = select(r.c.track_id).where(mine).order_by(r.c.id.desc()).limit(1).scalar_subquery()
    recent = select(func.count()).where(mine, r.c.started_at > now - _DAY).scalar_subquery()
    query = select(a.c.id, a.c.last_seen_at, track.label("track_id"), recent.label("runs"))
    is_worker = (a.c.role == wire.Role.WORKER, a.c.disabled_at.is_(None))
    return query.where(*is_worker).order_by(a.c.last_seen_at.desc()).limit(wire.LIST_DEFAULT)


_WORKER_ORDER = (
    wire.WorkerState.STALE, wire.WorkerState.TRAINING, wire.WorkerState.IDLE, wire.WorkerState.GONE,
)  # fmt: skip


def name_trend(experiments: int, since_gain: int) -> wire.Trend:
    """Where so many experiments are going, the last so many of them without a gain."""
    if experiments < WINDOW:
        return wire.Trend.NEW
    return wire.Trend.IMPROVING if since_gain < WINDOW else wire.Trend.PLATEAU


def find_keep_rate(points: Sequence[results.Experiment]) -> float:
    """Keeps of the experiments that did not crash."""
    worked = [point for point in points if point.status is not wire.Status.CRASH]
    kept = sum(point.status is wire.Status.KEEP for point in worked)
    return kept / len(worked) if worked else 0.0


# Changes -----------------------------------------------------------------------------------------


def _find_oldest(conn: Connection, track_id: int, experiments: int) -> int:
    """The result with which the newest `LOOKED_AT` experiments begin."""
    first = max(experiments - LOOKED_AT, 0) + 1
    query = select(R.c.id).where(R.c.track_id == track_id, R.c.number == first)
    return conn.execute(query).scalar_one_or_none() or 0


def _list_changes(conn: Connection, track_id: int, oldest: int) -> list[wire.ChangeStat]:
    """By kind of change, of experiments whose diff has been read."""
    t = tables.changes
    kept = func.count().filter(R.c.status == wire.Status.KEEP).label("kept")
    crashed = func.count().filter(R.c.status == wire.Status.CRASH).label("crashed")
    rows = conn.execute(
        select(t.c.kind, func.count().label("tried"), kept, crashed)
        .add_columns(
            func.avg(R.c.parent_gain).label("mean"), func.max(R.c.parent_gain).label("best")
        )
        .join(R, R.c.commit_seq == t.c.commit_seq)
        .where(*_since(track_id, oldest), results.COUNTED, results.EXPERIMENT)
        .group_by(t.c.kind)
        .order_by(func.count().desc())
        .limit(200)
    ).all()
    return [
        wire.ChangeStat(
            kind=row.kind,
            tried=row.tried,
            kept=row.kept,
            crashed=row.crashed,
            mean_gain=row.mean,
            best_gain=row.best,
            best_commit=None,
        )
        for row in rows
    ]


def _since(track_id: int, oldest: int) -> tuple[ColumnElement[bool], ...]:
    return (R.c.track_id == track_id, R.c.id >= oldest)


def _paid(
    conn: Connection, track_id: int, oldest: int, changes: Sequence[wire.ChangeStat]
) -> list[wire.ChangeStat]:
    """What was kept at least once, the largest gain first."""
    kept = [one for one in changes if one.kept and (one.best_gain or 0) > 0]
    best = sorted(kept, key=lambda one: -(one.best_gain or 0))[:_KINDS_MAX]
    return [
        one.model_copy(update={"best_commit": _find_best(conn, track_id, oldest, one)})
        for one in best
    ]


def _find_best(conn: Connection, track_id: int, oldest: int, change: wire.ChangeStat) -> str | None:
    t = tables.changes
    is_best = R.c.parent_gain == change.best_gain
    return conn.execute(
        select(C.c.hash)
        .join(R, R.c.commit_seq == C.c.seq)
        .join(t, t.c.commit_seq == C.c.seq)
        .where(*_since(track_id, oldest), is_best, t.c.kind == change.kind)
        .limit(1)
    ).scalar_one_or_none()


def _failed(changes: Sequence[wire.ChangeStat]) -> list[wire.ChangeStat]:
    """What was tried more than once and never kept, the most tried first."""
    return [one for one in changes if not one.kept and one.tried >= _TRIED_MIN][:_KINDS_MAX]


# Failures and workers ----------------------------------------------------------------------------


def _list_failures(conn: Connection, track_id: int, oldest: int) -> list[wire.FailureStat]:
    rows = conn.execute(
        select(R.c.outcome, func.count().label("count"), func.max(R.c.id).label("newest"))
        .where(*_since(track_id, oldest), R.c.late == 0, R.c.outcome != wire.Outcome.OK)
        .group_by(R.c.outcome)
        .order_by(func.count().desc())
    ).all()
    found = []
    for row in rows:
        newest = results.get_result(conn, row.newest)
        found.append(
            wire.FailureStat(
                outcome=row.outcome,
                count=row.count,
                description=newest.description,
                commit=newest.commit,
            )
        )
    return found


def _count_challengers(conn: Connection, track_id: int) -> int:
    s = tables.scores
    is_open = (s.c.track_id == track_id, s.c.state == wire.ScoreState.CHALLENGER)
    count: int = conn.execute(select(func.count()).select_from(s).where(*is_open)).scalar_one()
    return count


def _list_held(conn: Connection) -> dict[str, Any]:
    r = tables.runs
    running: ColumnElement[bool] = r.c.state == wire.RunState.RUNNING
    query = select(r.c.id, r.c.worker_id, r.c.lease_expires_at).where(running)
    return {row.worker_id: row for row in conn.execute(query)}


def _state(agent: Any, held: Row[Any] | None, now: datetime) -> wire.WorkerState:
    silent = now - agent.last_seen_at if agent.last_seen_at else _GONE + _STALE
    if held is not None:
        is_stale = held.lease_expires_at < now or silent > _STALE
        return wire.WorkerState.STALE if is_stale else wire.WorkerState.TRAINING
    return wire.WorkerState.GONE if silent > _GONE else wire.WorkerState.IDLE
