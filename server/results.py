"""Results: scores by track, the leaderboard, and what a commit is worth.

Only scores of one track (platform, time budget, data fingerprint, scoring level) are compared.
Every score is a row, discards and crashes too; rows are never changed.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, insert, select

from server import errors, tables, wire
from server.db import Connection

#: Scores that count: in time, and of a training that worked.
RANKED = (tables.results.c.late == 0) & (tables.results.c.val_bpb.is_not(None))


# Tracks ----------------------------------------------------------------------------------------


def track_name(track: Row[Any]) -> str:
    """Short and readable, e.g. `H100/300s/3f9a1c2e/inline`."""
    fingerprint = track.data_fingerprint[:8]
    return f"{track.platform}/{track.budget_seconds}s/{fingerprint}/{track.scoring}"


def find_track(conn: Connection, claim: wire.Claim) -> Row[Any] | None:
    t = tables.tracks
    return conn.execute(
        select(t).where(
            t.c.platform == claim.platform,
            t.c.budget_seconds == claim.budget_seconds,
            t.c.data_fingerprint == claim.data_fingerprint,
            t.c.scoring == claim.scoring,
        )
    ).one_or_none()


def open_track(conn: Connection, claim: wire.Claim, now: datetime) -> Row[Any]:
    """The track of this claim, made if it is the first one."""
    if (track := find_track(conn, claim)) is not None:
        return track
    row = claim.model_dump(
        include={"platform", "budget_seconds", "data_fingerprint", "scoring"}
    ) | {"created_at": now}
    return conn.execute(insert(tables.tracks).returning(tables.tracks), row).one()


def list_tracks(conn: Connection) -> list[wire.Track]:
    """Tracks with results or runs, the busiest first."""
    t, r = tables.tracks, tables.results
    count = func.count(r.c.id).label("count")
    rows = conn.execute(
        select(t, count)
        .outerjoin(r, r.c.track_id == t.c.id)
        .group_by(*t.c)
        .order_by(count.desc(), t.c.id)
    )
    return [
        wire.Track(
            id=row.id,
            name=track_name(row),
            platform=row.platform,
            budget_seconds=row.budget_seconds,
            data_fingerprint=row.data_fingerprint,
            scoring=row.scoring,
            results=row.count,
        )
        for row in rows
    ]


def get_track(conn: Connection, name: str) -> wire.Track:
    """By id, full name, or the start of the name; raise NotFound unless exactly one fits."""
    every = list_tracks(conn)
    exact = [track for track in every if name in (str(track.id), track.name)]
    found = exact or [track for track in every if track.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(track.name for track in every[:10]) or "there is none yet"
        problem = "no such track" if not found else "several tracks fit"
        raise errors.NotFound(f"{problem}: {name}", f"tracks: {known}")
    return found[0]


# Scores ----------------------------------------------------------------------------------------


def record(conn: Connection, values: dict[str, Any]) -> Row[Any]:
    """Insert one result row; raise IntegrityError when this lease has one already."""
    with conn.begin_nested():
        return conn.execute(insert(tables.results).returning(tables.results), values).one()


def judge(conn: Connection, track_id: int, outcome: wire.Outcome, val_bpb: float | None) -> str:
    """keep when it beats all earlier scores of its track, else discard; crash when none came."""
    if outcome is not wire.Outcome.OK or val_bpb is None:
        return wire.Verdict.CRASH
    r = tables.results
    best = conn.execute(
        select(func.min(r.c.val_bpb)).where(r.c.track_id == track_id, RANKED)
    ).scalar_one()
    return wire.Verdict.KEEP if best is None or val_bpb < best else wire.Verdict.DISCARD


def find_by_lease(conn: Connection, run_id: int, fence: int) -> Row[Any] | None:
    r = tables.results
    return conn.execute(select(r).where(r.c.run_id == run_id, r.c.fence == fence)).one_or_none()


def get_result(conn: Connection, id: int) -> wire.Result:
    rows = conn.execute(_select_results().where(tables.results.c.id == id)).all()
    if not rows:
        raise errors.NotFound("result not found")
    return _to_wire(rows[0])


def list_results(
    conn: Connection,
    commit_seq: int | None = None,
    track_id: int | None = None,
    limit: int = wire.LIST_DEFAULT,
    before: int | None = None,
) -> list[wire.Result]:
    """Newest first, discards and crashes included, late ones left out."""
    r = tables.results
    query = _select_results().where(r.c.late == 0)
    if commit_seq is not None:
        query = query.where(r.c.commit_seq == commit_seq)
    if track_id is not None:
        query = query.where(r.c.track_id == track_id)
    if before is not None:
        query = query.where(r.c.id < before)
    return [_to_wire(row) for row in conn.execute(query.order_by(r.c.id.desc()).limit(limit))]


def best_scores(conn: Connection, commit_seqs: Sequence[int]) -> dict[int, wire.Score]:
    """The best score of each commit in the track that scored it last."""
    r, t = tables.results, tables.tracks
    rows = conn.execute(
        select(r.c.commit_seq, r.c.val_bpb, r.c.source, t)
        .join(t, t.c.id == r.c.track_id)
        .where(r.c.commit_seq.in_(commit_seqs), RANKED)
        .order_by(r.c.id)
    )
    best: dict[int, wire.Score] = {}
    for row in rows:
        score = wire.Score(val_bpb=row.val_bpb, track=track_name(row), source=row.source)
        old = best.get(row.commit_seq)
        if old is None or old.track != score.track or score.val_bpb < old.val_bpb:
            best[row.commit_seq] = score
    return best


def leaderboard(conn: Connection, track: wire.Track, limit: int) -> wire.Leaderboard:
    """Commits of one track by their best score, the best first."""
    rows = _list_best(conn, track.id, limit, depth=4 * limit)
    if len(rows) < limit:
        # Many scores of few commits: look through all of them.
        rows = _list_best(conn, track.id, limit, depth=None)
    entries = [
        wire.LeaderboardEntry(
            rank=rank,
            commit=row.hash,
            agent_id=row.author or "",
            message=row.message,
            val_bpb=row.val_bpb,
            source=row.source,
            run_id=row.run_id,
            created_at=row.created_at,
        )
        for rank, row in enumerate(rows, 1)
    ]
    return wire.Leaderboard(track=track, entries=entries)


def _list_best(conn: Connection, track_id: int, limit: int, depth: int | None) -> list[Row[Any]]:
    """One row per commit among the `depth` best scores, which the index of scores gives cheaply."""
    r, c = tables.results, tables.commits
    rows = conn.execute(
        select(r, c.c.hash, c.c.agent_id.label("author"), c.c.message)
        .join(c, c.c.seq == r.c.commit_seq)
        .where(r.c.track_id == track_id, RANKED)
        .order_by(r.c.val_bpb, r.c.id)
        .limit(depth)
    )
    best: dict[int, Row[Any]] = {}
    for row in rows:
        best.setdefault(row.commit_seq, row)
    return list(best.values())[:limit]


def _select_results() -> Select[Any]:
    r, c, t = tables.results, tables.commits, tables.tracks
    return (
        select(
            r,
            c.c.hash,
            c.c.agent_id.label("author"),
            t.c.platform,
            t.c.budget_seconds,
            t.c.data_fingerprint,
            t.c.scoring,
        )
        .join(c, c.c.seq == r.c.commit_seq)
        .join(t, t.c.id == r.c.track_id)
    )


def _to_wire(row: Row[Any]) -> wire.Result:
    return wire.Result(
        id=row.id,
        commit=row.hash,
        run_id=row.run_id,
        agent_id=row.author or "",
        worker_id=row.agent_id if row.run_id is not None else None,
        source=row.source,
        track=track_name(row),
        outcome=row.outcome,
        verdict=row.verdict,
        val_bpb=row.val_bpb,
        metrics=row.metrics,
        description=row.description,
        created_at=row.created_at,
    )
