"""Leader: which of the processes over one data directory does what only one should do.

The others ask again and again, so one of them takes over when the leader ends, however it ends.
"""

import fcntl
import threading
import weakref
from pathlib import Path
from typing import BinaryIO


class Leader:
    """One process's part in it; safe to ask from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Locked for as long as it is open; a crash lets go of it too.
        self._file: BinaryIO | None = None

    def is_me(self) -> bool:
        """Whether this process leads; it does from now on if no other one does."""
        with self._lock:
            if self._file is None and (file := _try_lock(self._path)):
                self._file = file
                weakref.finalize(self, file.close)
            return self._file is not None

    def resign(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _try_lock(path: Path) -> BinaryIO | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
