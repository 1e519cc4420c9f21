"""Repair: re-index what git has and the index has lost. Adds and corrects rows, deletes none."""

from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects import sqlite

from server import results, similar, tables
from server.db import Connection, Database, sqlite_url
from server.operator.files import find_hub
from server.operator.fsck import Check, Origin, facts
from server.operator.meter import Meter
from server.repo import BareRepo, Staged, StagedCommit
from server.repo.census import Census
from server.repo.store import CorruptRepo
from server.repo.whole import order_history


def repair(data: Path, meter: Meter, now: datetime) -> list[str]:
    """Mend what can be mended, in one transaction; return what was done.

    What a crash left behind is adopted too, unless a hub is running: it may be a push on its way.
    """
    data = find_hub(data)
    census = Census(data / "repo.git")
    db = Database(sqlite_url(data / "hub.db"))
    try:
        with db.write() as conn:
            before = Check(conn, census, meter, full=False)
            before.run()
            mender = Mender(conn, before, census, now)
            mender.adopt(adopt_all=not census.is_in_use())
            mender.correct_rows()
            mender.recount()
            results.recount_visits(conn)
            similar.forget(conn, mender.changed)
            # Refs before rows, as in a push.
            _keep(data, {found.subject for found in before.report.problems}, mender)
        return mender.done
    finally:
        db.close()


def _keep(data: Path, subjects: set[str], mender: "Mender") -> None:
    commits = [mender.census.read_commit(sha) for sha in sorted(subjects & mender.kept_now)]
    repo = BareRepo(data / "repo.git")
    try:
        repo.promote(Staged([], [*commits, *mender.adopted]))
    finally:
        repo.close()
    mender.done += [f"commit {commit.hash}: kept by a ref" for commit in commits]


class Mender:
    """Writes into one transaction what one check found."""

    def __init__(self, conn: Connection, found: Check, census: Census, now: datetime) -> None:
        self._conn = conn
        self._found = found
        self._now = now
        self.census = census
        self.done: list[str] = []
        self.adopted: list[StagedCommit] = []
        #: Rows of commits that are new or not what they were.
        self.changed: list[int] = []
        problems = found.report.problems
        self.kept_now = {finding.subject for finding in problems if finding.code == "unkept"}

    def adopt(self, *, adopt_all: bool) -> None:
        lost = self._found.lost
        wanted = {f.subject for f in self._found.report.problems if f.code == "unindexed"}
        if adopt_all:
            wanted.update(self._found.report.adoptable)

        def parents(sha: str) -> tuple[str, ...]:
            return tuple(parent for parent in lost[sha].parents if parent in lost)

        origins = self._find_origins()
        for sha in order_history(sorted(wanted), parents):
            self._adopt(lost[sha], origins.get(sha, Origin(None, self._now)))

    def _find_origins(self) -> dict[str, Origin]:
        """Who pushed each lost commit: the first push whose head reaches it brought it."""
        found: dict[str, Origin] = {}
        seen: set[str] = set()
        for head, origin in self._found.origins.items():
            stack = [head]
            while stack:
                sha = stack.pop()
                if sha not in seen:
                    seen.add(sha)
                    stack += self._parents_in_git(sha)
                    if sha in self._found.lost:
                        found[sha] = origin
        return found

    def _parents_in_git(self, sha: str) -> tuple[str, ...]:
        try:
            return self.census.read_commit(sha).parents
        except CorruptRepo:
            return ()

    def _adopt(self, commit: StagedCommit, origin: Origin) -> None:
        if any(parent not in self._found.seqs for parent in commit.parents):
            return
        row = {
            "seq": self._old_seq(commit) or self._next_seq(),
            "hash": commit.hash,
            "agent_id": self._known_agent(origin.agent_id),
            "created_at": origin.created_at,
            "generation": 0,
            "child_count": 0,
            **facts(commit),
        }
        self._conn.execute(insert(tables.commits), row)
        self._found.seqs[commit.hash], self._found.hashes[row["seq"]] = row["seq"], commit.hash
        self._link(commit)
        self.adopted.append(commit)
        self.changed.append(row["seq"])
        self.done.append(f"commit {commit.hash}: adopted into the index")

    def _known_agent(self, id: str | None) -> str | None:
        t = tables.agents
        found: str | None = self._conn.scalar(select(t.c.id).where(t.c.id == id))
        return found

    def _old_seq(self, commit: StagedCommit) -> int | None:
        """The number it had, where rows are left that tell: its children's or its own links."""
        links, hashes = self._found.links, self._found.hashes
        for child, parents in links.items():
            if child in hashes and any(seq not in hashes for seq in parents.values()):
                known = self._parents_in_git(hashes[child])
                for position, seq in parents.items():
                    if seq not in hashes and known[position : position + 1] == (commit.hash,):
                        return seq
        own = [self._found.seqs[parent] for parent in commit.parents]
        like = [seq for seq in links if seq not in hashes and self._parents_of(seq) == own]
        return like[0] if own and len(like) == 1 else None

    def _parents_of(self, seq: int) -> list[int]:
        links = self._found.links[seq]
        return [links[position] for position in sorted(links)]

    def _next_seq(self) -> int:
        """Above all numbers in use, also by rows whose commit is lost."""
        p = tables.commit_parents.c
        columns = (
            tables.commits.c.seq, p.child, p.parent,
            tables.runs.c.commit_seq, tables.results.c.commit_seq, tables.scores.c.commit_seq,
            tables.records.c.commit_seq,
        )  # fmt: skip
        return 1 + max(self._conn.scalar(select(func.max(column))) or 0 for column in columns)

    def _link(self, commit: StagedCommit) -> None:
        child = self._found.seqs[commit.hash]
        for position, parent in enumerate(commit.parents):
            row = {"child": child, "position": position, "parent": self._found.seqs[parent]}
            self._conn.execute(
                sqlite.insert(tables.commit_parents)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["child", "position"], set_={"parent": row["parent"]}
                )
            )
            self._found.links.setdefault(child, {})[position] = row["parent"]

    def correct_rows(self) -> None:
        t = tables.commits
        codes = {"tree", "code", "message", "authored_at", "parents"}
        wrong = {f.subject for f in self._found.report.problems if f.code in codes}
        for sha in sorted(wrong):
            commit = self.census.read_commit(sha)
            values: dict[str, Any] = facts(commit)
            self._conn.execute(update(t).where(t.c.hash == sha).values(values))
            if all(parent in self._found.seqs for parent in commit.parents):
                self._link(commit)
            self.changed.append(self._found.seqs[sha])
            self.done.append(f"commit {sha}: row and parents as in git")

    def recount(self) -> None:
        t = tables.commits
        counts = self._found.count()
        columns = (t.c.seq, t.c.hash, t.c.generation, t.c.child_count)
        for row in self._conn.execute(select(*columns)).all():
            right = counts[row.seq]
            if (row.generation, row.child_count) != (right["generation"], right["child_count"]):
                self._conn.execute(update(t).where(t.c.seq == row.seq).values(right))
                self.done.append(f"commit {row.hash}: generation and child_count counted anew")
