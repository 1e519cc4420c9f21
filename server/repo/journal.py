"""Journal: what small pushes bring, durable by one append, before it becomes loose objects.

A loose object is then written without waiting for the disk, which takes four or more waits for
the smallest push. Pushes that come together share one wait. After a crash the journal of the
process that died puts back what the file system had lost or torn. A segment goes once all in it
is durable as files or in packs.
"""

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from server.repo.refs import KeepRefs
from server.repo.store import Store, sync_file, sync_folder

# Pushes and bytes of a segment: what a start after a crash reads again is some of these.
_SEGMENT_PUSHES = 256
_SEGMENT_BYTES = 8 * 2**20
_NAME = "journal-"
_HEAD = struct.Struct(">II")
_COUNTS = struct.Struct(">II")
_OBJECT = struct.Struct(">20sI")


@dataclass(frozen=True, slots=True)
class Record:
    """One push: objects as their loose files hold them, what is referred to first, and tips."""

    objects: list[tuple[str, bytes]] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        parts = [_COUNTS.pack(len(self.objects), len(self.tips))]
        for sha, content in self.objects:
            parts += [_OBJECT.pack(bytes.fromhex(sha), len(content)), content]
        parts += [bytes.fromhex(tip) for tip in self.tips]
        body = b"".join(parts)
        return _HEAD.pack(len(body), zlib.crc32(body)) + body


class Segment:
    """One file of the journal, being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.pushes = 0
        self.size = 0
        #: Records whose files are not written yet.
        self.pending = 0

    @property
    def is_full(self) -> bool:
        return self.pushes >= _SEGMENT_PUSHES or self.size >= _SEGMENT_BYTES

    def append(self, data: bytes) -> None:
        if os.write(self._handle, data) != len(data):
            # What follows a torn record would not be read.
            os.ftruncate(self._handle, self.size)
            raise OSError(f"{self.path.name} could not be written whole")
        self.pushes += 1
        self.pending += 1
        self.size += len(data)

    def sync(self) -> None:
        os.fdatasync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


class Journal:
    """Of one process, in a folder of its own; safe with many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._segment: Segment | None = None
        self._full: list[Segment] = []
        self._opened = 0
        self._written = 0
        self._synced = 0
        self._failed = 0

    @contextmanager
    def holding(self, record: Record) -> Iterator[None]:
        """The record is durable before the block begins, and stays until the block has ended.

        Where the block fails it stays for good, for some of it may have a name already.
        """
        segment = self._append(record.to_bytes())
        yield
        with self._lock:
            segment.pending -= 1

    def take_full(self) -> list[Path]:
        """Segments that get no more records and whose files are all written."""
        with self._lock:
            ready = [segment.path for segment in self._full if not segment.pending]
            self._full = [segment for segment in self._full if segment.pending]
        return ready

    def finish(self) -> list[Path]:
        """As `take_full`, with the one being written."""
        with self._syncing, self._lock:
            self._roll()
        return self.take_full()

    def _append(self, data: bytes) -> Segment:
        with self._lock:
            segment = self._segment = self._segment or self._open()
            segment.append(data)
            self._written += 1
            number = self._written
        self._sync(number)
        return segment

    def _sync(self, number: int) -> None:
        with self._syncing:
            if self._failed >= number:
                raise OSError("what was pushed could not be made durable")
            with self._lock:
                segment, upto = self._segment, self._written
            if self._synced >= number or segment is None:
                return
            try:
                segment.sync()
            except OSError:
                # Asked again, the system might say yes for what it has lost.
                with self._lock:
                    self._failed = self._written
                    self._roll()
                raise
            self._synced = upto
            with self._lock:
                if segment.is_full and self._written == upto:
                    self._roll()

    def _open(self) -> Segment:
        self._opened += 1
        segment = Segment(self._folder / f"{_NAME}{self._opened}")
        sync_folder(self._folder)
        sync_folder(self._folder.parent)
        return segment

    def _roll(self) -> None:
        if self._segment:
            self._segment.close()
            self._full.append(self._segment)
            self._segment = None


def settle(segment: Path, store: Store, refs: KeepRefs) -> None:
    """Make what a segment holds durable as files, unless packs have it by now, and drop it."""
    records = list(read_records(segment))
    loose = [sha for record in records for sha, _ in record.objects if not store.is_packed(sha)]
    # A pack is whole on disk before it has its name; now the name is, too.
    sync_folder(store.pack_folder)
    folders = set()
    for path in map(store.loose_path, loose):
        with suppress(FileNotFoundError):
            sync_file(path)
            folders.add(path.parent)
    for tip in {tip for record in records for tip in record.tips}:
        refs.sync_one(tip)
    for folder in folders:
        with suppress(FileNotFoundError):
            sync_folder(folder)
    sync_folder(store.pack_folder.parent)
    refs.sync()
    segment.unlink()


def replay(segment: Path, store: Store, refs: KeepRefs) -> None:
    """Put back what a crash took or tore of a segment, and drop it; the rest is durable."""
    draft = segment.with_name("draft")
    draft.unlink(missing_ok=True)
    for record in read_records(segment):
        for sha, content in record.objects:
            if not store.is_packed(sha) and not store.is_loose(sha, content):
                store.write_loose(sha, content, draft)
                sync_file(store.loose_path(sha))
                sync_folder(store.loose_path(sha).parent)
        for tip in record.tips:
            refs.put_back(tip, draft)
    sync_folder(store.pack_folder.parent)
    refs.sync()
    segment.unlink()


def list_segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_NAME}*"), key=lambda path: int(path.name.removeprefix(_NAME)))


def read_records(path: Path) -> Iterator[Record]:
    """What a segment holds; it ends where a crash cut it, for that was never acknowledged."""
    data = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum or not size:
            return
        yield _read_record(body)
        at += _HEAD.size + size


def _read_record(body: bytes) -> Record:
    objects, tips = _COUNTS.unpack_from(body)
    record, at = Record(), _COUNTS.size
    for _ in range(objects):
        sha, size = _OBJECT.unpack_from(body, at)
        at += _OBJECT.size
        record.objects.append((sha.hex(), body[at : at + size]))
        at += size
    record.tips.extend(body[at + n * 20 : at + n * 20 + 20].hex() for n in range(tips))
    return record
