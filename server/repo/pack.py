"""Packs: a bounded reader of git's pack format, thin or whole, hostile or our own.

Nothing is inflated past its declared size, no size is believed before it is compared with the
caps, and no more than a cache's worth of objects is held in memory at once.
"""

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Generic, TypeVar

from dulwich.errors import ApplyDeltaError
from dulwich.pack import apply_delta

from server.errors import TooLarge
from server.repo.caps import Caps

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
OFS_DELTA, REF_DELTA = 6, 7
KINDS = {COMMIT: "commit", TREE: "tree", BLOB: "blob", TAG: "tag"}

HEADER_BYTES = 12
TRAILER_BYTES = 20
# The smallest entry: a byte of header and an empty deflate stream.
_ENTRY_BYTES = 9
_FEED_BYTES = 64 * 1024
# Inflated entries kept from the first reading for the second, and objects kept as delta bases.
_KEPT_BYTES = 16 * 2**20
_CACHE_BYTES = 64 * 2**20
# Bytes that deltas may read and write in all, in multiples of the inflated cap.
_WORK_FACTOR = 4
# What an object in a cache costs beside its bytes.
_HELD_BYTES = 200

#: Kind and content.
Object = tuple[int, bytes]
Data = bytes | mmap
Key = TypeVar("Key")


class PackError(Exception):
    """The bytes are no pack, or not one that can be read whole."""


@dataclass(slots=True)
class Entry:
    """One object in a pack. `kind`, `sha` and `length` of a delta are known once its base is."""

    offset: int
    body: int
    type: int
    size: int
    base_offset: int = 0
    base_sha: str = ""
    end: int = 0
    kind: int = 0
    sha: str = ""
    length: int = 0
    depth: int = 0
    #: Its base is not in this pack; decided once, so that no cycle can arise later.
    is_thin: bool = False

    @property
    def is_delta(self) -> bool:
        return self.type >= OFS_DELTA


