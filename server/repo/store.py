"""Objects on disk: reading loose files and packs, and writing both durably.

Small pushes become loose objects, so that packs do not pile up; larger ones become one pack of
the entries as they were sent, because deflating them again costs more than checking them.
"""

import contextlib
import itertools
import os
import struct
import sys
import threading
import time
import weakref
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path

from dulwich.object_format import SHA1
from dulwich.objects import RawObjectID
from dulwich.pack import PackIndex, load_pack_index

from server.kept import Shelf
from server.repo.pack import (
    KINDS,
    TRAILER_BYTES,
    TREE,
    Entry,
    Object,
    PackError,
    inflate,
    patch,
    read_delta_sizes,
    read_entry,
)

#: Git knows this one without a file, so bundles may come without it.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_KIND_OF = {name.encode(): kind for kind, name in KINDS.items()}
# Objects whose kind is remembered, about 150 bytes each.
_KINDS_MAX = 20_000
# A directory changed this shortly before it was listed may change again within one clock tick.
_TICK_NS = 50_000_000
# An index without its pack, as a killed git may leave it, must not be looked for forever.
_LOOKS_MAX = 5
# Keys of the cache: unlike id() never used again.
_SERIALS = itertools.count()

#: By the pack's serial and the entry's offset.
Objects = Shelf[tuple[int, int], Object]
#: Offsets of a pack's entries in their order, and where in the index each one is. Arrays: as a
#: list of pairs a pack of 3 million objects took 450 MB.
Order = tuple["array[int]", "array[int]"]


class CorruptRepo(RuntimeError):
    """An object that was stored cannot be read: a fault of the hub's disk, not of a client."""


def map_file(path: Path) -> mmap:
    """Map a whole file; an empty one raises ValueError."""
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


class StoredPack:
    """One pack of the repository and its index; may be read by several threads."""

    def __init__(self, index_path: Path) -> None:
        self.path = index_path
        self._data = map_file(index_path.with_suffix(".pack"))
        self._index: PackIndex = load_pack_index(index_path, object_format=SHA1)
        self._stop = len(self._data) - TRAILER_BYTES
        self._order: Order | None = None
        self._ordering = threading.Lock()
        # Threads may still read a pack that is listed no more, so the last one closes it.
        weakref.finalize(self, self._index.close)
        self._serial = next(_SERIALS)

    def __len__(self) -> int:
        return len(self._index)

    def hashes(self) -> Iterator[str]:
        return (sha.hex() for sha, _, _ in self._index.iterentries())

    def let_go(self) -> None:
        for mapped in (self._data, getattr(self._index, "_contents", None)):
            if isinstance(mapped, mmap):
                # Closed meanwhile, it holds nothing either.
                with contextlib.suppress(ValueError):
                    mapped.madvise(MADV_DONTNEED)

    def find(self, sha: str) -> Entry | None:
        try:
            offset = self._index.object_offset(RawObjectID(bytes.fromhex(sha)))
        except KeyError:
            return None
        return self._entry(offset)

    def read(self, entry: Entry, cache: Objects) -> Object:
        chain: list[Entry] = []
        while not (found := cache.get((self._serial, entry.offset))):
            if not entry.is_delta:
                found = entry.type, inflate(self._data, entry, self._stop)
                break
            chain.append(entry)
            entry = self.base_of(entry)
        for delta in reversed(chain):
            found = found[0], patch(found[1], inflate(self._data, delta, self._stop))
            cache.put((self._serial, delta.offset), found)
        return found

    def kind(self, entry: Entry) -> int:
        while entry.is_delta:
            entry = self.base_of(entry)
        return entry.type

    def size(self, entry: Entry) -> int:
        if not entry.is_delta:
            return entry.size
        return read_delta_sizes(inflate(self._data, entry, self._stop))[1]

    def packed(self, entry: Entry) -> bytes:
        offsets, _ = self._by_offset()
        after = bisect_right(offsets, entry.offset)
        end = offsets[after] if after < len(offsets) else self._stop
        return self._data[entry.body : end]

    def base_sha(self, entry: Entry) -> str:
        """The hash of a delta's base."""
        if entry.base_sha:
            return entry.base_sha
        offsets, places = self._by_offset()
        at = bisect_left(offsets, entry.base_offset)
        if at == len(offsets) or offsets[at] != entry.base_offset:
            raise PackError(f"no entry at byte {entry.base_offset}")
        return self._index.object_sha_at_position(places[at]).hex()

    def base_of(self, entry: Entry) -> Entry:
        if not entry.base_sha:
            return self._entry(entry.base_offset)
        base = self.find(entry.base_sha)
        if base is None:
            raise PackError(f"object {entry.base_sha} is not in the pack")
        return base

    def _entry(self, offset: int) -> Entry:
        return read_entry(self._data, offset, self._stop)

    def _by_offset(self) -> Order:
        with self._ordering:
            if self._order is None:
                offsets = array("Q", (entry[1] for entry in self._index.iterentries()))
                places = array("I", sorted(range(len(offsets)), key=offsets.__getitem__))
                self._order = array("Q", map(offsets.__getitem__, places)), places
            return self._order


def _weigh(found: Object) -> int:
    return sys.getsizeof(found[1])


