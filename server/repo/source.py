"""A repository of somebody else's, read object by object: nothing in it is believed.

Every object is hashed as it is read, none is built past a cap, and where one copy is damaged the
others are tried. Git's own servers keep a pack for every push, so packs may be many.
"""

import struct
import zlib
from collections import OrderedDict
from pathlib import Path

from server.errors import HubError
from server.repo.caps import Caps
from server.repo.census import list_indexes, list_loose, read_index, read_refs
from server.repo.check import check_tag, read_links
from server.repo.pack import (
    COMMIT,
    KINDS,
    TAG,
    TREE,
    Entry,
    Object,
    PackError,
    hash_object,
    inflate,
    patch,
    read_delta_sizes,
)
from server.repo.store import EMPTY_TREE, CorruptRepo, Store, StoredPack

_OPEN_PACKS = 64
_DAMAGE = (
    PackError, zlib.error, ValueError, KeyError, AssertionError, LookupError, struct.error, OSError,
)  # fmt: skip


class Source(Store):
    """Not for several threads at once."""

    def __init__(self, path: Path, caps: Caps) -> None:
        super().__init__(path / "objects")
        self._caps = caps
        self._path = path
        self._open: OrderedDict[Path, StoredPack] = OrderedDict()
        self._indexes: list[Path] = []
        self._where: dict[str, Path] = dict.fromkeys(list_loose(path), path)
        #: Packs that cannot be read at all, and why.
        self.damaged: dict[str, str] = {}
        for index in list_indexes(path):
            self._add_pack(index)

    def objects(self) -> list[str]:
        return list(self._where)

    def refs(self) -> dict[str, str]:
        return read_refs(self._path)

    def find_packed(self, sha: str) -> None:
        """Nothing is copied from packs as it is."""

    def kind(self, sha: str) -> int | None:
        found = self.get(sha)
        return found[0] if found else None

    def get(self, sha: str) -> Object | None:
        """Raises CorruptRepo when there are copies and all are damaged."""
        if sha == EMPTY_TREE:
            return TREE, b""
        if sha not in self._where:
            return None
        places = dict.fromkeys([self._path, self._where[sha], *self._indexes])
        for place in places:
            try:
                found = self._loose(sha) if place == self._path else self._packed(sha, place)
            except _DAMAGE:
                continue
            if found and hash_object(*found) == sha:
                return found
        raise CorruptRepo(f"object {sha} is damaged or too large")

    def peel(self, sha: str) -> str:
        """The commit that an object names, through tags. Raises CorruptRepo, also for others."""
        found = self.get(sha)
        for _ in range(self._caps.tree_depth):
            if found is None:
                raise CorruptRepo(f"object {sha} is missing")
            if found[0] != TAG:
                break
            sha = _target(sha, found[1])
            found = self.get(sha)
        if not found or found[0] != COMMIT:
            raise CorruptRepo(f"{sha} is a {KINDS[found[0]] if found else 'tag'}, not a commit")
        return sha

    def parents(self, sha: str) -> tuple[str, ...]:
        """Raises CorruptRepo for what is no commit."""
        found = self.get(sha)
        if found is None or found[0] != COMMIT:
            raise CorruptRepo(f"commit {sha} is missing")
        return read_links(found[1]).parents

    def _add_pack(self, index: Path) -> None:
        try:
            for sha in read_index(index):
                self._where.setdefault(sha, index)
        except _DAMAGE as error:
            self.damaged[index.name] = str(error)
        else:
            self._indexes.append(index)

    def _pack(self, index: Path) -> StoredPack:
        pack = self._open.pop(index, None) or StoredPack(index)
        self._open[index] = pack
        if len(self._open) > _OPEN_PACKS:
            self._open.popitem(last=False)
        return pack

    def _loose(self, sha: str) -> Object | None:
        path = self.loose_path(sha)
        if not path.exists():
            return None
        inflater = zlib.decompressobj()
        content = inflater.decompress(path.read_bytes(), self._caps.blob_bytes + 64)
        kind, _, rest = content.partition(b" ")
        kinds = {name.encode(): number for number, name in KINDS.items()}
        return kinds[kind], rest[rest.index(b"\0") + 1 :]

    def _packed(self, sha: str, index: Path) -> Object | None:
        pack = self._pack(index)
        entry = pack.find(sha)
        return self._build(pack, entry) if entry else None

    def _build(self, pack: StoredPack, entry: Entry) -> Object:
        chain: list[Entry] = []
        while entry.is_delta:
            chain.append(entry)
            if len(chain) > self._caps.delta_depth:
                raise PackError("a chain of deltas has no end")
            entry = pack.base_of(entry)
        kind, content = entry.type, self._inflate(pack, entry)
        for delta in reversed(chain):
            change = self._inflate(pack, delta)
            if read_delta_sizes(change)[1] > self._caps.blob_bytes:
                raise PackError("an object is too large")
            content = patch(content, change)
        return kind, content

    def _inflate(self, pack: StoredPack, entry: Entry) -> bytes:
        if entry.size > self._caps.blob_bytes:
            raise PackError("an object is too large")
        return inflate(pack._data, entry, pack._stop)


def _target(sha: str, content: bytes) -> str:
    try:
        return check_tag(sha, content).target
    except HubError as error:
        raise CorruptRepo(error.message) from error
