"""Leaderboards: one per track, by commit and by agent."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from server import noise, tables, wire
from server.db import Connection
from server.results import tallies
from server.results.rows import source_of
from server.results.scores import find_record, sigma_of


def leaderboard(
    conn: Connection, track: wire.Track, limit: int, by: str = "commit"
) -> wire.Leaderboard:
    """The best of a track first; `by` is commit or agent."""
    by_agent = by == "agent"
    return wire.Leaderboard(
        track=track,
        entries=[] if by_agent else _rank_commits(conn, track, limit),
        agents=_rank_agents(conn, track.id, limit) if by_agent else [],
        record=find_standing(conn, track.id),
    )


def find_standing(conn: Connection, track_id: int) -> wire.Record | None:
    """The record of a track, with what all its runs tell by now."""
    record = find_record(conn, track_id)
    if record is None:
        return None
    s = tables.scores
    score = conn.execute(
        select(s).where(s.c.track_id == track_id, s.c.code == record.code)
    ).one_or_none()
    row = _with_commits(conn, tables.records.c.id == record.id)[0]
    sigma = sigma_of(conn, track_id)
    if score is None or not score.n:
        return _record(row, record.val_bpb, record.n, sigma)
    return _record(row, score.val_bpb, score.n, sigma)


def list_records(conn: Connection, track_id: int) -> list[wire.Record]:
    """As they were when they were made, the oldest first."""
    rows = _with_commits(conn, tables.records.c.track_id == track_id)
    sigma = sigma_of(conn, track_id) if rows else 0.0
    return [_record(row, row.val_bpb, row.n, sigma) for row in rows]


def _with_commits(conn: Connection, wanted: ColumnElement[bool]) -> Sequence[Row[Any]]:
    t, c = tables.records, tables.commits
    query = select(t, c.c.hash, c.c.agent_id, c.c.message).join(c, c.c.seq == t.c.commit_seq)
    return conn.execute(query.where(wanted).order_by(t.c.id)).all()


def _record(row: Row[Any], val_bpb: float, n: int, sigma: float) -> wire.Record:
    return wire.Record(
        commit=row.hash,
        agent_id=row.agent_id or "",
        message=row.message,
        val_bpb=val_bpb,
        n=n,
        standard_error=noise.standard_error(sigma, n),
        z=row.z,
        created_at=row.created_at,
    )


def _rank_commits(conn: Connection, track: wire.Track, limit: int) -> list[wire.LeaderboardEntry]:
    s, c, r = tables.scores, tables.commits, tables.results
    rows = conn.execute(
        select(s, c.c.hash, c.c.message)
        .add_columns(r.c.run_id, r.c.created_at.label("scored_at"), r.c.description)
        .outerjoin(c, c.c.seq == s.c.commit_seq)
        .join(r, r.c.id == s.c.result_id)
        .where(s.c.track_id == track.id, s.c.val_bpb.is_not(None))
        .order_by(s.c.val_bpb, s.c.result_id)
        .limit(limit)
    )
    return [_entry(rank, row, track.noise) for rank, row in enumerate(rows, 1)]


def _entry(rank: int, row: Row[Any], sigma: float | None) -> wire.LeaderboardEntry:
    is_linked = row.commit_seq is not None
    n = max(row.n, 1)
    return wire.LeaderboardEntry(
        rank=rank,
        commit=row.hash if is_linked else row.code,
        agent_id=row.author,
        message=row.message if is_linked else row.description,
        val_bpb=row.val_bpb,
        source=source_of(row.state),
        run_id=row.run_id,
        created_at=row.scored_at,
        state=row.state,
        n=n,
        standard_error=None if sigma is None else noise.standard_error(sigma, n),
        is_linked=is_linked,
        is_fixed_seed=row.is_fixed_seed,
    )


def _rank_agents(conn: Connection, track_id: int, limit: int) -> list[wire.AgentStanding]:
    """By what their best commit is worth; an agent without a score comes last."""
    best = _find_bests(conn, track_id)
    records = _count_records(conn, track_id)
    standings = [
        _standing(row, best.get(row.author), records.get(row.author, 0))
        for row in tallies.list_authors(conn, track_id)
    ]
    standings.sort(key=lambda one: (one.best is None, one.best or 0.0, one.agent_id))
    return [one.model_copy(update={"rank": rank}) for rank, one in enumerate(standings[:limit], 1)]


def _standing(row: Row[Any], best: Row[Any] | None, records: int) -> wire.AgentStanding:
    worked = row.experiments - row.crash
    return wire.AgentStanding(
        rank=0,
        agent_id=row.author,
        best=best.val_bpb if best else None,
        best_commit=(best.hash or best.code) if best else "",
        experiments=row.experiments,
        keeps=row.keep,
        keep_rate=row.keep / worked if worked else 0.0,
        crashes=row.crash,
        records=records,
    )


def _find_bests(conn: Connection, track_id: int) -> dict[str, Row[Any]]:
    """The best score of each author who has experiments: one look at an index for each."""
    s, c, t = tables.scores, tables.commits, tables.tallies
    of_author = (s.c.track_id == track_id, s.c.author == t.c.author, s.c.val_bpb.is_not(None))
    first = select(s.c.code).where(*of_author).order_by(s.c.val_bpb).limit(1).scalar_subquery()
    codes = select(first).where(t.c.track_id == track_id).group_by(t.c.author)
    rows: Sequence[Any] = conn.execute(
        select(s.c.author, s.c.val_bpb, s.c.code, c.c.hash)
        .outerjoin(c, c.c.seq == s.c.commit_seq)
        .where(s.c.track_id == track_id, s.c.code.in_(codes))
    ).all()
    return {row.author: row for row in rows}


def _count_records(conn: Connection, track_id: int) -> dict[str, int]:
    t, c = tables.records, tables.commits
    rows = conn.execute(
        select(c.c.agent_id, func.count())
        .join(c, c.c.seq == t.c.commit_seq)
        .where(t.c.track_id == track_id, t.c.z.is_not(None))
        .group_by(c.c.agent_id)
    )
    return {agent or "": count for agent, count in rows}
