"""Gate: hands the training tokens over when the clock starts, and takes checkpoints back.

The other end is untrusted. It says `r` (ready), which starts the clock once; `t` (trained);
`s` (saved) with a descriptor, whose content is copied at once: what is kept was there in time, and
nobody can change it any more. Copies are sealed memory, or files without a name where there is no
such thing.
"""

import fcntl
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

CHECKPOINT_BYTES = 2_000_000_000
#: A checkpoint may come so long after the budget: the last step, and saving. Part and seconds.
LATE_PART, LATE_SECONDS = 0.01, 2.0
_BLOCK = 1024 * 1024


class Gate:
    """One training's line to the worker; `trainer_end` is for it to inherit."""

    def __init__(self, tokens: "Tokens", budget_seconds: float) -> None:
        self.budget_seconds = budget_seconds
        self.ready_at: float | None = None
        self.trained_at: float | None = None
        self.saved_at: float | None = None
        #: The last one that came in time.
        self.checkpoint: int | None = None
        #: Why the last one was not taken.
        self.refused = ""
        self._tokens = tokens
        self._ours, self.trainer_end = socket.socketpair()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    @property
    def allowance_seconds(self) -> float:
        return max(LATE_SECONDS, LATE_PART * self.budget_seconds)

    def close(self) -> None:
        """Hear what was said up to now, then end; the checkpoint stays open."""
        self.trainer_end.close()
        self._thread.join(1.0)  # At the end of what was sent, if no one else holds the other end.
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._ours.close()

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                word, files, _, _ = socket.recv_fds(self._ours, 1, 1)
                now = time.monotonic()
                try:
                    if not word:
                        return
                    self._hear(word, files, now)
                finally:
                    for file in files:
                        os.close(file)

    def _hear(self, word: bytes, files: list[int], now: float) -> None:
        if word == b"r" and self.ready_at is None:
            self.ready_at = now
            head = json.dumps({"tokens": self._tokens.counts}).encode() + b"\n"
            file = self._tokens.open()
            try:
                socket.send_fds(self._ours, [head], [file])
            finally:
                os.close(file)
        elif word == b"t":
            self.trained_at = now
        elif word == b"s":
            self.refused = self._take(files, now)
            self._ours.sendall(json.dumps({"refused": self.refused}).encode() + b"\n")

    def _take(self, files: list[int], now: float) -> str:
        """Keep a checkpoint; return why not."""
        if self.ready_at is None:
            return "it came before the training tokens were asked for"
        late = now - self.ready_at - self.budget_seconds
        if late > self.allowance_seconds:
            return (
                f"it came {late:.1f} s after the budget of {self.budget_seconds:g} s was used up "
                f"({self.allowance_seconds:g} s are allowed)"
            )
        if not files or not stat.S_ISREG(os.fstat(files[0]).st_mode):
            return "it is not a plain file"
        size = os.fstat(files[0]).st_size
        if not 8 < size <= CHECKPOINT_BYTES:
            return f"it has {size} bytes; {CHECKPOINT_BYTES} at most are taken"
        kept = copy_sealed(files[0], size)
        if self.checkpoint is not None:
            os.close(self.checkpoint)
        self.checkpoint, self.saved_at = kept, now
        return ""


class Tokens:
    """The training tokens of one worker, in memory nobody can change: made once, used by all runs.

    Sealed memory rather than a file: who owns a file may open it for writing through a descriptor
    that was passed for reading, and without a sandbox the trainer is who owns it.
    """

    def __init__(self, arrays: Sequence[Path]) -> None:
        self.counts: list[int] = []
        self._file = _make()
        for path in arrays:
            with path.open("rb") as array:
                _skip_header(array.fileno())
                self.counts.append(_copy(array.fileno(), self._file) // 2)
        seal(self._file)

    def close(self) -> None:
        os.close(self._file)

    def open(self) -> int:
        """A descriptor of its own for each run: a shared one would share its position."""
        return reopen(self._file)


def copy_sealed(source: int, size: int) -> int:
    """A copy of the first `size` bytes that nobody can change, open for reading."""
    file = _make()
    os.lseek(source, 0, os.SEEK_SET)
    _copy(source, file, size)
    seal(file)
    return file


def seal(file: int) -> None:
    if sys.platform == "linux":
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)


def reopen(file: int) -> int:
    if sys.platform == "linux":
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    return os.dup(file)


def _make() -> int:
    if sys.platform == "linux":
        return os.memfd_create("agenthub", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _copy(source: int, to: int, size: int | None = None) -> int:
    copied = 0
    while size is None or copied < size:
        block = os.read(source, _BLOCK if size is None else min(_BLOCK, size - copied))
        if not block:
            break
        view = memoryview(block)
        while view:
            view = view[os.write(to, view) :]
        copied += len(block)
    return copied


def _skip_header(file: int) -> None:
    """Of an .npy file of version 1: ten bytes, the last two of which tell how much follows."""
    start = os.read(file, 10)
    if start[:7] != b"\x93NUMPY\x01":
        raise ValueError("no .npy file of version 1")
    os.lseek(file, 10 + int.from_bytes(start[8:10], "little"), os.SEEK_SET)
