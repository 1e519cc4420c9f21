"""Find: the experiments nearest to a commit, to a diff that is not committed yet, or to words.

Candidates come from the index by the most telling terms; how similar they are is counted on whole
documents. Rare terms, numbers and names in code count more than words that all commits share.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, Row, bindparam, select

from server import commits, errors, results, runs, tables, wire
from server.db import Connection
from server.prepared import Prepared, PreparedIn
from server.similar import fts
from server.similar.fts import Document
from server.similar.index import Index
from server.similar.terms import is_telling, read_change, read_words, split_diff

#: Terms of a question that are weighed, those that look telling first.
_TERMS_MAX = 256
#: Terms that candidates are looked up by, and how many documents those may name together.
_LOOKED_UP_MAX = 24
_CANDIDATES_PER_ANSWER, _CANDIDATES_MIN = 4, 40
_TELLING_WEIGHT, _REMOVED_WEIGHT = 1.5, 0.5
#: Less is chance.
_SIMILARITY_MIN = 0.1
_MATCHED_MAX = 5
_DESCRIPTION_CHARS = 200


@dataclass(frozen=True, slots=True)
class _Question:
    #: Each once.
    terms: Sequence[str]
    has_message: bool
    has_diff: bool
    tree: str | None
    #: Of the commit that is asked about, if it is one of ours.
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class _Hit:
    similarity: float
    seq: int
    matched: Sequence[str] = ()
    same_tree: bool = False


def find(conn: Connection, index: Index, asked: wire.SimilarQuery) -> list[wire.Similar]:
    """Commits with the same tree first, the one that is asked about leading; then the nearest.

    Raises InvalidRequest, and for a commit what `commits.resolve` raises.
    """
    question = _read_question(conn, index, asked)
    same = _find_same_tree(conn, question, asked.limit)
    near = _find_near(conn, index.counts, question, asked.limit - len(same))
    return _to_wire(conn, same + near)


def _read_question(conn: Connection, index: Index, asked: wire.SimilarQuery) -> _Question:
    if (asked.commit is None) == (asked.text is None):
        raise errors.InvalidRequest("give either a commit or a text")
    if asked.commit is not None:
        row = commits.resolve(conn, asked.commit)
        terms = index.document(conn, row.seq).own
        return _Question(terms, has_message=True, has_diff=True, tree=row.tree, seq=row.seq)
    message, diff = split_diff(asked.text or "")
    words = read_words(message)
    terms = list(dict.fromkeys([*words, *read_change(diff)]))
    if not terms and asked.tree is None:
        raise errors.InvalidRequest(
            "there is nothing to compare in the text", "send words, or a diff with changed lines"
        )
    return _Question(terms, has_message=bool(words), has_diff=bool(diff), tree=asked.tree)


def _find_same_tree(conn: Connection, question: _Question, limit: int) -> list[_Hit]:
    """The commit that is asked about, then the oldest."""
    seqs = [row[0] for row in _SAME_TREE.all(conn, tree=question.tree, limit=limit)]
    if question.seq is not None:
        seqs = list(dict.fromkeys([question.seq, *seqs]))[:limit]
    return [_Hit(1.0, seq, same_tree=True) for seq in seqs]


_C = tables.commits
_SAME_TREE = Prepared(
    select(_C.c.seq)
    .where(_C.c.tree == bindparam("tree"))
    .order_by(_C.c.seq)
    .limit(bindparam("limit", type_=Integer))
)
_TREES = PreparedIn(lambda seqs: select(_C.c.seq, _C.c.tree).where(_C.c.seq.in_(seqs)))
_ROWS = PreparedIn(lambda seqs: select(_C).where(_C.c.seq.in_(seqs)))


def _find_near(conn: Connection, known: fts.Counts, question: _Question, limit: int) -> list[_Hit]:
    if limit <= 0:
        return []
    terms = sorted(question.terms, key=is_telling, reverse=True)[:_TERMS_MAX]
    upto = fts.read_watermark(conn, fts.COMMITS)
    counts = known.of(conn, terms, upto)
    weights = _weigh(terms, counts, upto)
    wanted = max(_CANDIDATES_MIN, _CANDIDATES_PER_ANSWER * limit)
    candidates = fts.rank(conn, _choose(weights, counts), wanted)
    differing = _without_tree(conn, candidates, question.tree)
    documents = fts.read(conn, differing).values()
    hits = [_compare(document, question, weights) for document in documents]
    hits.sort(key=lambda hit: (-hit.similarity, -hit.seq))
    return [hit for hit in hits if hit.similarity >= _SIMILARITY_MIN][:limit]


def _weigh(terms: Sequence[str], counts: dict[str, int], documents: int) -> dict[str, float]:
    """Inverse document frequency, more for what looks telling, less for what is taken away."""

    def weight(term: str) -> float:
        factor = _TELLING_WEIGHT if is_telling(term) else 1.0
        if term.startswith("-"):
            factor *= _REMOVED_WEIGHT
        return factor * math.log1p(documents / (counts.get(term, 0) + 1))

    return {term: weight(term) for term in terms}


def _choose(weights: dict[str, float], counts: dict[str, int]) -> list[str]:
    """The most telling terms that occur at all, as long as their documents can all be ranked."""
    chosen: list[str] = []
    room = fts.HITS_MAX
    for term in sorted(counts, key=lambda term: -weights[term]):
        # The first one may have more; then its newest are ranked.
        if counts[term] <= room or not chosen:
            chosen.append(term)
            room -= counts[term]
    return chosen[:_LOOKED_UP_MAX]


def _without_tree(conn: Connection, seqs: Collection[int], tree: str | None) -> list[int]:
    """Those that exist and do not have this tree."""
    return [seq for seq, its_tree in _TREES.all(conn, seqs) if its_tree != tree]


def _compare(document: Document, question: _Question, weights: dict[str, float]) -> _Hit:
    """Weight of the shared terms in that of all terms of both; of the question's own, for words.

    Terms that only the document has count as much as the question's do on average: what each of
    them weighs would take a look at the index for every one. A diff without a message is not
    held against documents that have one.
    """
    every = {*document.message, *document.diff, *document.results}
    shared = [term for term in weights if term in every]
    total = sum(weights.values())
    if question.has_diff:
        own = document.own if question.has_message else document.diff
        total += len(set(own).difference(question.terms)) * total / len(weights)
    similarity = sum(weights[term] for term in shared) / total if total else 0.0
    shared.sort(key=lambda term: -weights[term])
    return _Hit(round(similarity, 3), document.seq, shared[:_MATCHED_MAX])


# To the wire -----------------------------------------------------------------------------------


def _to_wire(conn: Connection, hits: Sequence[_Hit]) -> list[wire.Similar]:
    seqs = [hit.seq for hit in hits]
    rows = {row.seq: row for row in _ROWS.rows(conn, seqs)}
    scores = results.best_scores(conn, seqs)
    return [_answer(conn, hit, rows[hit.seq], scores.get(hit.seq)) for hit in hits]


def _answer(conn: Connection, hit: _Hit, row: Row[Any], best: wire.Score | None) -> wire.Similar:
    last = next(iter(results.list_results(conn, hit.seq, limit=1)), None)
    run = None if last else next(iter(runs.list_runs(conn, hit.seq, limit=1)), None)
    return wire.Similar(
        commit=wire.CommitLine(
            hash=row.hash,
            agent_id=row.agent_id or "",
            message=row.message,
            created_at=row.created_at,
        ),
        similarity=hit.similarity,
        same_tree=hit.same_tree,
        best=best,
        outcome=wire.Outcome.OK if best else last.outcome if last else None,
        description=last.description[:_DESCRIPTION_CHARS] if last else "",
        state=run.state if run and not best else None,
        matched=list(hit.matched),
    )
