"""The full-text index: the only place that knows it is SQLite's FTS5.

A document's rowid is its commit's `seq`. How far commits and results have been read is a
watermark, moved in the transaction of what was read, so that a crash repeats work and loses none,
and of several hubs that read the same the first one counts.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, column, delete, func, insert, or_, select, table, text, update

from server import tables
from server.changes import Change
from server.db import Connection
from server.similar.terms import read_words

COMMITS, RESULTS = "similar.commits", "similar.results"
#: What results say of one commit: so many of them, the newest, and so many characters.
_DESCRIPTIONS_MAX = 20
_DESCRIPTION_CHARS = 8 * 1024
_RESULTS_AT_ONCE = 50
#: Hits that are ranked, the newest.
HITS_MAX = 5000

_FTS = table(
    "experiments_fts", column("rowid"), column("message"), column("diff"), column("results")
)
_VOCABULARY = table("experiments_fts_vocabulary", column("term"), column("doc"))
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
    t = tables.watermarks
    upto: int = conn.execute(select(t.c.upto).where(t.c.name == name)).scalar_one()
    return upto


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
    newest = conn.execute(select(func.max(tables.results.c.id))).scalar_one()
    return (newest or 0) > read_watermark(conn, RESULTS)


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


def count_documents(conn: Connection, terms: Collection[str]) -> dict[str, int]:
    """How many documents have each of the terms; terms that none has are left out."""
    v = _VOCABULARY
    rows = conn.execute(select(v.c.term, v.c.doc).where(v.c.term.in_(terms)))
    return {row.term: row.doc for row in rows}


def rank(conn: Connection, terms: Iterable[str], limit: int) -> list[int]:
    """Documents that have any of the terms, the best first by BM25."""
    # Terms hold no quotes; in them, nothing is an operator.
    match = " OR ".join(f'"{term}"' for term in terms)
    if not match:
        return []
    hits = (
        select(_FTS.c.rowid, _RANK)
        .where(_MATCH)
        .order_by(_FTS.c.rowid.desc())
        .limit(HITS_MAX)
        .subquery()
    )
    query = select(hits.c.rowid).order_by(text("rank"), hits.c.rowid.desc()).limit(limit)
    return list(conn.scalars(query, {"match": match}))


def read(conn: Connection, seqs: Collection[int]) -> dict[int, Document]:
    rows = conn.execute(select(_FTS).where(_FTS.c.rowid.in_(seqs)))
    return {
        row.rowid: Document(row.rowid, row.message.split(), row.diff.split(), row.results.split())
        for row in rows
    }
