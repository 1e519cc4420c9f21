"""Commits: pushes into the index, and the DAG read back from it.

A commit exists when its row exists; by then all its objects are durable in the repo and all its
parents have rows. Every commit of a push is indexed, with every parent.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Integer, Row, Select, bindparam, insert, literal, select, update

from server import agents, errors, events, results, tables, wire
from server.db import Connection, Database
from server.prepared import Prepared
from server.repo import BareRepo, StagedCommit
from server.shown import END, CommitRow, Fields, Shown, upto

T = TypeVar("T")

_C, _P = tables.commits.c, tables.commit_parents.c
_RESOLVE = Prepared(
    select(tables.commits)
    .where(_C.hash >= bindparam("start"), _C.hash < bindparam("end"))
    .order_by(_C.hash)
    .limit(2)
)


def _first_parents() -> Select[Any]:
    chain = select(bindparam("start", type_=Integer).label("seq"), literal(1).label("number")).cte(
        "chain", recursive=True
    )
    below = select(_P.parent, chain.c.number + 1).join(chain, _P.child == chain.c.seq)
    page = bindparam("page", type_=Integer)
    chain = chain.union_all(below.where(_P.position == 0, chain.c.number < page))
    return select(chain.c.seq)


_NUMBERS = select(_C.seq)
_OFFSET = bindparam("offset", type_=Integer)
_ONE = Shown(_NUMBERS.where(_C.seq == bindparam("seq")))
_LOG = Shown(upto(_C.seq, _NUMBERS).offset(_OFFSET))
_BY_AGENT = Shown(upto(_C.seq, _NUMBERS.where(_C.agent_id == bindparam("agent"))).offset(_OFFSET))
#: The children of `parent`.
CHILDREN = Shown(
    upto(_P.child, select(_P.child).where(_P.parent == bindparam("parent")).distinct())
)
#: `start` and its first parents.
LINEAGE = Shown(_first_parents())
LEAVES = Shown(upto(_C.seq, _NUMBERS.where(_C.child_count == 0)))

_LEAF_HASHES = Prepared(
    select(_C.hash)
    .where(_C.child_count == 0)
    .order_by(_C.seq.desc())
    .limit(bindparam("limit", type_=Integer))
)

#: How many values one IN (…) may hold; SQLite allows 32,766 variables in a statement.
IN_MAX = 10_000


def push(
    db: Database,
    repo: BareRepo,
    agent: agents.Agent,
    bundle: Path | bytes,
    per_hour: int,
    now: Callable[[], datetime],
) -> wire.Pushed:
    """Validate a bundle, store its objects, index all its new commits; all or nothing.

    Objects become durable first and visible only with the transaction at the end. A crash
    between the two leaves unreferenced objects, which the same push adopts when it comes again.
    """

    def is_known(hashes: Collection[str]) -> set[str]:
        with db.read() as conn:
            return set(_find_rows(conn, hashes))

    with repo.stage(bundle, is_known) as staged:
        repo.promote(staged)
        with db.write() as conn:
            moment = now()
            agents.spend_quota(conn, agent.id, "push", per_hour, moment)
            agents.touch(conn, agent, moment)
            added = index(conn, staged.commits, agent.id, moment)
            if added:
                payload = {"heads": list(dict.fromkeys(staged.heads)), "new": added}
                events.append(conn, "commit", agent.id, staged.heads[0], payload, moment)
            evaluated = find_evaluated(conn, staged.heads)
        return wire.Pushed(hashes=staged.heads, new_commits=added, evaluated=evaluated)


def find_evaluated(conn: Connection, hashes: Sequence[str]) -> list[wire.Evaluated]:
    """Those commits that train like an earlier one which was trained, or is about to be."""
    t = tables.commits
    twin = results.twin_of(t.c.code).label("twin")
    rows = conn.execute(
        select(t.c.seq, t.c.hash, twin).where(t.c.hash.in_(hashes)).order_by(t.c.seq)
    ).all()
    return [
        wire.Evaluated(
            hash=row.hash,
            same_as=row.twin,
            score=results.best_scores(conn, [row.seq]).get(row.seq),
        )
        for row in rows
        if row.twin is not None and row.twin != row.hash
    ]


def find_known(conn: Connection, hashes: Sequence[str]) -> list[str]:
    """Those of the hashes that are commits here, in their order."""
    known = _find_rows(conn, hashes)
    return [hash for hash in hashes if hash in known]


def resolve(conn: Connection, prefix: str) -> CommitRow:
    """The one commit whose hash starts with `prefix`.

    Raises InvalidHash, NotFound, or AmbiguousHash when several do.
    """
    if not wire.HASH_PREFIX.fullmatch(prefix):
        raise errors.InvalidHash("invalid hash")
    # "g" sorts behind every hexadecimal digit, so this range is the prefix's, by the index.
    found = [CommitRow(*row) for row in _RESOLVE.all(conn, start=prefix, end=prefix + "g")]
    if not found:
        raise errors.NotFound("commit not found", "`ah log` lists commits; was it pushed?")
    if len(found) > 1:
        raise errors.AmbiguousHash(
            f"several commits start with {prefix}", subjects=[row.hash for row in found]
        )
    return found[0]


def get_commit(conn: Connection, prefix: str) -> Fields:
    seq = resolve(conn, prefix).seq
    return _ONE.read(conn, seq=seq)[0]


def list_commits(
    conn: Connection,
    agent: str | None,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[Fields]:
    """Newest first, ties in the order of indexing; `before` is the last hash of the page seen."""
    end = resolve(conn, before).seq if before else END
    page = {"before": end, "page": limit, "offset": offset}
    return _BY_AGENT.read(conn, agent=agent, **page) if agent else _LOG.read(conn, **page)


def list_numbered(conn: Connection, seqs: Sequence[int]) -> list[wire.Commit]:
    """The commits with these numbers, in their order."""
    return [wire.Commit(**fields) for seq in seqs for fields in _ONE.read(conn, seq=seq)]


def list_children(conn: Connection, prefix: str) -> list[Fields]:
    """Newest first."""
    return CHILDREN.read_all(conn, parent=resolve(conn, prefix).seq)


def list_lineage(conn: Connection, prefix: str) -> list[Fields]:
    """The commit, then its first parents down to the root."""
    return LINEAGE.read_all(conn, start=resolve(conn, prefix).seq)


def list_leaves(conn: Connection) -> list[Fields]:
    """All commits without children, newest first."""
    return LEAVES.read_all(conn)


def list_leaf_hashes(conn: Connection, limit: int) -> list[str]:
    """Newest first; the first is the newest commit of all."""
    return [row[0] for row in _LEAF_HASHES.all(conn, limit=limit)]


# Index -----------------------------------------------------------------------------------------


def index(
    conn: Connection, staged: Sequence[StagedCommit], agent_id: str | None, now: datetime
) -> int:
    """Insert the commits that have no row yet, parents first; return how many."""
    inside = {commit.hash for commit in staged}
    named = inside.union(*(commit.parents for commit in staged))
    rows = _find_rows(conn, named)
    fresh = [commit for commit in staged if commit.hash not in rows]
    seqs = {hash: row.seq for hash, row in rows.items()}
    generations = {hash: row.generation for hash, row in rows.items()}
    children = Counter(parent for commit in fresh for parent in dict.fromkeys(commit.parents))
    for commit in fresh:
        generation = 1 + max((generations[parent] for parent in commit.parents), default=0)
        generations[commit.hash] = generation
        seqs[commit.hash] = _insert(conn, commit, agent_id, now, generation, children[commit.hash])
    links = [
        {"child": seqs[commit.hash], "position": position, "parent": seqs[parent]}
        for commit in fresh
        for position, parent in enumerate(commit.parents)
    ]
    if links:
        conn.execute(insert(tables.commit_parents), links)
    for commit in fresh:
        results.count_commit(conn, seqs[commit.hash])
    _add_children(conn, {rows[h].seq: n for h, n in children.items() if h in rows})
    return len(fresh)


def _insert(
    conn: Connection,
    commit: StagedCommit,
    agent_id: str | None,
    now: datetime,
    generation: int,
    child_count: int,
) -> int:
    row = {
        "hash": commit.hash,
        "tree": commit.tree,
        "code": commit.code,
        "agent_id": agent_id,
        "message": commit.subject,
        "body": commit.body,
        "authored_at": commit.authored_at,
        "created_at": now,
        "generation": generation,
        "child_count": child_count,
    }
    seq: int = conn.execute(
        insert(tables.commits).returning(tables.commits.c.seq), row
    ).scalar_one()
    return seq


def _add_children(conn: Connection, added: dict[int, int]) -> None:
    t = tables.commits
    if added:
        conn.execute(
            update(t)
            .where(t.c.seq == bindparam("parent_seq"))
            .values(child_count=t.c.child_count + bindparam("added")),
            [{"parent_seq": seq, "added": count} for seq, count in added.items()],
        )


def _find_rows(conn: Connection, hashes: Iterable[str]) -> dict[str, Row[Any]]:
    """Number and generation of those that have a row."""
    t = tables.commits
    found: dict[str, Row[Any]] = {}
    for chunk in _chunks(list(hashes)):
        rows = conn.execute(select(t.c.hash, t.c.seq, t.c.generation).where(t.c.hash.in_(chunk)))
        found |= {row.hash: row for row in rows}
    return found


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[i : i + IN_MAX] for i in range(0, len(values), IN_MAX))
