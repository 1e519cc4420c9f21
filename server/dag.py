"""The DAG as compact columns for drawing, whole or only what is new since the last look.

One row per commit, in the order of their seqs: parents come before their children, and a client
that keeps its columns only ever appends. Scores change, so they come apart: one row per commit
and track, again whenever the commit got a result.
"""

import json
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, case, func, or_, select

from server import results, tables, wire
from server.db import Connection

#: Commits in one answer: some 0.1 s of work, so that nobody waits for somebody's whole DAG.
COMMITS_MAX = 5_000
#: Digits of the hashes: unique in practice, and whole in meaning, as any unique prefix is.
HASH_DIGITS = 12
#: Commits found by a search.
FOUND_MAX = 1000

_BEST = (wire.Status.KEEP, wire.Status.DISCARD, wire.Status.CRASH)


@dataclass(slots=True)
class CommitColumns:
    seq: list[int] = field(default_factory=list)
    hash: list[str] = field(default_factory=list)
    #: Seqs of all parents, the first parent first.
    parents: list[list[int]] = field(default_factory=list)
    generation: list[int] = field(default_factory=list)
    #: Index into `agents` of this answer; -1 when unknown.
    agent: list[int] = field(default_factory=list)
    #: When it was pushed, seconds since 1970.
    time: list[int] = field(default_factory=list)
    #: How many children it has; 0 for a leaf.
    children: list[int] = field(default_factory=list)


@dataclass(slots=True)
class ScoreColumns:
    #: Seq of the commit and id of the track; the rest is the best it did there.
    commit: list[int] = field(default_factory=list)
    track: list[int] = field(default_factory=list)
    #: None when every run of it failed.
    val_bpb: list[float | None] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    outcome: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Dag:
    #: To be given as `since` and `result` the next time.
    seq: int
    result: int
    #: Whether there are more commits by now: ask again at once.
    has_more: bool
    #: Id of the newest event that this answer knows of.
    event: int
    agents: list[str]
    tracks: list[dict[str, Any]]
    commits: CommitColumns
    scores: ScoreColumns
    #: Seqs of all commits that are being trained.
    running: list[int]

    def to_json(self) -> bytes:
        return json.dumps(self, default=_fields, separators=(",", ":")).encode()


def read(conn: Connection, since: int, result: int, limit: int = COMMITS_MAX) -> Dag:
    """Commits after the seq `since`; their scores, and those of any commit with a newer result
    than the id `result`.
    """
    columns, agents, has_more = _read_commits(conn, since, limit)
    last = columns.seq[-1] if columns.seq else since
    event, newest = tables.events.c.id, tables.results.c.id
    return Dag(
        seq=last,
        result=conn.execute(select(func.coalesce(func.max(newest), 0))).scalar_one(),
        has_more=has_more,
        event=conn.execute(select(func.coalesce(func.max(event), 0))).scalar_one(),
        agents=agents,
        tracks=[_name_track(track) for track in results.list_tracks(conn)],
        commits=columns,
        scores=_read_scores(conn, since, last, result),
        running=_list_running(conn),
    )


def find(conn: Connection, words: str) -> list[int]:
    """Seqs of the commits whose subject, body or author holds the words, or whose hash starts so.

    The newest first, at most FOUND_MAX.
    """
    c = tables.commits
    found = [
        c.c[name].icontains(words, autoescape=True) for name in ("message", "body", "agent_id")
    ]
    if wire.HASH_PREFIX.fullmatch(words.lower()):
        found.append(c.c.hash.startswith(words.lower(), autoescape=True))
    query = select(c.c.seq).where(or_(*found)).order_by(c.c.seq.desc()).limit(FOUND_MAX)
    return list(conn.scalars(query))


# Columns ---------------------------------------------------------------------------------------


def _read_commits(
    conn: Connection, since: int, limit: int
) -> tuple[CommitColumns, list[str], bool]:
    c = tables.commits
    rows = conn.execute(
        select(c.c.seq, c.c.hash, c.c.generation, c.c.agent_id, c.c.created_at, c.c.child_count)
        .where(c.c.seq > since)
        .order_by(c.c.seq)
        .limit(limit + 1)
    ).all()
    page = rows[:limit]
    agents: dict[str, int] = {}
    parents = _read_parents(conn, since, page[-1].seq) if page else {}
    columns = CommitColumns()
    for seq, hash, generation, agent, created_at, children in page:
        columns.seq.append(seq)
        columns.hash.append(hash[:HASH_DIGITS])
        columns.parents.append(parents.get(seq, []))
        columns.generation.append(generation)
        columns.agent.append(agents.setdefault(agent, len(agents)) if agent else -1)
        columns.time.append(_epoch(created_at))
        columns.children.append(children)
    return columns, list(agents), len(rows) > limit


def _read_parents(conn: Connection, since: int, last: int) -> dict[int, list[int]]:
    p = tables.commit_parents
    query = select(p.c.child, p.c.parent).where(p.c.child > since, p.c.child <= last)
    found: dict[int, list[int]] = {}
    for child, parent in conn.execute(query.order_by(p.c.child, p.c.position)):
        found.setdefault(child, []).append(parent)
    return found


def _read_scores(conn: Connection, since: int, last: int, result: int) -> ScoreColumns:
    columns = ScoreColumns()
    for row in conn.execute(_select_scores(since, last, result)):
        columns.commit.append(row.seq)
        columns.track.append(row.track_id)
        columns.val_bpb.append(None if row.val_bpb is None else round(row.val_bpb, 6))
        columns.state.append(results.source_of(row.state))
        columns.outcome.append(_BEST[row.status])
    return columns


def _select_scores(since: int, last: int, result: int) -> Select[Any]:
    """Scores of the commits that are new, have new results, or are records by now."""
    c, r, s = tables.commits, tables.results, tables.scores
    touched = select(r.c.code).where(r.c.id > result)
    confirmed = select(tables.records.c.code).where(tables.records.c.z.is_not(None))
    wanted = and_(c.c.seq > since, c.c.seq <= last)
    if since:
        old = and_(c.c.seq <= since, or_(c.c.code.in_(touched), c.c.code.in_(confirmed)))
        wanted = or_(wanted, old)
    place = case({status: at for at, status in enumerate(_BEST)}, value=r.c.status)
    of_score = (r.c.code == s.c.code, r.c.track_id == s.c.track_id, results.COUNTED)
    status = select(func.min(place)).where(*of_score).scalar_subquery()
    return (
        select(c.c.seq, s.c.track_id, s.c.val_bpb, s.c.state, status.label("status"))
        .join(s, s.c.code == c.c.code)
        .where(wanted)
        .order_by(c.c.seq, s.c.track_id)
    )


def _list_running(conn: Connection) -> list[int]:
    r = tables.runs
    query = select(r.c.commit_seq).where(r.c.state == wire.RunState.RUNNING).distinct()
    return list(conn.scalars(query.order_by(r.c.commit_seq)))


def _name_track(track: wire.Track) -> dict[str, Any]:
    return {"id": track.id, "name": track.name, "label": track.label, "results": track.results}


def _fields(columns: Any) -> dict[str, Any]:
    """Not `asdict`, which copies every list."""
    return {each.name: getattr(columns, each.name) for each in fields(columns)}


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())
