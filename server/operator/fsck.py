"""fsck: the index against git, both ways, and the database against itself. Writes nothing.

The rows are one moment's; what is pushed meanwhile is not looked at. A commit in git without a
row is a fault only when the hub once acknowledged it: a crash in the middle of a push leaves
others behind, and they do no harm.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.exc import DatabaseError

from server import tables
from server.db import Connection
from server.operator.files import find_hub, reading
from server.operator.meter import Meter
from server.operator.target import Refused
from server.repo.census import Census
from server.repo.stage import StagedCommit
from server.repo.store import CorruptRepo
from server.repo.whole import order_history


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    #: A commit, an object, or a table.
    subject: str
    message: str
    is_repairable: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose push brought a commit, and when."""

    agent_id: str | None
    created_at: datetime


@dataclass
class Report:
    commits: int = 0
    objects: int = 0
    problems: list[Finding] = field(default_factory=list)
    #: Harmless: commits that a crash left in git, whole and never acknowledged.
    adoptable: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.is_clean, **asdict(self)}


def check(data: Path, meter: Meter, *, full: bool = False) -> Report:
    """Raises Refused for what is no hub, or one whose database cannot be read at all."""
    data = find_hub(data)
    with reading(data / "hub.db") as db, db.read() as conn:
        try:
            return Check(conn, Census(data / "repo.git"), meter, full=full).run()
        except DatabaseError as error:
            raise Refused(
                f"the database cannot be read: {error.orig}",
                "bring it up to date with `agenthub migrate`, or restore a backup",
            ) from error


