"""The commits of an import: in slices through the same quarantine as any push."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from server import commits
from server.db import Database
from server.errors import HubError
from server.operator.fsck import Origin
from server.operator.meter import Meter
from server.operator.original import Original, text
from server.repo import BareRepo, Caps, StagedCommit
from server.repo.source import Source
from server.repo.store import CorruptRepo
from server.repo.whole import order_history, write_slice

_SLICE = 200
# Slices are our own files, and agents of the original could push as much as its flag allowed.
_CAPS = Caps(bundle_bytes=2**31)


@dataclass
class Tally:
    commits: int = 0
    #: Commits and other indexed objects that could not be brought, with the reason.
    refused: dict[str, str] = field(default_factory=dict)
    #: Indexed as commits, though they are tags: the commits they name were brought.
    tags: dict[str, str] = field(default_factory=dict)
    #: Commits in git that neither the index nor a ref reaches.
    unreferenced: list[str] = field(default_factory=list)
    damaged_packs: dict[str, str] = field(default_factory=dict)


def bring_history(
    original: Original, target: Path, db: Database, names: dict[str, str], meter: Meter
) -> Tally:
    meter.start("objects")
    source = Source(original.folder / "repo.git", _CAPS)
    repo = BareRepo(target, _CAPS)
    try:
        history = History(original, source, names)
        order = history.plan()
        Carrier(source, repo, db, history, target.with_name("slice.bundle"), meter).carry(order)
        history.count_the_rest()
        return history.tally
    finally:
        repo.close()


class History:
    """What is to be brought, in which order, and in whose name."""

    def __init__(self, original: Original, source: Source, names: dict[str, str]) -> None:
        self._original = original
        self._source = source
        self._names = names
        self.origins: dict[str, Origin] = {}
        self.parents: dict[str, tuple[str, ...]] = {}
        self.tally = Tally(damaged_packs=source.damaged)

    def plan(self) -> list[str]:
        """Parents before children, otherwise as recorded; those between just before the first."""
        tips = self._recorded()
        order = list(order_history(tips, self._read_parents))
        self._date(tips)
        return order

    def _recorded(self) -> list[str]:
        tips: dict[str, None] = {}
        for row in self._original.rows("commits"):
            agent = self._names.get(text(row["agent_id"]))
            if sha := self._peel(text(row["hash"])):
                tips[sha] = None
                if sha not in self.origins or sha == row["hash"]:
                    self.origins[sha] = Origin(agent, row["created_at"])
        for sha in self._source.refs().values():
            if found := self._peel(sha):
                tips[found] = None
        return list(tips)

    def _peel(self, sha: str) -> str | None:
        try:
            found = self._source.peel(sha)
        except CorruptRepo as error:
            self.tally.refused[sha] = str(error)
            return None
        if found != sha:
            self.tally.tags[sha] = found
        return found

    def _read_parents(self, sha: str) -> tuple[str, ...]:
        if sha not in self.parents:
            try:
                self.parents[sha] = self._source.parents(sha)
            except CorruptRepo as error:
                self.tally.refused[sha] = str(error)
                self.parents[sha] = ()
        return self.parents[sha]

    def _date(self, tips: list[str]) -> None:
        """Commits that the original left out came with the first recorded one that has them."""
        for tip in tips:
            moment = self.origins[tip].created_at if tip in self.origins else self._original.now
            stack = [tip]
            while stack:
                sha = stack.pop()
                if sha == tip or sha not in self.origins:
                    self.origins.setdefault(sha, Origin(None, moment))
                    stack += self.parents[sha]

    def count_the_rest(self) -> None:
        for sha in self._source.objects():
            if sha not in self.parents and self._is_commit(sha):
                self.tally.unreferenced.append(sha)

    def _is_commit(self, sha: str) -> bool:
        try:
            return self._source.kind(sha) == 1
        except CorruptRepo as error:
            self.tally.refused.setdefault(sha, str(error))
            return False


class Carrier:
    def __init__(
        self,
        source: Source,
        repo: BareRepo,
        db: Database,
        history: History,
        bundle: Path,
        meter: Meter,
    ) -> None:
        self._source = source
        self._repo = repo
        self._db = db
        self._history = history
        self._bundle = bundle
        self._meter = meter
        self._brought: set[str] = set()

    def carry(self, order: list[str]) -> None:
        self._meter.start("commits", len(order))
        for at in range(0, len(order), _SLICE):
            self._carry(order[at : at + _SLICE])
            self._meter.advance(len(order[at : at + _SLICE]))
        self._bundle.unlink(missing_ok=True)
        self._history.tally.commits = len(self._brought)

    def _carry(self, slice: list[str]) -> None:
        """What is refused together is tried in halves, down to the commit that is to blame."""
        slice = list(self._without_orphans(slice))
        if not slice:
            return
        try:
            self._bring(slice)
        except (HubError, CorruptRepo) as error:
            if len(slice) == 1:
                self._history.tally.refused[slice[0]] = str(error)
                return
            self._carry(slice[: len(slice) // 2])
            self._carry(slice[len(slice) // 2 :])

    def _without_orphans(self, slice: list[str]) -> Iterator[str]:
        refused = self._history.tally.refused
        for sha in slice:
            lost = [parent for parent in self._history.parents[sha] if parent in refused]
            if lost and sha not in refused:
                refused[sha] = f"its parent {lost[0]} was not brought"
            if sha not in refused:
                yield sha

    def _bring(self, slice: list[str]) -> None:
        inside = set(slice)
        parents = {parent for sha in slice for parent in self._history.parents[sha]}
        refs = {f"refs/heads/{sha}": sha for sha in slice if sha not in parents}
        write_slice(self._source, refs, slice, sorted(parents - inside), self._bundle)
        with self._repo.stage(self._bundle, self._brought.intersection) as staged:
            self._repo.promote(staged)
            by_hash = {commit.hash: commit for commit in staged.commits}
            self._index([by_hash[sha] for sha in slice])
        self._brought |= inside

    def _index(self, staged: list[StagedCommit]) -> None:
        origins = self._history.origins
        with self._db.write() as conn:
            for origin, group in itertools.groupby(staged, lambda commit: origins[commit.hash]):
                commits.index(conn, list(group), origin.agent_id, origin.created_at)
