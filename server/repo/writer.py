"""Writing packs: entries copied as they are or made anew, and the index beside them."""

import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

from dulwich.pack import write_pack_index_v2

from server.repo.pack import OFS_DELTA, REF_DELTA

_COPY_BYTES = 0xFFFF


class PackWriter:
    """Appends a pack of a known number of objects to a file. Bases go before their deltas."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._size = 0
        self._left = count
        self.offsets: dict[str, int] = {}
        self._index: list[tuple[bytes, int, int]] = []
        self._write(b"PACK\0\0\0\2" + count.to_bytes(4))

    def add(self, sha: str, kind: int, size: int, packed: bytes) -> None:
        """Add a whole object, `packed` being its deflated content of `size` bytes."""
        self._add(sha, _entry_header(kind, size) + packed)

    def add_delta(self, sha: str, base: str, size: int, packed: bytes) -> None:
        """Add a delta of `size` bytes; a base that is not in this pack makes the pack thin."""
        # Offsets wherever possible: git before 2.50 fails on chains of named bases when the
        # reader already has an object in their middle.
        at = self.offsets.get(base)
        if at is None:
            head = _entry_header(REF_DELTA, size) + bytes.fromhex(base)
        else:
            head = _entry_header(OFS_DELTA, size) + _distance(self._size - at)
        self._add(sha, head + packed)

    def finish(self) -> bytes:
        """Write the trailer and return the pack's checksum."""
        if self._left:
            raise RuntimeError(f"{self._left} objects of the pack are missing")
        self._file.write(self._digest.digest())
        return self._digest.digest()

    def write_index(self, path: Path) -> None:
        with path.open("wb") as file:
            write_pack_index_v2(file, sorted(self._index), self._digest.digest())

    def _add(self, sha: str, entry: bytes) -> None:
        self.offsets[sha] = self._size
        self._index.append((bytes.fromhex(sha), self._size, zlib.crc32(entry)))
        self._write(entry)
        self._left -= 1

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def _entry_header(kind: int, size: int) -> bytes:
    head = bytearray()
    byte, size = kind << 4 | size & 15, size >> 4
    while size:
        head.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    head.append(byte)
    return bytes(head)


def _distance(distance: int) -> bytes:
    out = bytearray([distance & 0x7F])
    while distance := distance >> 7:
        distance -= 1
        out.append(distance & 0x7F | 0x80)
    out.reverse()
    return bytes(out)


def write_delta(base_size: int, size: int, ops: list[tuple[int, int] | bytes]) -> bytes:
    """Encode a delta of (offset, length) copies from the base and literal bytes."""
    out = bytearray(_delta_size(base_size) + _delta_size(size))
    for op in ops:
        if isinstance(op, bytes):
            for at in range(0, len(op), 127):
                part = op[at : at + 127]
                out.append(len(part))
                out += part
        else:
            offset, length = op
            while length > 0:
                out += _copy(offset, min(length, _COPY_BYTES))
                offset += _COPY_BYTES
                length -= _COPY_BYTES
    return bytes(out)


def _delta_size(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def _copy(offset: int, length: int) -> bytes:
    op, out = 0x80, bytearray()
    for bit, byte in enumerate(offset.to_bytes(4, "little") + length.to_bytes(2, "little")):
        if byte:
            op |= 1 << bit
            out.append(byte)
    return bytes([op]) + bytes(out)
