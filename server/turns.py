"""Whose turn it is to write: one transaction at a time, first come first served.

SQLite makes waiting writers poll, which starves some of them. So writers wait in front of it, the
threads of a process in a queue and the processes at two lock files: a process that wants to write
takes `next`, waits with it for `turn`, and lets go of `next` when it has that. Who just had its
turn finds `next` taken by the one that waits, and cannot be first again. The files decide
nothing else: without them the database still keeps two writers apart.
"""

import fcntl
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server import errors


class NoTurn(errors.Unavailable):
    """It did not come in time."""

    def __init__(self) -> None:
        super().__init__("too many writes are waiting", retry_after=5)


class Turns:
    """Of one process, at one database file; None for a database that brings its own queue."""

    def __init__(self, database: Path | None) -> None:
        self._queue = _Queue()
        self._door = _Door(database) if database is not None else None

    @contextmanager
    def take(self, seconds: float) -> Iterator[None]:
        """Hold the turn; raise NoTurn when this process's queue takes longer than that.

        Who is first in this queue waits for other processes as long as it takes: one that ends
        lets go. With 0 it is held only if nobody has it or waits for it.
        """
        if not self._queue.join(seconds):
            raise NoTurn
        try:
            if self._door is None:
                yield
            else:
                with self._door.inside(is_patient=seconds > 0):
                    yield
        finally:
            self._queue.leave()

    def close(self) -> None:
        if self._door is not None:
            self._door.close()


class _Queue:
    """A lock that is handed on in the order in which threads came."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def join(self, seconds: float) -> bool:
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return True
            if seconds <= 0:
                return False
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        if ticket.acquire(timeout=seconds):
            return True
        with self._guard:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return False
        return True  # It was called in the last moment.

    def leave(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


class _Door:
    """The two lock files. One thread at a time uses them: who is first in its process's queue."""

    def __init__(self, database: Path) -> None:
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "turn")]
        #: Opened by the first write: who only reads leaves no files behind.
        self._files: list[int] = []
        self._owner = 0

    @contextmanager
    def inside(self, *, is_patient: bool) -> Iterator[None]:
        how = fcntl.LOCK_EX if is_patient else fcntl.LOCK_EX | fcntl.LOCK_NB
        coming, turn = self._open()
        try:
            fcntl.flock(coming, how)
            try:
                fcntl.flock(turn, how)
            finally:
                fcntl.flock(coming, fcntl.LOCK_UN)
        except BlockingIOError as error:
            raise NoTurn from error
        try:
            yield
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)

    def close(self) -> None:
        self._owner = 0
        while self._files:
            os.close(self._files.pop())

    def _open(self) -> list[int]:
        # A fork shares its parent's open files, and with them what the parent has locked.
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in self._paths]
        return self._files
