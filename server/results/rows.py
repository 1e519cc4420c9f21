"""Rows of results as the wire shows them. Discards and crashes are results too."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
)

from server import errors, noise, tables, wire
from server.db import Connection
from server.prepared import Prepared, PreparedIn
from server.results.tracks import name_track, track_name

_R = tables.results.c
_WAITING = and_(_R.quarantine.is_not(None), _R.released_at.is_(None))
#: In time and believed.
COUNTED = and_(_R.late == 0, or_(_R.quarantine.is_(None), _R.released_at.is_not(None)))
#: Scores that count.
RANKED = and_(COUNTED, _R.val_bpb.is_not(None))
#: What a `wire.Score` is made of.
SCORE_COLUMNS = (
    *(tables.scores.c.val_bpb, tables.scores.c.state),
    *(tables.scores.c.result_id, tables.scores.c.n),
    *(tables.tracks.c.platform, tables.tracks.c.budget_seconds),
    *(tables.tracks.c.data_fingerprint, tables.tracks.c.scoring),
)
#: What somebody tried: replicates and audits repeat, they do not try.
EXPERIMENT = or_(
    _R.kind.is_(None), and_(_R.kind != wire.RunKind.REPLICATE, _R.kind != wire.RunKind.AUDIT)
)
_OF_LEASE = Prepared(
    select(tables.results).where(_R.run_id == bindparam("run"), _R.fence == bindparam("held"))
)


def get_result(conn: Connection, id: int) -> wire.Result:
    return _to_wire(get_row(conn, id))


def get_row(conn: Connection, id: int) -> Row[Any]:
    row: Row[Any] | None = _one().row(conn, id=id)
    if row is None:
        raise errors.NotFound("result not found", "GET /api/results lists them (`ah results`)")
    return row


def find_by_lease(conn: Connection, run_id: int, fence: int) -> Row[Any] | None:
    row: Row[Any] | None = _OF_LEASE.row(conn, run=run_id, held=fence)
    return row


def list_results(
    conn: Connection,
    commit_seq: int | None = None,
    track_id: int | None = None,
    limit: int = wire.LIST_DEFAULT,
    before: int | None = None,
    status: wire.Status | None = None,
    agent: str | None = None,
    is_quarantined: bool | None = None,
) -> list[wire.Result]:
    """Newest first, discards, crashes and quarantined ones included, late ones left out.

    `agent` is who pushed the commit, or reported a result of one that is not here.
    """
    filters = {
        "commit_seq": commit_seq,
        "track_id": track_id,
        "before": before,
        "status": status,
        "agent": agent,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    listing = _listing(frozenset(given), is_quarantined)
    return [_to_wire(row) for row in listing.rows(conn, **given, limit=limit)]


@cache
def _listing(names: frozenset[str], is_quarantined: bool | None) -> Prepared:
    filters = {
        "commit_seq": _R.commit_seq == bindparam("commit_seq"),
        "track_id": _R.track_id == bindparam("track_id"),
        "before": _R.id < bindparam("before"),
        "status": _R.status == bindparam("status"),
        "agent": _R.author == bindparam("agent"),
    }
    if is_quarantined:
        # Few are: they have an index of their own, which a track's or an author's would keep out.
        filters["track_id"] = func.coalesce(_R.track_id, 0) == bindparam("track_id")
        filters["status"] = func.coalesce(_R.status, "") == bindparam("status")
        filters["agent"] = func.coalesce(_R.author, "") == bindparam("agent")
    wanted = [filters[name] for name in sorted(names)]
    if is_quarantined is not None:
        wanted.append(_WAITING if is_quarantined else ~_WAITING)
    query = _select_results().where(_R.late == 0, *wanted).order_by(_R.id.desc())
    return Prepared(query.limit(bindparam("limit", type_=Integer)))


@cache
def _one() -> Prepared:
    return Prepared(_select_results().where(_R.id == bindparam("id")))


def best_scores(conn: Connection, commit_seqs: Sequence[int]) -> dict[int, wire.Score]:
    """What each commit's code is worth in the track that scored it last; measured ones first."""
    best: dict[int, Sequence[Any]] = {}
    for seq, *score in _SCORES_OF.all(conn, commit_seqs):
        if seq not in best or is_better_known(score, best[seq]):
            best[seq] = score
    return {seq: wire.Score.model_validate(score_fields(score)) for seq, score in best.items()}


