"""Closure: everything that new commits refer to is in the pack or already stored.

A stored object counts as present without a look at what it refers to (see `Store`). What a tree
does as a whole (depth, longest path, number of paths, symlinks that climb out) is summed up once
per tree, so a tree that occurs a million times is looked at once.
"""

from dataclasses import dataclass
from typing import NoReturn

from server.errors import InvalidBundle
from server.repo.caps import Caps
from server.repo.check import (
    DIRECTORY,
    SYMLINK,
    TreeEntry,
    check_attributes,
    is_attributes,
    link_climb,
    read_tree,
    shown,
)
from server.repo.pack import BLOB, KINDS, TREE, IncomingPack
from server.repo.store import EMPTY_TREE, Store


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree with all below it, seen from its top."""

    height: int = 1
    longest: int = 0
    paths: int = 0
    #: How many levels above this tree its boldest symlink reaches, and that link's path.
    climb: int = 0
    link: bytes = b""


class Closure:
    """Collects in `kept` what must be stored, with a rank above that of all it refers to."""

    def __init__(
        self, pack: IncomingPack, store: Store, caps: Caps, shapes: dict[str, Shape]
    ) -> None:
        self._pack = pack
        self._store = store
        self._caps = caps
        #: Shapes of stored trees, shared by all pushes; those of new trees are this push's own.
        self._stored_shapes = shapes
        self._shapes: dict[str, Shape] = {}
        self._climbs: dict[str, int] = {}
        self._attributes: set[str] = set()
        self.kept: dict[str, int] = {}

    def add_commit(self, sha: str, tree: str, parents: tuple[str, ...]) -> None:
        shape = self._tree(tree, f"commit {sha}", 1)
        if shape.climb > 0:
            raise InvalidBundle(
                f"commit {sha} has a symlink that leaves its tree: {shown(shape.link)}",
                subjects=[sha],
            )
        if self._store.kind(sha) is None:
            above = [self.kept[parent] for parent in parents if parent in self.kept]
            self.kept[sha] = 1 + max(above, default=self._caps.tree_depth)

    def _tree(self, sha: str, owner: str, depth: int) -> Shape:
        if depth > self._caps.tree_depth:
            _refuse(owner, f"is part of a tree deeper than {self._caps.tree_depth} folders")
        shape = self._shapes.get(sha) or self._stored_shapes.get(sha)
        if shape:
            self._check_shape(shape, sha, depth)
            return shape
        is_stored = self._check_kind(sha, TREE, owner)
        shape = self._shape(sha, depth, is_stored)
        self._check_shape(shape, sha, depth)
        if is_stored:
            self._stored_shapes[sha] = shape
        else:
            self._shapes[sha] = shape
            self.kept[sha] = shape.height
        return shape

    def _check_shape(self, shape: Shape, sha: str, depth: int) -> None:
        if depth + shape.height - 1 > self._caps.tree_depth:
            _refuse(f"tree {sha}", f"is part of one deeper than {self._caps.tree_depth} folders")
        if shape.paths > self._caps.tree_paths:
            _refuse(f"tree {sha}", f"names more than {self._caps.tree_paths} paths")
        if shape.longest > self._caps.path_bytes:
            _refuse(f"tree {sha}", f"has a path of more than {self._caps.path_bytes} bytes")

    def _check_kind(self, sha: str, kind: int, owner: str) -> bool:
        """True when the object is stored already."""
        stored = self._store.kind(sha)
        entry = self._pack.by_sha.get(sha)
        found = stored or (entry.kind if entry else TREE if sha == EMPTY_TREE else None)
        if found is None:
            _refuse(
                owner, f"needs {KINDS[kind]} {sha}, which neither the bundle nor the hub has", sha
            )
        if found != kind:
            _refuse(owner, f"takes {sha} for a {KINDS[kind]}, but it is a {KINDS[found]}", sha)
        return stored is not None

    def _shape(self, sha: str, depth: int, is_stored: bool) -> Shape:
        height, longest, paths, climb, link = 1, 0, 0, 0, b""
        for entry in read_tree(self._content(sha)):
            below = Shape()
            if entry.mode == DIRECTORY:
                below = self._tree(entry.hash, f"tree {sha}", depth + 1)
                height = max(height, below.height + 1)
                rise, path = below.climb - 1, entry.name + b"/" + below.link
            else:
                if not is_stored:
                    self._blob(sha, entry)
                rise, path = self._climb(sha, entry), entry.name
            longest = max(longest, len(entry.name) + (1 + below.longest if below.longest else 0))
            paths += below.paths + 1
            if rise > climb:
                climb, link = rise, path
        return Shape(height, longest, paths, climb, link)

    def _blob(self, owner: str, entry: TreeEntry) -> None:
        # Only blobs have the rank 0: a commit or tree that is kept is no file.
        if self.kept.get(entry.hash) != 0 and not self._check_kind(
            entry.hash, BLOB, f"tree {owner}"
        ):
            self.kept[entry.hash] = 0
        if is_attributes(entry.name) and entry.hash not in self._attributes:
            check_attributes(entry.hash, self._content(entry.hash))
            self._attributes.add(entry.hash)

    def _climb(self, owner: str, entry: TreeEntry) -> int:
        if entry.mode != SYMLINK:
            return 0
        if entry.hash not in self._climbs:
            target = self._content(entry.hash)
            self._climbs[entry.hash] = link_climb(owner, entry.name, target, self._caps)
        return self._climbs[entry.hash]

    def _content(self, sha: str) -> bytes:
        if sha in self._pack.by_sha:
            return self._pack.read(sha)[1]
        stored = self._store.get(sha)
        # Gone since its kind was looked up; nothing of ours removes objects.
        if stored is None:
            _refuse(f"object {sha}", "is not stored any more")
        return stored[1]


def _refuse(owner: str, what: str, *subjects: str) -> NoReturn:
    raise InvalidBundle(f"{owner} {what}", subjects=subjects)
