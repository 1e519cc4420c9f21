"""Challenges: a first run that would take the record is trained again before it does.

    measured ──beats the record by more than noise──► challenger ──replicates──► confirmed
                                                          └──────────────────► refuted

Replicates have new seeds and the run that made the challenge is not counted among them. The
record is trained again too while few runs tell what it is worth. All in the transaction of the
result that brought the news.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, literal_column, select

from server import board, events, noise, results, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.runs import queue
from server.wire import ScoreState

#: Replicates asked for in all, those that crashed or were not believed included.
_ASKED_MAX = 2 * noise.REPLICATES_MAX
#: Runs of the record that its first challenger makes the hub have; each later one adds one.
_RECORD_RUNS = 3
_S = tables.scores.c
_JUDGED = Prepared(select(func.max(_S.challenger)).where(_S.record_id == bindparam("record")))
_CHALLENGERS = Prepared(
    select(tables.scores)
    # Spelled out, so that the partial index can serve it.
    .where(_S.track_id == bindparam("track"), _S.state == literal_column("'challenger'"))
    .order_by(_S.challenger.is_(None), _S.challenger, _S.val_bpb)
)


def settle(conn: Connection, worker_id: str, track_id: int, code: str, now: datetime) -> None:
    """Act on a new result of a code, or on the end of a run that will never have one."""
    score = results.find_score(conn, track_id, code)
    if score is None or score.val_bpb is None or score.commit_seq is None:
        return
    record = results.find_record(conn, track_id)
    if record is None:
        _open_baseline(conn, score, now)
    elif score.code == record.code:
        _decide_all(conn, worker_id, record, now)
    elif score.state == ScoreState.MEASURED:
        _challenge(conn, score, record, now)
    elif score.state == ScoreState.CHALLENGER:
        _decide(conn, worker_id, score, record, now)


def announce(conn: Connection, worker_id: str, line: str, now: datetime) -> None:
    """Tell the channel of results."""
    board.open_channel(conn, worker_id, results.CHANNEL, "what every run measured", now)
    board.create_post(conn, worker_id, results.CHANNEL, wire.PostCreate(content=line), now)


def adopt(conn: Connection, now: datetime) -> None:
    """Give scores, baselines and challengers to what was recorded before there were any."""
    for score in results.rebuild(conn, now):
        if score.state == ScoreState.MEASURED:
            settle(conn, score.agent_id, score.track_id, score.code, now)


def settle_released(conn: Connection, result: wire.Result, now: datetime) -> None:
    """Act on a result that left quarantine, as if it had just come."""
    if result.source is wire.Source.MEASURED and result.worker_id is not None:
        row = results.get_row(conn, result.id)
        settle(conn, result.worker_id, row.track_id, row.code, now)
    payload = {"released": True, "commit": result.commit, "track": result.track}
    events.append(conn, "result", "admin", str(result.id), payload, now)


def _open_baseline(conn: Connection, score: Row[Any], now: datetime) -> None:
    """The first score of a track: what all others must beat."""
    _add_record(conn, score, score.val_bpb, None, now)
    results.mark(conn, score, state=ScoreState.BASELINE)
    results.refresh(conn, score.track_id, score.code, now)


def _challenge(conn: Connection, score: Row[Any], record: Row[Any], now: datetime) -> None:
    standing = results.find_score(conn, record.track_id, record.code)
    level = standing.val_bpb if standing else record.val_bpb
    needed = noise.CHALLENGE_SIGMAS * results.sigma_of(conn, record.track_id)
    if level - score.val_bpb <= needed:
        return
    _enlist(conn, score, record)
    results.mark(conn, score, since=score.result_id)
    results.refresh(conn, score.track_id, score.code, now)
    queue.add_replicates(conn, score.track_id, score, noise.REPLICATES_MIN, now)
    if standing is not None:
        to_come = queue.count_replicates(conn, standing.track_id, standing.code)[1]
        runs = standing.n + to_come
        if runs < noise.REPLICATES_MAX:
            lacking = max(_RECORD_RUNS - runs, 1)
            queue.add_replicates(conn, score.track_id, standing, lacking, now)


def _enlist(conn: Connection, score: Row[Any], record: Row[Any]) -> None:
    values = {"state": ScoreState.CHALLENGER, "record_id": record.id, "challenger": None}
    results.mark(conn, score, **values)


def _number(conn: Connection, score: Row[Any], record: Row[Any]) -> int:
    """As which challenger of this record it is judged; the later, the more it must show.

    Counted from the first look at its replicates on, so that those who wait cost nothing.
    """
    if score.challenger is not None:
        return int(score.challenger)
    number = (_JUDGED.scalar(conn, record=record.id) or 0) + 1
    results.mark(conn, score, challenger=number)
    return int(number)


def _decide_all(conn: Connection, worker_id: str, record: Row[Any], now: datetime) -> None:
    """After another run of the record: its challengers face another mean and another noise."""
    for score in _list_challengers(conn, record.track_id):
        if _decide(conn, worker_id, score, record, now):
            return  # The others have been judged by the new record.


def _decide(
    conn: Connection, worker_id: str, score: Row[Any], record: Row[Any], now: datetime
) -> bool:
    """Judge a challenger by the runs there are; True when it is the record now."""
    if _is_record_unsure(conn, record):
        return False
    asked, to_come = queue.count_replicates(conn, score.track_id, score.code)
    decision = _judge(conn, score, record)
    is_fixed = score.is_fixed_seed and score.n >= noise.REPLICATES_MIN
    if is_fixed or (asked >= _ASKED_MAX and not to_come):
        decision = noise.Decision.REFUTE
    if decision is noise.Decision.CONFIRM:
        _confirm(conn, worker_id, score, record, now)
        return True
    if decision is noise.Decision.REFUTE:
        _refute(conn, score)
    elif not to_come:
        queue.add_replicates(conn, score.track_id, score, 1, now)
    return False


def _is_record_unsure(conn: Connection, record: Row[Any]) -> bool:
    """Whether too few runs of it are in, and more are to come."""
    standing = results.find_score(conn, record.track_id, record.code)
    if standing is None or standing.n >= _RECORD_RUNS:
        return False
    return queue.count_replicates(conn, record.track_id, record.code)[1] > 0


def _judge(conn: Connection, score: Row[Any], record: Row[Any]) -> noise.Decision:
    standing = results.find_score(conn, record.track_id, record.code)
    if score.n < noise.REPLICATES_MIN or standing is None or not standing.n:
        return noise.Decision.MORE
    known = results.read_noise(results.lock_track(conn, score.track_id))
    groups = _group(score), _group(standing)
    number = _number(conn, score, record)
    return noise.decide(*groups, known.sigma, number, known.degrees)


def _group(score: Row[Any]) -> noise.Group:
    return noise.Group(score.n, score.mean, score.m2)


def _refute(conn: Connection, score: Row[Any]) -> None:
    results.mark(conn, score, state=ScoreState.REFUTED)
    queue.withdraw_replicates(conn, score.track_id, score.code)


def _confirm(
    conn: Connection, worker_id: str, score: Row[Any], record: Row[Any], now: datetime
) -> None:
    standing = results.find_score(conn, record.track_id, record.code)
    sigma = results.sigma_of(conn, score.track_id)
    level, runs = (standing.mean, standing.n) if standing else (record.val_bpb, record.n)
    z = noise.z_score(level - score.mean, sigma, score.n, runs)
    _add_record(conn, score, score.mean, z, now)
    results.mark(conn, score, state=ScoreState.CONFIRMED)
    for code in (score.code, record.code):
        queue.withdraw_replicates(conn, score.track_id, code)
    _announce_record(conn, worker_id, score.track_id, level, now)
    _review(conn, worker_id, score.track_id, now)


def _announce_record(
    conn: Connection, worker_id: str, track_id: int, beat: float, now: datetime
) -> None:
    record = results.find_standing(conn, track_id)
    if record is None:
        return
    track = results.track_name(results.lock_track(conn, track_id))
    payload = record.model_dump(mode="json") | {"track": track, "beat": beat}
    events.append(conn, "record", worker_id, record.commit, payload, now)
    z = "" if record.z is None else f", {record.z:.1f} standard errors better than the last record"
    line = (
        f"record: {record.commit[:12]} by {record.agent_id or 'nobody known'} is confirmed at "
        f"{record.val_bpb:.6f} ± {record.standard_error:.6f} (n={record.n}){z} in {track}"
    )
    announce(conn, worker_id, line, now)


def _add_record(
    conn: Connection, score: Row[Any], val_bpb: float, z: float | None, now: datetime
) -> None:
    n = max(score.n, 1)
    sigma = results.sigma_of(conn, score.track_id)
    row = {
        "track_id": score.track_id,
        "code": score.code,
        "commit_seq": score.commit_seq,
        "val_bpb": val_bpb,
        "n": n,
        "standard_error": noise.standard_error(sigma, n),
        "z": z,
        "created_at": now,
    }
    conn.execute(insert(tables.records), row)


def _list_challengers(conn: Connection, track_id: int) -> Sequence[Row[Any]]:
    return _CHALLENGERS.rows(conn, track=track_id)


def _review(conn: Connection, worker_id: str, track_id: int, now: datetime) -> None:
    """After a new record: who still promises to beat it challenges it, the others are done."""
    record = results.find_record(conn, track_id)
    if record is None:
        return
    needed = noise.CHALLENGE_SIGMAS * results.sigma_of(conn, track_id)
    for score in _list_challengers(conn, track_id):
        if record.val_bpb - score.val_bpb > needed:
            _enlist(conn, score, record)
        else:
            _refute(conn, score)
    # Some have all their replicates already, and no run to come would bring them up again.
    _decide_all(conn, worker_id, record, now)