def _select_scores(seqs: Sequence[Any]) -> Select[Any]:
    c, s, t = tables.commits, tables.scores, tables.tracks
    return (
        select(c.c.seq, *SCORE_COLUMNS)
        .join(s, s.c.code == c.c.code)
        .join(t, t.c.id == s.c.track_id)
        .where(c.c.seq.in_(seqs), s.c.val_bpb.is_not(None))
    )


_SCORES_OF = PreparedIn(_select_scores)


def is_better_known(score: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether a commit is known by this score of its code; both have the `SCORE_COLUMNS`."""
    return _rank(score) > _rank(other)


def _rank(score: Sequence[Any]) -> tuple[bool, int]:
    return score[1] != wire.ScoreState.REPORTED, score[2]


def find_twin(conn: Connection, code: str) -> str | None:
    """The hash of the first commit of this code that has a run, in whatever state."""
    found: str | None = conn.execute(select(twin_of(literal(code)))).scalar_one()
    return found


def twin_of(code: ColumnElement[str]) -> ScalarSelect[str]:
    """`find_twin` within a query."""
    c, r = tables.commits.alias("twin"), tables.runs
    return (
        select(c.c.hash)
        .join(r, r.c.commit_seq == c.c.seq)
        .where(r.c.code == code)
        .order_by(r.c.id)
        .limit(1)
        .scalar_subquery()
    )


def score_fields(score: Sequence[Any]) -> dict[str, Any] | None:
    """The fields of a `wire.Score` from the `SCORE_COLUMNS`; None where there is no score."""
    val_bpb, state, _, n, *track = score
    if val_bpb is None:
        return None
    source = source_of(state)
    return {"val_bpb": val_bpb, "track": name_track(*track), "source": source, "n": max(n, 1)}


def source_of(state: str) -> wire.Source:
    if state == wire.ScoreState.CONFIRMED:
        return wire.Source.CONFIRMED
    if state == wire.ScoreState.REPORTED:
        return wire.Source.REPORTED
    return wire.Source.MEASURED


def is_quarantined(row: Row[Any]) -> bool:
    return row.quarantine is not None and row.released_at is None


def _select_results() -> Select[Any]:
    r, c, t = tables.results, tables.commits, tables.tracks
    track = (t.c.platform, t.c.budget_seconds, t.c.data_fingerprint, t.c.scoring)
    return (
        select(r, c.c.hash, *track)
        .outerjoin(c, c.c.seq == r.c.commit_seq)
        .join(t, t.c.id == r.c.track_id)
    )


def _to_wire(row: Row[Any]) -> wire.Result:
    is_linked = row.commit_seq is not None
    return wire.Result(
        id=row.id,
        commit=row.hash if is_linked else row.code,
        run_id=row.run_id,
        agent_id=row.author,
        worker_id=row.agent_id if row.run_id is not None else None,
        source=row.source,
        track=track_name(row),
        outcome=row.outcome,
        status=row.status,
        verdict=_verdict(row),
        val_bpb=row.val_bpb,
        metrics=row.metrics,
        description=row.description,
        created_at=row.created_at,
        is_linked=is_linked,
        kind=row.kind,
        seed=row.seed,
        against_record=_compare(row.record_gain, row.record_z),
        against_parent=_compare(row.parent_gain, row.parent_z),
        quarantine=row.quarantine if row.released_at is None else None,
        throttled=row.throttled,
        post_id=row.post_id,
    )


def _verdict(row: Row[Any]) -> wire.Verdict | None:
    if is_quarantined(row):
        return None
    if row.val_bpb is None:
        return wire.Verdict.CRASH
    # The first score of a track has nothing to be compared with.
    return wire.Verdict.KEEP if row.record_z is None else wire.Verdict(noise.grade(row.record_z))


def _compare(gain: float | None, z: float | None) -> wire.Comparison | None:
    if gain is None or z is None:
        return None
    return wire.Comparison(gain=gain, z=z, verdict=wire.Verdict(noise.grade(z)))
