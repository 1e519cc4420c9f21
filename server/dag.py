"""The DAG as compact columns for drawing, whole or only what is new since the last look.

One row per commit, in the order of their seqs: parents come before their children, and a client
that keeps its columns only ever appends. Scores change, so they come apart: one row per commit
and track, again whenever the commit got a result.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Integer, Select, bindparam, case, func, or_, select, union

from server import results, tables, wire
from server.db import Connection
from server.prepared import Prepared

#: Commits in one answer: some 0.1 s of work, so that nobody waits for somebody's whole DAG.
COMMITS_MAX = 5_000
#: Results since the last look that one answer tells of, each with all commits of its code.
RESULTS_MAX = 1_000
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
        return orjson.dumps(self)


def read(conn: Connection, since: int, result: int, limit: int = COMMITS_MAX) -> Dag:
    """Commits after the seq `since`; their scores, and those of any commit with a newer result
    than the id `result`; of many such results the oldest.
    """
    columns, agents, has_more = _read_commits(conn, since, limit)
    last = columns.seq[-1] if columns.seq else since
    newest = _NEWEST_RESULT.scalar(conn)
    # Nobody who has no commits yet has their scores.
    upto = min(newest, result + min(limit, RESULTS_MAX)) if since else newest
    return Dag(
        seq=last,
        result=upto,
        has_more=has_more or upto < newest,
        event=_NEWEST_EVENT.scalar(conn),
        agents=agents,
        tracks=[_name_track(track) for track in results.list_tracks(conn)],
        commits=columns,
        scores=_read_scores(conn, since, last, (result, upto)),
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

_C, _P, _R, _S = tables.commits, tables.commit_parents, tables.results, tables.scores
_SINCE, _LAST = (bindparam(name, type_=Integer) for name in ("since", "last"))
_NEWEST_RESULT = Prepared(select(func.coalesce(func.max(_R.c.id), 0)))
_NEWEST_EVENT = Prepared(select(func.coalesce(func.max(tables.events.c.id), 0)))
_COMMITS = Prepared(
    select(
        *(_C.c.seq, _C.c.hash, _C.c.generation, _C.c.agent_id, _C.c.created_at, _C.c.child_count)
    )
    .where(_C.c.seq > _SINCE)
    .order_by(_C.c.seq)
    .limit(bindparam("limit", type_=Integer))
)
_PARENTS = Prepared(
    select(_P.c.child, _P.c.parent)
    .where(_P.c.child > _SINCE, _P.c.child <= _LAST)
    .order_by(_P.c.child, _P.c.position)
)


def _read_commits(
    conn: Connection, since: int, limit: int
) -> tuple[CommitColumns, list[str], bool]:
    rows = _COMMITS.all(conn, since=since, limit=limit + 1)
    page = rows[:limit]
    agents: dict[str, int] = {}
    parents = _read_parents(conn, since, page[-1][0]) if page else {}
    columns = CommitColumns()
    for seq, hash, generation, agent, created_at, children in page:
        columns.seq.append(seq)
        columns.hash.append(hash[:HASH_DIGITS])
        columns.parents.append(parents.get(seq, []))
        columns.generation.append(generation)
        columns.agent.append(agents.setdefault(agent, len(agents)) if agent else -1)
        columns.time.append(int(created_at.timestamp()))
        columns.children.append(children)
    return columns, list(agents), len(rows) > limit


def _read_parents(conn: Connection, since: int, last: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for child, parent in _PARENTS.all(conn, since=since, last=last):
        found.setdefault(child, []).append(parent)
    return found


def _read_scores(conn: Connection, since: int, last: int, told: tuple[int, int]) -> ScoreColumns:
    """Of the commits that are new; of older ones that have new results, or are records by now."""
    rows = _OF_NEW.all(conn, since=since, last=last)
    if since:
        rows = [*_OF_OLD.all(conn, since=since, result=told[0], upto=told[1]), *rows]
    columns = ScoreColumns()
    for seq, track, val_bpb, state, status in rows:
        columns.commit.append(seq)
        columns.track.append(track)
        columns.val_bpb.append(None if val_bpb is None else round(val_bpb, 6))
        columns.state.append(results.source_of(state))
        columns.outcome.append(_BEST[status])
    return columns


def _select_scores() -> Select[Any]:
    place = case({status: at for at, status in enumerate(_BEST)}, value=_R.c.status)
    of_score = (_R.c.code == _S.c.code, _R.c.track_id == _S.c.track_id, results.COUNTED)
    status = select(func.min(place)).where(*of_score).scalar_subquery()
    query = select(_C.c.seq, _S.c.track_id, _S.c.val_bpb, _S.c.state, status.label("status"))
    return query.join(_S, _S.c.code == _C.c.code).order_by(_C.c.seq, _S.c.track_id)


def _select_old_scores() -> Select[Any]:
    result, upto = (bindparam(name, type_=Integer) for name in ("result", "upto"))
    touched = select(_R.c.code).where(_R.c.id > result, _R.c.id <= upto)
    confirmed = select(tables.records.c.code).where(tables.records.c.z.is_not(None))
    # The other way round all commits up to `since` would be looked through.
    codes = union(touched, confirmed).subquery("codes")
    return _select_scores().join(codes, codes.c.code == _C.c.code).where(_C.c.seq <= _SINCE)


_OF_NEW = Prepared(_select_scores().where(_C.c.seq > _SINCE, _C.c.seq <= _LAST))
_OF_OLD = Prepared(_select_old_scores())


def _list_running(conn: Connection) -> list[int]:
    r = tables.runs
    query = select(r.c.commit_seq).where(r.c.state == wire.RunState.RUNNING).distinct()
    return list(conn.scalars(query.order_by(r.c.commit_seq)))


def _name_track(track: wire.Track) -> dict[str, Any]:
    return {"id": track.id, "name": track.name, "label": track.label, "results": track.results}
