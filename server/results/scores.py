"""Scores: what a piece of code is worth in a track, summed up from its results.

One row per track and code, made anew from the results whenever one of them comes or is released,
so it cannot drift from them. The run that discovered a score does not count in the mean of its
replicates, nor does any that came before a challenge: the code was looked at because they were
lucky. A baseline was not chosen, so all of it counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from server import noise, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.results import visits
from server.results.rows import COUNTED, EXPERIMENT, RANKED
from server.results.tracks import REPORTED, add_sums, get_row, read_noise
from server.wire import ScoreState

S = tables.scores
_SCORE = Prepared(
    select(S).where(S.c.track_id == bindparam("track"), S.c.code == bindparam("code"))
)
_RECORD = Prepared(
    select(tables.records)
    .where(tables.records.c.track_id == bindparam("track"))
    .order_by(tables.records.c.id.desc())
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
    r = tables.results
    rows = conn.execute(
        select(r).where(r.c.track_id == track_id, r.c.code == code, COUNTED).order_by(r.c.id)
    ).all()
    old = find_score(conn, track_id, code)
    if not rows:
        if old is not None:
            conn.execute(S.delete().where(S.c.track_id == track_id, S.c.code == code))
            add_sums(conn, track_id, old, None)
            visits.count_score(conn, track_id, code, -1)
        return None
    values = _sum_up(rows, old) | {"updated_at": now}
    if old is None:
        conn.execute(insert(S), {"track_id": track_id, "code": code, **values})
        visits.count_score(conn, track_id, code, 1)
    else:
        conn.execute(update(S).where(S.c.track_id == track_id, S.c.code == code).values(values))
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
    key = (S.c.track_id == score.track_id, S.c.code == score.code)
    conn.execute(update(S).where(*key).values(values))


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
    best = select(S).where(S.c.track_id == track_id, S.c.val_bpb.is_not(None))
    return _reference(conn.execute(best.order_by(S.c.val_bpb).limit(1)).one_or_none())


def find_parent(conn: Connection, track_id: int, commit_seq: int) -> Reference | None:
    """The first parent's score in this track."""
    c, p = tables.commits, tables.commit_parents
    code = (
        select(c.c.code)
        .join(p, p.c.parent == c.c.seq)
        .where(p.c.child == commit_seq, p.c.position == 0)
        .scalar_subquery()
    )
    return _reference(
        conn.execute(select(S).where(S.c.track_id == track_id, S.c.code == code)).one_or_none()
    )


def _reference(score: Row[Any] | None) -> Reference | None:
    if score is None or score.val_bpb is None:
        return None
    return Reference(score.val_bpb, max(score.n, 1))


def find_best_single(conn: Connection, track_id: int, before_id: int | None = None) -> float | None:
    """The best single score among a track's experiments, as autoresearch's running best."""
    r = tables.results
    query = select(r.c.val_bpb).where(r.c.track_id == track_id, RANKED, EXPERIMENT)
    if before_id is not None:
        query = query.where(r.c.id < before_id)
    return conn.execute(query.order_by(r.c.val_bpb).limit(1)).scalar_one_or_none()


def sigma_of(conn: Connection, track_id: int) -> float:
    """Standard deviation of one run, bpb."""
    track = get_row(conn, track_id)
    if track.scoring == REPORTED:
        return noise.prior_sigma(track.platform, track.budget_seconds)
    return read_noise(track).sigma