class Store:
    """The repository's `objects` folder. Presence of an object implies that of all it refers to.

    That holds because `promote` is the only one to add objects, it adds only what `stage` found
    closed, and it makes each object durable before any object that refers to it has a name.
    `Upkeep` moves objects from file to pack and from pack to pack, and removes none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packs: dict[str, StoredPack] = {}
        self._listed_ns = 0
        self._lock = threading.Lock()
        self._cache: Objects = Shelf(_weigh)
        self._kinds: dict[str, int] = {}

    def loose_path(self, sha: str) -> Path:
        return self._folder / sha[:2] / sha[2:]

    @property
    def pack_folder(self) -> Path:
        return self._folder / "pack"

    def get(self, sha: str) -> Object | None:
        if sha == EMPTY_TREE:
            return TREE, b""
        with _reading(sha):
            for _ in self._attempts():
                if loose := self._read_loose(sha):
                    return loose
                if found := self.find_packed(sha):
                    pack, entry = found
                    return pack.read(entry, self._cache)
        return None

    def kind(self, sha: str) -> int | None:
        """The kind of a stored object, None when it is not there."""
        if known := self._kinds.get(sha):
            return known
        with _reading(sha):
            for _ in self._attempts():
                kind = self._stat(sha)[0]
                if kind:
                    self._remember(sha, kind)
                    return kind
        return None

    def size(self, sha: str) -> int:
        with _reading(sha):
            for _ in self._attempts():
                kind, size = self._stat(sha)
                if kind:
                    return size
        return 0

    def is_packed(self, sha: str) -> bool:
        """Whether one of the packs that are there now has it."""
        self._list_packs()
        return self.find_packed(sha) is not None

    def is_loose(self, sha: str, content: bytes) -> bool:
        """Whether its loose file is there and has just these bytes."""
        with contextlib.suppress(FileNotFoundError):
            return self.loose_path(sha).read_bytes() == content
        return False

    def write_loose(self, sha: str, content: bytes, draft: Path) -> None:
        """Give an object its file, in one step for every reader; not durable by itself."""
        path = self.loose_path(sha)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        try:
            draft.rename(path)
        except FileNotFoundError:
            # Not there yet, or emptied and removed by an operator's git.
            path.parent.mkdir(exist_ok=True)
            draft.rename(path)

    def let_go(self) -> None:
        """Have pages of packs that were read no longer count as this process's memory.

        They stay in the system's, which has them for all processes.
        """
        for pack in tuple(self._packs.values()):
            pack.let_go()

    def find_packed(self, sha: str) -> tuple[StoredPack, Entry] | None:
        for pack in tuple(self._packs.values()):
            if entry := pack.find(sha):
                return pack, entry
        return None

    def _stat(self, sha: str) -> tuple[int, int]:
        try:
            with self.loose_path(sha).open("rb") as file:
                head = zlib.decompressobj().decompress(file.read(128), 64)
        except FileNotFoundError:
            found = self.find_packed(sha)
            return (found[0].kind(found[1]), found[0].size(found[1])) if found else (0, 0)
        kind, size = head[: head.index(b"\0")].split(b" ")
        return _KIND_OF[kind], int(size)

    def _read_loose(self, sha: str) -> Object | None:
        try:
            content = zlib.decompress(self.loose_path(sha).read_bytes())
        except FileNotFoundError:
            return None
        end = content.index(b"\0")
        return _KIND_OF[content[:end].split(b" ")[0]], content[end + 1 :]

    def _remember(self, sha: str, kind: int) -> None:
        if len(self._kinds) >= _KINDS_MAX:
            self._kinds = {}
        self._kinds[sha] = kind

    def _attempts(self) -> Iterator[None]:
        # A maintenance may move an object from file to pack between our two looks; only a list
        # of packs that did not change meanwhile makes a miss certain.
        seen: dict[str, StoredPack] | None = None
        while seen is not self._packs:
            seen = self._packs
            yield
            self._list_packs()

    def _list_packs(self) -> None:
        with self._lock:
            try:
                changed_ns = self.pack_folder.stat().st_mtime_ns
            except FileNotFoundError:
                return
            if changed_ns + _TICK_NS < self._listed_ns:
                return
            self._listed_ns = time.time_ns()
            packs = self._open_packs()
            if packs.keys() != self._packs.keys():
                self._packs = packs

    def _open_packs(self) -> dict[str, StoredPack]:
        # A pack that goes while we look has been replaced by one that we may not have seen.
        for _ in range(_LOOKS_MAX):
            packs, is_whole = {}, True
            changed_ns = self.pack_folder.stat().st_mtime_ns
            for path in self.pack_folder.glob("pack-*.idx"):
                try:
                    packs[path.name] = self._packs.get(path.name) or StoredPack(path)
                except FileNotFoundError:
                    is_whole = False
            if is_whole and self.pack_folder.stat().st_mtime_ns == changed_ns:
                break
        return packs


@contextlib.contextmanager
def _reading(sha: str) -> Iterator[None]:
    try:
        yield
    except (PackError, zlib.error, ValueError, KeyError, AssertionError, struct.error) as error:
        raise CorruptRepo(f"object {sha} of the repository cannot be read: {error}") from error


def deflate_loose(kind: int, content: bytes) -> bytes:
    # Level 1: two thirds of the time of a small push is here at git's own level.
    return zlib.compress(f"{KINDS[kind]} {len(content)}\0".encode() + content, 1)


def sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


#: A directory's names are made durable the same way.
sync_folder = sync_file
