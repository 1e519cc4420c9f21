"""Visits: of how many children of a commit a track has a score, kept as scores and commits come.

A popular parent has thousands of children, too many to be counted in every claim. A score is one
of a code, so it counts for each commit of that code, under its first parent.
"""

from functools import cache
from typing import Any

from sqlalchemy import Integer, Select, bindparam, func, select, text

from server import tables
from server.db import Connection, insert_into
from server.prepared import Prepared

C, P, S, V = tables.commits, tables.commit_parents, tables.scores, tables.visits
_LINKED = select(C.c.seq).join(P, (P.c.child == C.c.seq) & (P.c.position == 0))


def count_score(conn: Connection, track_id: int, code: str, by: int) -> None:
    """A track has a first score of a code; with `by` -1 it has none any more."""
    _of_code(conn.dialect.name).run(conn, track=track_id, code=code, by=by)


def count_commit(conn: Connection, seq: int) -> None:
    """A commit came whose code may have scores already. Its parents are linked."""
    _of_commit(conn.dialect.name).run(conn, seq=seq)


def recount(conn: Connection) -> None:
    conn.execute(V.delete())
    conn.execute(
        text(
            "INSERT INTO visits (track_id, parent, n) SELECT s.track_id, p.parent, count(*) "
            "FROM scores AS s JOIN commits AS c ON c.code = s.code JOIN commit_parents AS p "
            "ON p.child = c.seq AND p.position = 0 GROUP BY s.track_id, p.parent"
        )
    )


@cache
def _of_code(dialect: str) -> Prepared:
    by, track = (bindparam(name, type_=Integer) for name in ("by", "track"))
    scored = _LINKED.with_only_columns(track, P.c.parent, func.count() * by)
    return _adding(dialect, scored.where(C.c.code == bindparam("code")).group_by(P.c.parent))


@cache
def _of_commit(dialect: str) -> Prepared:
    scored = _LINKED.join(S, S.c.code == C.c.code).where(C.c.seq == bindparam("seq"))
    return _adding(dialect, scored.with_only_columns(S.c.track_id, P.c.parent, 1))


def _adding(dialect: str, counts: Select[Any]) -> Prepared:
    adding = insert_into(dialect, V).from_select(["track_id", "parent", "n"], counts)
    return Prepared(
        adding.on_conflict_do_update(
            index_elements=["track_id", "parent"], set_={"n": V.c.n + adding.excluded.n}
        )
    )
