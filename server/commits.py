"""Commits: pushes into the index, and the DAG read back from it.

A commit exists when its row exists; by then all its objects are durable in the repo and all its
parents have rows. Every commit of a push is indexed, with every parent.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Row, Select, bindparam, insert, literal, select, update

from server import agents, errors, events, results, tables, wire
from server.db import Connection, Database
from server.repo import BareRepo, StagedCommit

T = TypeVar("T")

#: How many values one IN (…) may hold; SQLite allows 32,766 variables in a statement.
IN_MAX = 10_000


def push(
    db: Database,
    repo: BareRepo,
    agent: agents.Agent,
    bundle: Path,
    per_hour: int,
    now: Callable[[], datetime],
) -> wire.Pushed:
    """Validate a bundle, store its objects, index all its new commits; all or nothing.

    Objects become durable first and visible only with the transaction at the end. A crash
    between the two leaves unreferenced objects, which the same push adopts when it comes again.
    """

    def is_known(hashes: Collection[str]) -> set[str]:
        with db.read() as conn:
            return set(_find_seqs(conn, hashes))

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
        return wire.Pushed(hashes=staged.heads, new_commits=added)


def find_known(conn: Connection, hashes: Sequence[str]) -> list[str]:
    """Those of the hashes that are commits here, in their order."""
    known = _find_seqs(conn, hashes)
    return [hash for hash in hashes if hash in known]


def resolve(conn: Connection, prefix: str) -> Row[Any]:
    """The row of the one commit whose hash starts with `prefix`.

    Raises InvalidHash, NotFound, or AmbiguousHash when several do.
    """
    if not wire.HASH_PREFIX.fullmatch(prefix):
        raise errors.InvalidHash("invalid hash")
    t = tables.commits
    # "g" sorts behind every hexadecimal digit, so this range is the prefix's, by the index.
    found = conn.execute(
        select(t).where(t.c.hash >= prefix, t.c.hash < prefix + "g").order_by(t.c.hash).limit(2)
    ).all()
    if not found:
        raise errors.NotFound("commit not found", "`ah log` lists commits; was it pushed?")
    if len(found) > 1:
        raise errors.AmbiguousHash(
            f"several commits start with {prefix}", subjects=[row.hash for row in found]
        )
    return found[0]


def get_commit(conn: Connection, prefix: str) -> wire.Commit:
    return _to_wire(conn, [resolve(conn, prefix)])[0]


def list_commits(
    conn: Connection,
    agent: str | None,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[wire.Commit]:
    """Newest first, ties in the order of indexing; `before` is the last hash of the page seen."""
    t = tables.commits
    query = select(t)
    if agent:
        query = query.where(t.c.agent_id == agent)
    if before:
        query = query.where(t.c.seq < resolve(conn, before).seq)
    return _fetch(conn, query.order_by(t.c.seq.desc()).limit(limit).offset(offset))


def list_children(conn: Connection, prefix: str) -> list[wire.Commit]:
    """Newest first."""
    t, p = tables.commits, tables.commit_parents
    of_parent = select(p.c.child).where(p.c.parent == resolve(conn, prefix).seq)
    return _fetch(conn, select(t).where(t.c.seq.in_(of_parent)).order_by(t.c.seq.desc()))


def list_lineage(conn: Connection, prefix: str) -> list[wire.Commit]:
    """The commit, then its first parents down to the root."""
    t, p = tables.commits, tables.commit_parents
    start = resolve(conn, prefix).seq
    chain = select(literal(start).label("seq")).cte("chain", recursive=True)
    chain = chain.union_all(
        select(p.c.parent).join(chain, p.c.child == chain.c.seq).where(p.c.position == 0)
    )
    return _fetch(conn, select(t).join(chain, t.c.seq == chain.c.seq).order_by(t.c.seq.desc()))


def list_leaves(conn: Connection) -> list[wire.Commit]:
    """All commits without children, newest first."""
    t = tables.commits
    return _fetch(conn, select(t).where(t.c.child_count == 0).order_by(t.c.seq.desc()))


def list_leaf_hashes(conn: Connection, limit: int) -> list[str]:
    """Newest first; the first is the newest commit of all."""
    t = tables.commits
    query = select(t.c.hash).where(t.c.child_count == 0).order_by(t.c.seq.desc()).limit(limit)
    return list(conn.scalars(query))


# Index -----------------------------------------------------------------------------------------


def index(
    conn: Connection, staged: Sequence[StagedCommit], agent_id: str | None, now: datetime
) -> int:
    """Insert the commits that have no row yet, parents first; return how many."""
    known = _find_seqs(conn, [commit.hash for commit in staged])
    fresh = [commit for commit in staged if commit.hash not in known]
    parents = {parent for commit in fresh for parent in commit.parents}
    seqs = _find_seqs(conn, parents - {commit.hash for commit in fresh})
    generations = _find_generations(conn, seqs.values())
    outside = set(seqs.values())
    children = Counter(parent for commit in fresh for parent in dict.fromkeys(commit.parents))
    for commit in fresh:
        generation = 1 + max((generations[seqs[p]] for p in commit.parents), default=0)
        seq = _insert(conn, commit, agent_id, now, generation, children[commit.hash])
        seqs[commit.hash] = seq
        generations[seq] = generation
    links = [
        {"child": seqs[commit.hash], "position": position, "parent": seqs[parent]}
        for commit in fresh
        for position, parent in enumerate(commit.parents)
    ]
    if links:
        conn.execute(insert(tables.commit_parents), links)
    _add_children(conn, {seqs[h]: n for h, n in children.items() if seqs[h] in outside})
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


def _find_seqs(conn: Connection, hashes: Iterable[str]) -> dict[str, int]:
    t = tables.commits
    found: dict[str, int] = {}
    for chunk in _chunks(list(hashes)):
        rows = conn.execute(select(t.c.hash, t.c.seq).where(t.c.hash.in_(chunk)))
        found.update((row.hash, row.seq) for row in rows)
    return found


def _find_generations(conn: Connection, seqs: Iterable[int]) -> dict[int, int]:
    t = tables.commits
    found: dict[int, int] = {}
    for chunk in _chunks(list(seqs)):
        rows = conn.execute(select(t.c.seq, t.c.generation).where(t.c.seq.in_(chunk)))
        found.update((row.seq, row.generation) for row in rows)
    return found


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[i : i + IN_MAX] for i in range(0, len(values), IN_MAX))


# To the wire -----------------------------------------------------------------------------------


def _fetch(conn: Connection, query: Select[Any]) -> list[wire.Commit]:
    return _to_wire(conn, conn.execute(query).all())


def _to_wire(conn: Connection, rows: Sequence[Row[Any]]) -> list[wire.Commit]:
    seqs = [row.seq for row in rows]
    parents = _parent_hashes(conn, seqs)
    scores = {}
    for chunk in _chunks(seqs):
        scores.update(results.best_scores(conn, chunk))
    return [
        wire.Commit(
            hash=row.hash,
            parent_hash=next(iter(parents.get(row.seq, [])), ""),
            agent_id=row.agent_id or "",
            message=row.message,
            created_at=row.created_at,
            parents=parents.get(row.seq, []),
            generation=row.generation,
            child_count=row.child_count,
            tree=row.tree,
            best=scores.get(row.seq),
        )
        for row in rows
    ]


def _parent_hashes(conn: Connection, seqs: Sequence[int]) -> dict[int, list[str]]:
    t, p = tables.commits, tables.commit_parents
    found: dict[int, list[str]] = {}
    for chunk in _chunks(seqs):
        rows = conn.execute(
            select(p.c.child, t.c.hash)
            .join(t, t.c.seq == p.c.parent)
            .where(p.c.child.in_(chunk))
            .order_by(p.c.child, p.c.position)
        )
        for child, hash in rows:
            found.setdefault(child, []).append(hash)
    return found
