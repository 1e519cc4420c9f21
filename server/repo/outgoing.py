"""Bundles for others: which commits and objects to send, and in which form.

Entries of stored packs are copied as they are wherever their base goes out as well. Loose objects
are sent as deltas against what the parent had at the same path. A bundle's bytes depend on how
its objects are stored; what it holds does not.
"""

import heapq
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from server.repo.bundle import write_header
from server.repo.check import DIRECTORY, TreeEntry, read_links, read_tree
from server.repo.lines import Effort, compare_lines
from server.repo.pack import COMMIT, TREE, Entry, Object
from server.repo.stage import read_committed_at
from server.repo.store import CorruptRepo, Store, StoredPack
from server.repo.writer import PackWriter, write_delta

# As git: longer chains make objects slow to read.
_DEPTH_MAX = 50
_DELTA_BYTES = 2**20
_DELTA_LINES = 20_000
_TREES_HELD = 2_000
_TREE_TOKENS = re.compile(rb"[^\0]*\0.{20}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle to be written; whoever names the same boundary as their own gets the same."""

    tip: str
    #: The commits that the receiver must have.
    boundary: tuple[str, ...] = ()
    #: How many go out; None for a whole history, which nobody has counted.
    commits: int | None = None


def plan_bundle(store: Store, tip: str, have: Collection[str]) -> Plan:
    if not have:
        return Plan(tip)
    commits, boundary = History(store).select(tip, have)
    return Plan(tip, tuple(boundary), len(commits))


def write_bundle(store: Store, tip: str, out: Path, have: Collection[str]) -> None:
    history = History(store)
    commits, boundary = history.select(tip, have)
    wanted = Selection(store, history)
    for commit in commits:
        wanted.add_commit(commit)
    with out.open("wb") as file:
        file.write(write_header(tip, boundary))
        Assembler(store, wanted.hints, PackWriter(file, len(wanted.hints))).write()


@dataclass(frozen=True, slots=True)
class Node:
    tree: str
    parents: tuple[str, ...]
    committed_at: int


class History:
    """Commits as read from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes: dict[str, Node] = {}

    def node(self, sha: str) -> Node:
        if sha not in self._nodes:
            content = _get(self._store, sha)[1]
            links = read_links(content)
            self._nodes[sha] = Node(links.tree, links.parents, read_committed_at(content))
        return self._nodes[sha]

    def select(self, tip: str, have: Collection[str]) -> tuple[list[str], list[str]]:
        """Commits to send, parents first, and those that the receiver must have.

        Walks from the youngest to the oldest until nothing is left that is only wanted. Wrong
        dates can make the bundle larger, never incomplete: each parent of a commit that is sent
        is sent itself or a prerequisite.
        """
        held = {sha for sha in have if self._store.kind(sha) == COMMIT}
        wanted = {tip} - held
        ahead = set(wanted)
        queue = [(-self.node(sha).committed_at, sha) for sha in held | wanted]
        heapq.heapify(queue)
        while ahead:
            sha = heapq.heappop(queue)[1]
            ahead.discard(sha)
            parents = self.node(sha).parents
            if sha in held:
                fresh = [parent for parent in parents if parent not in held]
                held.update(fresh)
                wanted.difference_update(fresh)
                ahead.difference_update(fresh)
            else:
                fresh = [
                    parent for parent in parents if parent not in held and parent not in wanted
                ]
                wanted.update(fresh)
                ahead.update(fresh)
            for parent in fresh:
                heapq.heappush(queue, (-self.node(parent).committed_at, parent))
        self._spread(held, wanted)
        commits = self._order(tip, wanted)
        edges = {parent for sha in commits for parent in self.node(sha).parents}
        return commits, sorted(edges - wanted) or sorted({tip} & held)

    def _spread(self, held: set[str], wanted: set[str]) -> None:
        """Take out what turned out to be held after it was walked through."""
        stack = [sha for sha in held if sha in self._nodes]
        while stack:
            again = [parent for parent in self.node(stack.pop()).parents if parent in wanted]
            wanted.difference_update(again)
            held.update(again)
            stack += again

    def _order(self, tip: str, wanted: set[str]) -> list[str]:
        ordered: dict[str, None] = {}
        stack = [(tip, False)]
        while stack:
            sha, is_ready = stack.pop()
            if is_ready:
                ordered[sha] = None
            elif sha in wanted and sha not in ordered:
                stack.append((sha, True))
                stack += [(parent, False) for parent in self.node(sha).parents]
        return list(ordered)


class Selection:
    """The objects of some commits that their parents do not have at the same path."""

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history
        self._trees: dict[str, dict[bytes, TreeEntry]] = {}
        #: Each object to send with the hash of what it probably resembles, or "".
        self.hints: dict[str, str] = {}

    def add_commit(self, sha: str) -> None:
        node = self._history.node(sha)
        self.hints[sha] = ""
        self._add_tree(node.tree, [self._history.node(parent).tree for parent in node.parents])

    def _add_tree(self, sha: str, before: list[str]) -> None:
        if sha in self.hints or sha in before:
            return
        self.hints[sha] = before[0] if before else ""
        olds = [self._tree(old) for old in before]
        for name, entry in self._tree(sha).items():
            same = [old[name] for old in olds if name in old and old[name].kind == entry.kind]
            hashes = [old.hash for old in same]
            if entry.mode == DIRECTORY:
                self._add_tree(entry.hash, hashes)
            elif entry.hash not in hashes and entry.hash not in self.hints:
                self.hints[entry.hash] = hashes[0] if hashes else ""

    def _tree(self, sha: str) -> dict[bytes, TreeEntry]:
        if sha not in self._trees:
            if len(self._trees) >= _TREES_HELD:
                self._trees.clear()
            entries = read_tree(_get(self._store, sha)[1])
            self._trees[sha] = {entry.name: entry for entry in entries}
        return self._trees[sha]


class Assembler:
    """Writes the chosen objects as a pack."""

    def __init__(self, store: Store, hints: dict[str, str], writer: PackWriter) -> None:
        self._store = store
        self._hints = hints
        self._writer = writer
        self._depths: dict[str, int] = {}

    def write(self) -> None:
        for sha in self._hints:
            for each, found in self._chain(sha):
                self._write(each, found)
        self._writer.finish()

    def _chain(self, sha: str) -> list[tuple[str, tuple[StoredPack, Entry] | None]]:
        """An object after those stored bases that are to go out and have not yet."""
        chain: dict[str, tuple[StoredPack, Entry] | None] = {}
        # Packs may hold an object twice, so stored deltas can lead in a circle.
        while sha in self._hints and sha not in self._writer.offsets and sha not in chain:
            found = chain[sha] = self._store.find_packed(sha)
            if not found or not found[1].is_delta:
                break
            sha = found[0].base_sha(found[1])
        return list(chain.items())[::-1]

    def _write(self, sha: str, found: tuple[StoredPack, Entry] | None) -> None:
        if found:
            pack, entry = found
            if not entry.is_delta:
                self._writer.add(sha, entry.type, entry.size, pack.packed(entry))
                return
            base = pack.base_sha(entry)
            if base in self._writer.offsets:
                self._add_delta(sha, base, entry.size, pack.packed(entry))
                return
        self._write_anew(sha)

    def _write_anew(self, sha: str) -> None:
        kind, content = _get(self._store, sha)
        base = self._hints[sha]
        # What is a base and does not go out is on the receiver's side.
        is_there = base in self._writer.offsets or base not in self._hints
        if base and is_there and self._depths.get(base, 0) < _DEPTH_MAX:
            delta = _make_delta(_get(self._store, base), (kind, content))
            if delta and len(delta) < len(content) // 2:
                self._add_delta(sha, base, len(delta), zlib.compress(delta))
                return
        self._writer.add(sha, kind, len(content), zlib.compress(content))

    def _add_delta(self, sha: str, base: str, size: int, packed: bytes) -> None:
        self._depths[sha] = self._depths.get(base, 0) + 1
        self._writer.add_delta(sha, base, size, packed)


def _make_delta(base: Object, new: Object) -> bytes | None:
    """A delta by whole lines, or by whole entries of trees; None when it would take long."""
    if base[0] != new[0] or max(len(base[1]), len(new[1])) > _DELTA_BYTES:
        return None
    a, b = _tokens(base), _tokens(new)
    if max(len(a), len(b)) > _DELTA_LINES:
        return None
    starts = [0, *accumulate(map(len, a))]
    ops: list[tuple[int, int] | bytes] = []
    at = 0
    for hunk in [*compare_lines(a, b, Effort(100_000)), None]:
        end = hunk.a0 if hunk else len(a)
        if end > at:
            ops.append((starts[at], starts[end] - starts[at]))
        if hunk:
            ops.append(b"".join(b[hunk.b0 : hunk.b1]))
            at = hunk.a1
    return write_delta(len(base[1]), len(new[1]), ops)


def _tokens(item: Object) -> list[bytes]:
    if item[0] == TREE:
        return _TREE_TOKENS.findall(item[1])
    return item[1].splitlines(keepends=True)


def _get(store: Store, sha: str) -> Object:
    found = store.get(sha)
    if found is None:
        raise CorruptRepo(f"object {sha} is missing from the repository")
    return found
