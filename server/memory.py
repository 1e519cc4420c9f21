"""Memory: what a process is done with goes back to the system.

`kept.py` bounds what a hub holds. Without this it would take twice as much: the C library keeps
what large answers leave behind, and pages of packs that were read count as the process's own.
"""

import ctypes
import threading
import time

from server.repo import BareRepo

#: Of glibc's `malloc.h`.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
#: Larger blocks are the system's own again as soon as they are freed.
_BLOCK_BYTES = 256 * 1024
#: Between two looks; and the CPU that the process had to take since, to be worth another one.
_LOOK_SECONDS, _WORK_SECONDS = 2.0, 0.1

_libc = ctypes.CDLL(None)


def bind_allocator() -> None:
    """Before there are threads. Of C libraries, only glibc has something to heed.

    As it comes, it makes eight heaps for each core, which threads fill by turns; and once a large
    block was freed, it takes others of its size from them, too, where they leave holes.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _BLOCK_BYTES)


class Trimmer:
    """A thread of one hub process."""

    def __init__(self, repo: BareRepo) -> None:
        self._repo = repo
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        trim = getattr(_libc, "malloc_trim", None)
        done = time.process_time()
        while not self._stopping.wait(_LOOK_SECONDS):
            if time.process_time() - done > _WORK_SECONDS:
                self._repo.let_go()
                if trim is not None:
                    trim(0)
                done = time.process_time()
