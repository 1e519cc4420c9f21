"""The full-text index: the only place that knows it is SQLite's FTS5.

A document's rowid is its commit's `seq`. How far commits and results have been read is a
watermark, moved in the transaction of what was read, so that a crash repeats work and loses none,
and of several hubs that read the same the first one counts.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Integer,
    bindparam,
    column,
    delete,
    func,
    insert,
    or_,
    select,
    table,
    text,
    update,
)

from server import tables
from server.changes import Change
from server.db import Connection
from server.prepared import Prepared, PreparedIn
from server.similar.terms import read_words

COMMITS, RESULTS = "similar.commits", "similar.results"
#: What results say of one commit: so many of them, the newest, and so many characters.
_DESCRIPTIONS_MAX = 20
_DESCRIPTION_CHARS = 8 * 1024
_RESULTS_AT_ONCE = 50
#: Hits that are ranked, the newest.
HITS_MAX = 5000
#: Documents of one term that are counted; what more there are is estimated.
COUNTED_MAX = 1000
#: Estimates are kept for so many terms, and until there are so many more documents, as a part.
_KNOWN_MAX, _GROWTH = 10_000, 0.01

_FTS = table(
    "experiments_fts", column("rowid"), column("message"), column("diff"), column("results")
)
_MATCH = text("experiments_fts MATCH :match")
_RANK = text("bm25(experiments_fts) AS rank")


@dataclass(frozen=True, slots=True)
class Document:
    """A commit by its terms."""

    seq: int
    message: Sequence[str]
    diff: Sequence[str]
    results: Sequence[str] = ()
    #: What it touches; not part of the index, but read from the same diff.
    changes: Sequence[Change] = ()

    @property
    def own(self) -> list[str]:
        """What the commit says of itself."""
        return list(dict.fromkeys([*self.message, *self.diff]))


# In --------------------------------------------------------------------------------------------


def read_watermark(conn: Connection, name: str) -> int:
    upto: int = _WATERMARK.scalar(conn, name=name)
    return upto


_WATERMARK = Prepared(
    select(tables.watermarks.c.upto).where(tables.watermarks.c.name == bindparam("name"))
)


def append(conn: Connection, documents: Sequence[Document]) -> None:
    """Add documents of commits, in their order, but those that another hub added meanwhile."""
    upto = read_watermark(conn, COMMITS)
    fresh = [document for document in documents if document.seq > upto]
    if not fresh:
        return
    told = _read_descriptions(conn, [document.seq for document in fresh])
    rows = [
        {
            "rowid": document.seq,
            "message": " ".join(document.message),
            "diff": " ".join(document.diff),
            "results": told.get(document.seq, ""),
        }
        for document in fresh
    ]
    # There is one already where an operator had commits read again.
    conn.execute(insert(_FTS).prefix_with("OR REPLACE"), rows)
    _move(conn, COMMITS, fresh[-1].seq)


def append_results(conn: Connection) -> int:
    """Add what new results say to the documents of their commits; return how many were read."""
    r = tables.results
    upto = read_watermark(conn, RESULTS)
    rows = conn.execute(
        select(r.c.id, r.c.commit_seq, r.c.description)
        .where(r.c.id > upto)
        .order_by(r.c.id)
        .limit(_RESULTS_AT_ONCE)
    ).all()
    if not rows:
        return 0
    # Commits that are still to be read bring along what there is by then.
    known = read_watermark(conn, COMMITS)
    seqs = {row.commit_seq for row in rows if row.description and row.commit_seq is not None}
    told = _read_descriptions(conn, [seq for seq in seqs if seq <= known])
    if told:
        conn.execute(
            update(_FTS).where(_FTS.c.rowid == bindparam("seq")).values(results=bindparam("told")),
            [{"seq": seq, "told": words} for seq, words in told.items()],
        )
    _move(conn, RESULTS, rows[-1].id)
    return len(rows)


def has_new_results(conn: Connection) -> bool:
    newest = _NEWEST_RESULT.scalar(conn)
    return (newest or 0) > read_watermark(conn, RESULTS)


_NEWEST_RESULT = Prepared(select(func.max(tables.results.c.id)))


def forget(conn: Connection, seqs: Collection[int]) -> None:
    """Have these commits, and what came after them, read again."""
    if seqs:
        t, known = tables.changes, select(tables.commits.c.seq)
        stale = or_(t.c.commit_seq >= min(seqs), t.c.commit_seq.not_in(known))
        conn.execute(delete(t).where(stale))
        upto = read_watermark(conn, COMMITS)
        _move(conn, COMMITS, min(upto, min(seqs) - 1))


def _move(conn: Connection, name: str, upto: int) -> None:
    t = tables.watermarks
    conn.execute(update(t).where(t.c.name == name).values(upto=upto))


def _read_descriptions(conn: Connection, seqs: Sequence[int]) -> dict[int, str]:
    r = tables.results
    at = func.row_number().over(partition_by=r.c.commit_seq, order_by=r.c.id.desc())
    newest = (
        select(r.c.commit_seq, r.c.description, at.label("at"))
        .where(r.c.commit_seq.in_(seqs), r.c.description != "", r.c.late == 0)
        .subquery()
    )
    told: dict[int, list[str]] = {}
    for row in conn.execute(select(newest).where(newest.c["at"] <= _DESCRIPTIONS_MAX)):
        told.setdefault(row.commit_seq, []).append(row.description)
    return {
        seq: " ".join(read_words("\n".join(texts)[:_DESCRIPTION_CHARS]))
        for seq, texts in told.items()
    }


# Out -------------------------------------------------------------------------------------------


class Counts:
    """How many documents have a term; of common ones it is estimated, and remembered for a while.

    A term that all of a million documents have takes some 10 ms to be counted, and any question
    may have a hundred of those.
    """

    def __init__(self) -> None:
        #: Each with the watermark at which it was estimated.
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, conn: Connection, terms: Iterable[str], upto: int) -> dict[str, int]:
        """Terms that none of the documents up to the watermark has are left out."""
        counts = {term: self._count(conn, term, upto) for term in terms}
        return {term: count for term, count in counts.items() if count}

    def _count(self, conn: Connection, term: str, upto: int) -> int:
        known, seen = self._known.get(term, (0, 0))
        if 0 <= upto - seen <= seen * _GROWTH:
            return known
        counted, oldest = _COUNT.all(conn, match=_quote([term]), limit=COUNTED_MAX)[0]
        if counted < COUNTED_MAX:
            return int(counted)
        # As often among the older ones as among the newest.
        count: int = round(counted * upto / max(upto - oldest + 1, counted))
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[term] = count, upto
        return count


def rank(conn: Connection, terms: Sequence[str], limit: int) -> list[int]:
    """Documents that have any of the terms, the best first by BM25."""
    if not terms:
        return []
    return [row[0] for row in _RANKED.all(conn, match=_quote(terms), limit=limit)]


def read(conn: Connection, seqs: Collection[int]) -> dict[int, Document]:
    return {
        seq: Document(seq, message.split(), diff.split(), results.split())
        for seq, message, diff, results in _DOCUMENTS.all(conn, seqs)
    }


def _quote(terms: Iterable[str]) -> str:
    # Terms hold no quotes; in them, nothing is an operator.
    return " OR ".join(f'"{term}"' for term in terms)


_LIMIT = bindparam("limit", type_=Integer)
_NEWEST = select(_FTS.c.rowid).where(_MATCH).order_by(_FTS.c.rowid.desc()).limit(_LIMIT).subquery()
_COUNT = Prepared(select(func.count(), func.min(_NEWEST.c.rowid)))
_HITS = (
    select(_FTS.c.rowid, _RANK)
    .where(_MATCH)
    .order_by(_FTS.c.rowid.desc())
    .limit(HITS_MAX)
    .subquery()
)
_RANKED = Prepared(select(_HITS.c.rowid).order_by(text("rank"), _HITS.c.rowid.desc()).limit(_LIMIT))
_DOCUMENTS = PreparedIn(lambda seqs: select(_FTS).where(_FTS.c.rowid.in_(seqs)))