class Cache(Generic[Key]):
    """The objects used last, up to a number of bytes. Not for several threads at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._objects: OrderedDict[Key, Object] = OrderedDict()

    def get(self, key: Key) -> Object | None:
        found = self._objects.get(key)
        if found:
            self._objects.move_to_end(key)
        return found

    def put(self, key: Key, value: Object) -> None:
        if key in self._objects:
            return
        self._objects[key] = value
        self._held += len(value[1]) + _HELD_BYTES
        while self._held > self._limit and len(self._objects) > 1:
            _, (_, data) = self._objects.popitem(last=False)
            self._held -= len(data) + _HELD_BYTES


def hash_object(kind: int, data: bytes) -> str:
    digest = hashlib.sha1(f"{KINDS[kind]} {len(data)}\0".encode(), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def read_entry(data: Data, offset: int, stop: int) -> Entry:
    """Read the header of the entry at an offset; its `end` stays unknown."""
    byte, at = _byte(data, offset, stop)
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        byte, at = _byte(data, at, stop)
        size |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise PackError(f"the entry at byte {offset} has an impossible size")
    entry = Entry(offset, at, kind, size)
    if kind == OFS_DELTA:
        distance, entry.body = _read_distance(data, at, stop)
        entry.base_offset = offset - distance
        if distance <= 0 or entry.base_offset < 0:
            raise PackError(f"the delta at byte {offset} has a base outside the pack")
    elif kind == REF_DELTA:
        entry.base_sha, entry.body = data[at : at + 20].hex(), at + 20
    elif kind not in KINDS:
        raise PackError(f"the entry at byte {offset} is of an unknown type {kind}")
    return entry


def _byte(data: Data, at: int, stop: int) -> tuple[int, int]:
    if at >= stop:
        raise PackError("the pack is cut short")
    return data[at], at + 1


def _read_distance(data: Data, at: int, stop: int) -> tuple[int, int]:
    byte, at = _byte(data, at, stop)
    distance = byte & 0x7F
    while byte & 0x80:
        byte, at = _byte(data, at, stop)
        distance = (distance + 1 << 7) | (byte & 0x7F)
        if distance > 1 << 62:
            raise PackError("a delta has an impossible base offset")
    return distance, at


def inflate(data: Data, entry: Entry, stop: int) -> bytes:
    """Inflate exactly the declared size and set the entry's `end`."""
    inflater = zlib.decompressobj()
    parts: list[bytes] = []
    # One byte more than declared shows that there is more.
    room = entry.size + 1
    at, feed = entry.body, min(entry.size + 64, _FEED_BYTES)
    try:
        while not inflater.eof and room:
            if at >= stop:
                raise PackError("the pack is cut short")
            chunk = data[at : min(at + feed, stop)]
            at += len(chunk)
            part = inflater.decompress(chunk, room)
            room -= len(part)
            parts.append(part)
            feed = _FEED_BYTES
    except zlib.error as error:
        raise PackError(f"the entry at byte {entry.offset} does not inflate") from error
    if room != 1:
        raise PackError(f"the entry at byte {entry.offset} is not as large as it says")
    entry.end = at - len(inflater.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_delta_sizes(delta: bytes) -> tuple[int, int]:
    """The sizes that a delta says its base and its result have."""
    base, at = _read_size(delta, 0)
    result, _ = _read_size(delta, at)
    return base, result


def _read_size(delta: bytes, at: int) -> tuple[int, int]:
    size = shift = 0
    byte = 0x80
    while byte & 0x80:
        if at >= len(delta) or shift > 63:
            raise PackError("a delta does not say how large it is")
        byte = delta[at]
        size |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return size, at


def patch(base: bytes, delta: bytes) -> bytes:
    # dulwich allocates the result's declared size, so callers compare that with a cap first.
    try:
        return b"".join(apply_delta(base, delta))
    except (ApplyDeltaError, ValueError, IndexError, AssertionError) as error:
        raise PackError(f"a delta does not fit its base: {error}") from error


def check_trailer(data: Data, start: int) -> None:
    """Compare a pack, which ends where the data ends, with its own checksum."""
    stop = len(data) - TRAILER_BYTES
    digest = hashlib.sha1(usedforsecurity=False)
    for at in range(start, stop, 2**20):
        digest.update(data[at : min(at + 2**20, stop)])
    if stop < start + HEADER_BYTES or digest.digest() != data[stop:]:
        raise PackError("the pack's checksum is wrong: it was cut or damaged on its way")


class IncomingPack:
    """A pack as somebody sent it: read twice, first for its sizes, then for its objects."""

    def __init__(
        self, data: Data, start: int, caps: Caps, on_growth: Callable[[int], None]
    ) -> None:
        """`on_growth` is told the inflated bytes so far, before they are inflated."""
        self._data = data
        self._caps = caps
        self._start = start
        self._on_growth = on_growth
        self._stop = len(data) - TRAILER_BYTES
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._cache: Cache[int] = Cache(_CACHE_BYTES)
        self._external: Callable[[str], Object | None] = lambda _: None
        self._work = 0
        self.entries: list[Entry] = []
        self.by_sha: dict[str, Entry] = {}
        self._by_offset: dict[int, Entry] = {}
        self._inflated_bytes = 0
        self._scan()

    def packed(self, entry: Entry) -> bytes:
        """The entry's deflated bytes as they were sent."""
        return self._data[entry.body : entry.end]

    def read(self, sha: str) -> Object:
        return self._object(self.by_sha[sha])

    def _scan(self) -> None:
        count = self._read_count()
        at = self._start + HEADER_BYTES
        for _ in range(count):
            entry = read_entry(self._data, at, self._stop)
            self._grow(entry.offset, entry.size)
            content = inflate(self._data, entry, self._stop)
            if entry.is_delta:
                self._grow(entry.offset, read_delta_sizes(content)[1])
            self._keep(entry, content)
            self.entries.append(entry)
            self._by_offset[entry.offset] = entry
            at = entry.end
        if at != self._stop:
            raise PackError(f"the pack has {self._stop - at} bytes too many at its end")

    def _read_count(self) -> int:
        head = self._data[self._start : self._start + HEADER_BYTES]
        if len(head) < HEADER_BYTES or self._stop < self._start + HEADER_BYTES:
            raise PackError("the pack is cut short")
        if head[:8] != b"PACK\0\0\0\2":
            raise PackError("what follows the bundle's header is not a pack of version 2")
        count = int.from_bytes(head[8:])
        if count > self._caps.objects:
            raise TooLarge(
                f"the pack holds {count} objects, at most {self._caps.objects} are taken",
                "push the history in several steps",
            )
        if count * _ENTRY_BYTES > self._stop - self._start:
            raise PackError(f"the pack is cut short: it says it holds {count} objects")
        return count

    def _grow(self, offset: int, size: int) -> None:
        if size > self._caps.blob_bytes:
            raise TooLarge(
                f"the object at byte {offset} of the pack would have {size} bytes, "
                f"at most {self._caps.blob_bytes} are taken",
                "keep large files out of the repository",
            )
        self._inflated_bytes += size
        if self._inflated_bytes > self._caps.inflated_bytes:
            raise TooLarge(
                f"the pack inflates to more than {self._caps.inflated_bytes} bytes",
                "push the history in several steps",
            )
        self._on_growth(self._inflated_bytes)

    def _keep(self, entry: Entry, content: bytes) -> None:
        if self._kept_bytes + len(content) <= _KEPT_BYTES:
            self._kept[entry.offset] = content
            self._kept_bytes += len(content)

    def resolve(self, external: Callable[[str], Object | None]) -> Iterator[tuple[Entry, bytes]]:
        """Every object once, bases first; `external` finds the bases of a thin pack."""
        self._external = external
        waiting: dict[int | str, list[Entry]] = {}
        for entry in self.entries:
            if entry.is_delta:
                waiting.setdefault(entry.base_sha or entry.base_offset, []).append(entry)
        for entry in self.entries:
            if not entry.is_delta:
                yield from self._family(entry, waiting)
        for base in [key for key in waiting if isinstance(key, str)]:
            if base in waiting and external(base):
                for entry in waiting.pop(base):
                    yield from self._family(entry, waiting)
        for key in waiting:
            what = f"object {key}" if isinstance(key, str) else f"an entry at byte {key}"
            raise PackError(f"a delta needs {what}, which neither the bundle nor the hub has")

    def _family(
        self, root: Entry, waiting: dict[int | str, list[Entry]]
    ) -> Iterator[tuple[Entry, bytes]]:
        stack = [root]
        while stack:
            entry = stack.pop()
            self._place(entry)
            entry.kind, content = self._object(entry)
            entry.sha, entry.length = hash_object(entry.kind, content), len(content)
            if entry.sha in self.by_sha:
                raise PackError(f"{KINDS[entry.kind]} {entry.sha} is in the pack twice")
            self.by_sha[entry.sha] = entry
            yield entry, content
            stack += waiting.pop(entry.offset, ())
            stack += waiting.pop(entry.sha, ())

    def _place(self, entry: Entry) -> None:
        if not entry.is_delta:
            return
        entry.is_thin = bool(entry.base_sha) and entry.base_sha not in self.by_sha
        base = None if entry.is_thin else self.base_of(entry)
        entry.depth = base.depth + 1 if base else 1
        if entry.depth > self._caps.delta_depth:
            raise PackError(f"a chain of deltas is longer than {self._caps.delta_depth}")

    def base_of(self, entry: Entry) -> Entry:
        if entry.base_sha:
            return self.by_sha[entry.base_sha]
        return self._by_offset[entry.base_offset]

    def _object(self, entry: Entry) -> Object:
        """Build an object from the nearest ancestor in its chain that is at hand."""
        chain: list[Entry] = []
        while not (found := self._cache.get(entry.offset)):
            if not entry.is_delta:
                found = entry.type, self._content(entry)
                self._cache.put(entry.offset, found)
                break
            chain.append(entry)
            if entry.is_thin:
                found = self._external(entry.base_sha)
                break
            entry = self.base_of(entry)
        if not found:
            raise PackError(f"object {entry.base_sha} has gone")
        for delta in reversed(chain):
            found = found[0], self._patch(found[1], self._content(delta))
            self._cache.put(delta.offset, found)
        return found

    def _content(self, entry: Entry) -> bytes:
        kept = self._kept.pop(entry.offset, None)
        if kept is not None:
            self._kept_bytes -= len(kept)
            return kept
        self._charge(entry.size)
        return inflate(self._data, entry, self._stop)

    def _patch(self, base: bytes, delta: bytes) -> bytes:
        base_size, size = read_delta_sizes(delta)
        if base_size != len(base):
            raise PackError("a delta does not fit its base: their sizes differ")
        self._charge(size)
        return patch(base, delta)

    def _charge(self, size: int) -> None:
        # Only a pack made for it needs objects built again and again.
        self._work += size
        if self._work > self._caps.inflated_bytes * _WORK_FACTOR:
            raise TooLarge("the pack's deltas are too tangled to be unpacked")
