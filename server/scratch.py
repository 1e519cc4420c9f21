"""Scratch: a folder of one process's own, gone with it; the next one sweeps what a crash left."""

import fcntl
import os
import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

_LOCK = "lock"


class Scratch:
    """An empty folder below `parent`, which several processes may share."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (parent / _LOCK).open("ab") as turn:
            # Nobody sweeps a folder between its making and its lock.
            fcntl.flock(turn, fcntl.LOCK_EX)
            for folder in parent.iterdir():
                if folder.is_dir() and _is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            self.path = Path(mkdtemp(dir=parent))
            # Held for as long as this object lives; a crash lets go of it.
            lock = (self.path / _LOCK).open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX)
        self._leave = weakref.finalize(self, _leave, self.path, lock, os.getpid())

    def close(self) -> None:
        self._leave()


def _leave(folder: Path, lock: BinaryIO, owner: int) -> None:
    # A forked child ends with its parent's folder still in use.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        # In use, or none of ours.
        return False
    return True
