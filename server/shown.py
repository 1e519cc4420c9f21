"""Commits as the wire shows them: one statement brings all of it, whichever commits are chosen."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, and_, bindparam, select

from server import results, tables
from server.db import Connection
from server.prepared import Prepared, Row

#: The fields of a `wire.Commit`, in its order.
Fields = dict[str, Any]

#: Commits that are read at once where all are asked for.
_PAGE = 1000
#: Above every seq.
END = 2**62


class CommitRow(NamedTuple):
    """The row of a commit."""

    seq: int
    hash: str
    tree: str
    code: str
    agent_id: str | None
    message: str
    body: str
    authored_at: datetime
    created_at: datetime
    generation: int
    child_count: int


class Shown:
    """The commits whose seqs `chosen` selects, newest first."""

    def __init__(self, chosen: Select[Any]) -> None:
        self._statement = Prepared(_show(chosen))

    def read(self, conn: Connection, **values: Any) -> list[Fields]:
        return _gather(self._statement.all(conn, **values))

    def pages(self, conn: Connection, page: int, **values: Any) -> Iterator[list[Fields]]:
        """All of them, where `chosen` stops after `page` commits; only the last page is shorter.

        It goes on from `before`, the last commit's seq, or from `start`, its first parent's.
        """
        values = {"before": END, "page": page, **values}
        while True:
            rows = self._statement.all(conn, **values)
            shown = _gather(rows)
            yield shown
            if len(shown) < page:
                return
            values["before"], values["start"] = _last(rows)

    def read_all(self, conn: Connection, **values: Any) -> list[Fields]:
        return [fields for page in self.pages(conn, _PAGE, **values) for fields in page]


def upto(column: Any, chosen: Select[Any]) -> Select[Any]:
    """Those of `chosen` that its next page has, by its column of seqs."""
    page: Select[Any] = chosen.where(column < bindparam("before", type_=Integer))
    return page.order_by(column.desc()).limit(bindparam("page", type_=Integer))


def _show(chosen: Select[Any]) -> Select[Any]:
    """A row for each commit, parent of it, and track that scored it: few have more than one."""
    wanted = chosen.subquery("wanted")
    (seq,) = wanted.c
    c, link, parent = tables.commits, tables.commit_parents, tables.commits.alias("parent")
    score, track = tables.scores, tables.tracks
    return (
        select(
            *(c.c.seq, link.c.position, link.c.parent, parent.c.hash),
            *(c.c.hash, c.c.agent_id, c.c.message, c.c.created_at),
            *(c.c.generation, c.c.child_count, c.c.tree),
            *results.SCORE_COLUMNS,
        )
        .select_from(wanted)
        .join(c, c.c.seq == seq)
        .outerjoin(link, link.c.child == c.c.seq)
        .outerjoin(parent, parent.c.seq == link.c.parent)
        .outerjoin(score, and_(score.c.code == c.c.code, score.c.val_bpb.is_not(None)))
        .outerjoin(track, track.c.id == score.c.track_id)
        .order_by(c.c.seq.desc(), link.c.position)
    )


def _gather(rows: Sequence[Row]) -> list[Fields]:
    shown: list[Fields] = []
    last: int | None = None
    for row in rows:
        seq, position, _, parent, hash, agent, message, at, generation, children, tree = row[:11]
        if seq != last:
            last, last_position, score = seq, position, row[11:]
            commit = {
                "hash": hash,
                "parent_hash": parent or "",
                "agent_id": agent or "",
                "message": message,
                "created_at": at,
                "parents": [parent] if parent else [],
                "generation": generation,
                "child_count": children,
                "tree": tree,
                "best": results.score_fields(score),
            }
            shown.append(commit)
            continue
        if position != last_position:
            last_position = position
            commit["parents"].append(parent)
        if results.is_better_known(row[11:], score):
            score = row[11:]
            commit["best"] = results.score_fields(score)
    return shown


def _last(rows: Sequence[Row]) -> tuple[int, int | None]:
    """Seq of the last commit and of its first parent."""
    seq = rows[-1][0]
    return next((row[0], row[2]) for row in rows if row[0] == seq)