class Check:
    """One pass over one moment of a hub."""

    def __init__(self, conn: Connection, census: Census, meter: Meter, *, full: bool) -> None:
        self._conn = conn
        self._census = census
        self._meter = meter
        self._full = full
        self.report = Report()
        self.seqs: dict[str, int] = {}
        self.hashes: dict[int, str] = {}
        #: Parents by seq, in the commit's order, as the index has them.
        self.links: dict[int, dict[int, int]] = {}
        self.origins: dict[str, Origin] = {}
        #: Commits in git without a row, whole, parents not ordered.
        self.lost: dict[str, StagedCommit] = {}

    def run(self) -> Report:
        self._database()
        self._read_index()
        self._index_against_git()
        self._git_against_index()
        self._heads()
        return self.report

    def _found(self, code: str, subject: str, message: str, *, repairable: bool = False) -> None:
        self.report.problems.append(Finding(code, subject, message, repairable))

    def _database(self) -> None:
        self._meter.start("database")
        for (line,) in self._conn.exec_driver_sql("PRAGMA integrity_check"):
            if line != "ok":
                self._found("database", "hub.db", line)
        # Of a lost commit the other rows are still there, and adopting it mends them.
        for table, rowid, parent, _ in self._conn.exec_driver_sql("PRAGMA foreign_key_check"):
            what = f"row {rowid} of {table} names a row of {parent} that is not there"
            self._found("dangling", table, what, repairable=parent == "commits")

    def _read_index(self) -> None:
        t, p = tables.commits, tables.commit_parents
        for seq, hash in self._conn.execute(select(t.c.seq, t.c.hash)):
            self.seqs[hash], self.hashes[seq] = seq, hash
        for child, position, parent in self._conn.execute(select(p)):
            self.links.setdefault(child, {})[position] = parent
        e = tables.events
        for event in self._conn.execute(select(e).where(e.c.kind == "commit").order_by(e.c.id)):
            for head in event.payload.get("heads", [event.subject]):
                self.origins.setdefault(head, Origin(event.actor, event.created_at))

    def _index_against_git(self) -> None:
        self.report.commits = len(self.seqs)
        self._meter.start("commits", len(self.seqs))
        t = tables.commits
        counts = self.count()
        for row in self._conn.execute(select(t).order_by(t.c.seq)).yield_per(1000):
            self._meter.advance()
            for name, expected in counts[row.seq].items():
                if (value := getattr(row, name)) != expected:
                    what = f"its {name} is {value}, not {expected}"
                    self._found(name, row.hash, what, repairable=True)
            self._row(row)

    def count(self) -> dict[int, dict[str, int]]:
        """Generation and child_count of each row, from the links alone."""
        above = {
            seq: [parent for parent in self.links.get(seq, {}).values() if parent in self.hashes]
            for seq in self.hashes
        }
        children = Counter(parent for parents in above.values() for parent in set(parents))
        generations: dict[int, int] = {}
        for seq in order_history(sorted(above), above.__getitem__):
            generations[seq] = 1 + max((generations.get(p, 0) for p in above[seq]), default=0)
        return {
            seq: {"generation": generations[seq], "child_count": children[seq]} for seq in above
        }

    def _row(self, row: Row[Any]) -> None:
        try:
            commit = self._census.read_commit(row.hash)
            self._census.check_tree(commit.tree, full=self._full)
        except CorruptRepo as error:
            self._found("object", row.hash, str(error))
            return
        for name, value in facts(commit).items():
            if name == "code" and row.code == row.hash:
                continue  # Indexed before there were codes: equal to no other.
            if name != "body" and getattr(row, name) != value:
                what = f"its {name} is not what git has"
                self._found(name, row.hash, what, repairable=True)
        links = self.links.get(row.seq, {})
        known = tuple(self.hashes.get(links[at], "") for at in sorted(links))
        if known != commit.parents or sorted(links) != list(range(len(links))):
            is_more = len(links) > len(commit.parents)
            self._found(
                "parents", row.hash, "its parents are not what git has", repairable=not is_more
            )

    def _git_against_index(self) -> None:
        objects = self._census.objects()
        self.report.objects = len(objects)
        self._meter.start("objects", len(objects))
        for sha in objects:
            self._meter.advance()
            if sha not in self.seqs and self._is_commit(sha):
                self._add_lost(sha)
        for sha in self._without_rows():
            what = "the hub once had it; it is in git and not in the index"
            self._found("unindexed", sha, what, repairable=True)
        faults = {finding.subject for finding in self.report.problems}
        self.report.adoptable = sorted(set(self.lost) - faults)

    def _is_commit(self, sha: str) -> bool:
        try:
            return self._census.is_commit(sha)
        except CorruptRepo as error:
            self._found("object", sha, str(error))
            return False

    def _add_lost(self, sha: str) -> None:
        try:
            commit = self._census.read_commit(sha)
            self._census.check_tree(commit.tree, full=self._full)
        except CorruptRepo:
            # Not even whole, so never acknowledged, unless an event says so.
            if sha in self.origins:
                self._found("object", sha, "the hub once had it; it is damaged")
            return
        self.lost[sha] = commit

    def _without_rows(self) -> Iterator[str]:
        """Commits that must have a row: pushed heads, and ancestors of those that have one."""
        stack = [sha for sha in self.lost if sha in self.origins]
        stack += self._missing_parents()
        seen: set[str] = set()
        while stack:
            sha = stack.pop()
            if sha in self.lost and sha not in seen:
                seen.add(sha)
                stack += self.lost[sha].parents
                yield sha
        for sha in self.origins:
            if sha not in self.seqs and sha not in self.lost:
                self._found("object", sha, "the hub once had it; it is in neither index nor git")

    def _missing_parents(self) -> Iterator[str]:
        unsure = {found.subject for found in self.report.problems if found.code == "parents"}
        for sha in unsure:
            yield from self._census.read_commit(sha).parents

    def _heads(self) -> None:
        """Whatever git's own gc would keep must include all leaves."""
        heads = self._census.heads()
        for sha in sorted(heads - self.seqs.keys() - self.lost.keys()):
            self._found("ref", sha, "a ref keeps it, and it is not there whole")
        parents = {seq for links in self.links.values() for seq in links.values()}
        leaves = {sha for sha, seq in self.seqs.items() if seq not in parents}
        kept = heads | {sha for commit in self.lost.values() for sha in commit.parents}
        for sha in sorted(leaves - kept):
            self._found("unkept", sha, "no ref keeps it from `git gc`", repairable=True)


def facts(commit: StagedCommit) -> dict[str, Any]:
    """What a commit's row says that git says too."""
    return {
        "tree": commit.tree,
        "code": commit.code,
        "message": commit.subject,
        "body": commit.body,
        "authored_at": commit.authored_at,
    }
