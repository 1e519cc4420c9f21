"""Scores: what a piece of code is worth in a track, summed up from its results.

One row per track and code, made anew from the results whenever one of them comes or is released,
so it cannot drift from them. The run that discovered a score does not count in the mean of its
replicates, nor does any that came before a challenge: the code was looked at because they were
lucky. A baseline was not chosen, so all of it counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from server import noise, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.results import visits
from server.results.rows import COUNTED, EXPERIMENT, RANKED
from server.results.tracks import REPORTED, add_sums, get_row, read_noise
from server.wire import ScoreState

S, _R = tables.scores, tables.results.c
_C, _P = tables.commits.c, tables.commit_parents.c
#: Above every id.
_END = 2**62
#: What the results of a code tell of its score.
_SUMMED = (
    *("commit_seq", "agent_id", "author", "result_id", "state", "val_bpb", "first"),
    *("n", "mean", "m2", "is_fixed_seed", "updated_at"),
)
_SCORE = Prepared(
    select(S).where(S.c.track_id == bindparam("track"), S.c.code == bindparam("code"))
)
_RECORD = Prepared(
    select(tables.records)
    .where(tables.records.c.track_id == bindparam("track"))
    .order_by(tables.records.c.id.desc())
    .limit(1)
)
_BEST = Prepared(
    select(S)
    .where(S.c.track_id == bindparam("track"), S.c.val_bpb.is_not(None))
    .order_by(S.c.val_bpb)
    .limit(1)
)
_PARENT = Prepared(
    select(S).where(
        S.c.track_id == bindparam("track"),
        S.c.code
        == select(_C.code)
        .join(tables.commit_parents, _P.parent == _C.seq)
        .where(_P.child == bindparam("child"), _P.position == 0)
        .scalar_subquery(),
    )
)
_ADD = Prepared(insert(S), "track_id", "code", *_SUMMED)
_MINE = (S.c.track_id == bindparam("of_track"), S.c.code == bindparam("of_code"))
_CHANGE_SUMS = Prepared(update(S).where(*_MINE), *_SUMMED)
_RESULTS = Prepared(
    select(tables.results)
    .where(_R.track_id == bindparam("track"), _R.code == bindparam("code"), COUNTED)
    .order_by(_R.id)
)
_SINGLE = Prepared(
    select(_R.val_bpb)
    # Not by the plain id, or the planner might look through the track in its order.
    .where(_R.track_id == bindparam("track"), RANKED, EXPERIMENT, _R.id + 0 < bindparam("before"))
    .order_by(_R.val_bpb)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a new score of a track is compared with."""

    val_bpb: float
    n: int


def find_score(conn: Connection, track_id: int, code: str) -> Row[Any] | None:
    score: Row[Any] | None = _SCORE.row(conn, track=track_id, code=code)
    return score


def refresh(conn: Connection, track_id: int, code: str, now: datetime) -> Row[Any] | None:
    """Sum the results of a code up; None when none of them counts."""
    rows = _RESULTS.rows(conn, track=track_id, code=code)
    old = find_score(conn, track_id, code)
    if not rows:
        if old is not None:
            conn.execute(S.delete().where(S.c.track_id == track_id, S.c.code == code))
            add_sums(conn, track_id, old, None)
            visits.count_score(conn, track_id, code, -1)
        return None
    values = _sum_up(rows, old) | {"updated_at": now}
    if old is None:
        _ADD.run(conn, track_id=track_id, code=code, **values)
        visits.count_score(conn, track_id, code, 1)
    else:
        _CHANGE_SUMS.run(conn, of_track=track_id, of_code=code, **values)
    new = find_score(conn, track_id, code)
    add_sums(conn, track_id, old, new)
    return new


def _sum_up(rows: Sequence[Row[Any]], old: Row[Any] | None) -> dict[str, Any]:
    scored = [row for row in rows if row.val_bpb is not None]
    first = rows[0]
    is_reported = first.source == wire.Source.REPORTED
    state = old.state if old else ScoreState.REPORTED if is_reported else ScoreState.MEASURED
    since = old.since if old and old.since is not None else 0
    counted = [row for row in scored[1:] if row.id > since]
    if state == ScoreState.BASELINE:
        counted = scored
    group = noise.Group.of(row.val_bpb for row in counted) if counted else None
    discovered = scored[0].val_bpb if scored else None
    linked = next((row for row in rows if row.commit_seq is not None), first)
    return {
        "commit_seq": linked.commit_seq,
        "agent_id": first.agent_id,
        "author": linked.author,
        "result_id": rows[-1].id,
        "state": state,
        "val_bpb": group.mean if group else discovered,
        "first": discovered,
        "n": group.n if group else 0,
        "mean": group.mean if group else None,
        "m2": group.m2 if group else 0.0,
        "is_fixed_seed": _is_fixed_seed(scored),
    }


def _is_fixed_seed(scored: Sequence[Row[Any]]) -> bool:
    """Whether runs with different seeds came out the same."""
    by_seed = {row.seed: row.val_bpb for row in scored if row.seed is not None}
    return noise.is_fixed_seed(list(by_seed.values()))


def mark(conn: Connection, score: Row[Any], **values: Any) -> None:
    _change(*values).run(conn, of_track=score.track_id, of_code=score.code, **values)


@cache
def _change(*columns: str) -> Prepared:
    return Prepared(update(S).where(*_MINE), *columns)


# What new scores are compared with ---------------------------------------------------------------


def find_record(conn: Connection, track_id: int) -> Row[Any] | None:
    """The record that stands in a track: confirmed last, or its baseline."""
    record: Row[Any] | None = _RECORD.row(conn, track=track_id)
    return record


def find_reference(conn: Connection, track_id: int) -> Reference | None:
    """The record as all its runs tell it by now; of reports the best one."""
    record = find_record(conn, track_id)
    if record is not None:
        score = find_score(conn, track_id, record.code)
        return _reference(score) or Reference(record.val_bpb, record.n)
    return _reference(_BEST.row(conn, track=track_id))


def find_parent(conn: Connection, track_id: int, commit_seq: int) -> Reference | None:
    """The first parent's score in this track."""
    return _reference(_PARENT.row(conn, track=track_id, child=commit_seq))


def _reference(score: Row[Any] | None) -> Reference | None:
    if score is None or score.val_bpb is None:
        return None
    return Reference(score.val_bpb, max(score.n, 1))


def find_best_single(conn: Connection, track_id: int, before_id: int | None = None) -> float | None:
    """The best single score among a track's experiments, as autoresearch's running best."""
    best: float | None = _SINGLE.scalar(
        conn, track=track_id, before=_END if before_id is None else before_id
    )
    return best


def sigma_of(conn: Connection, track_id: int) -> float:
    """Standard deviation of one run, bpb."""
    track = get_row(conn, track_id)
    if track.scoring == REPORTED:
        return noise.prior_sigma(track.platform, track.budget_seconds)
    return read_noise(track).sigma
