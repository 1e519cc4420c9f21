"""Maintenance: a thread beside the requests that keeps the repository small and quick to read.

It sleeps until enough was promoted, by any process; the work itself is `Upkeep`'s, and most of it
git's, in processes of low priority.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator

from server.leader import Leader
from server.repo import BareRepo, CGit, GitFailed, find_git

log = logging.getLogger("agenthub")

NO_GIT = "there is no git 2.32 or newer on the PATH: pushed objects stay loose files, never packed"
#: Seconds between two looks at what other processes promoted, and at who leads.
_LOOK_SECONDS = 1.0
# A hub that stops waits this long for its thread, whose git is killed by then.
_STOP_SECONDS = 2.0


class Maintenance:
    """Of one hub process; only the leading one's works."""

    def __init__(self, repo: BareRepo, pack_after: int, leader: Leader) -> None:
        self._repo = repo
        self._pack_after = pack_after
        self._leader = leader
        self._git: CGit | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._pack_after:
            self._git = find_git(self._repo.path)
            if self._git is None:
                log.warning(NO_GIT)
        self._thread = threading.Thread(target=self._watch, args=[self._git], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the work in progress; what it leaves half done, the next start finishes."""
        self._stopping.set()
        if self._git:
            self._git.stop()
        if self._thread:
            self._repo.promoted.set()
            self._thread.join(_STOP_SECONDS)

    def _watch(self, git: CGit | None) -> None:
        upkeep = self._repo.upkeep(git) if git else None
        # Known once this process leads.
        done: int | None = None
        while not self._stopping.is_set():
            with self._reporting():
                self._repo.settle()
            if upkeep and self._leader.is_me():
                if done is None:
                    with self._reporting():
                        done = self._repo.growth - upkeep.measure()
                if done is None or self._repo.growth - done >= self._pack_after:
                    # What comes while it runs counts for the next one; so does a failed one's rest.
                    done = self._repo.growth
                    with self._reporting():
                        upkeep.run(log.debug, wait=False)
            self._repo.promoted.wait(_LOOK_SECONDS)
            self._repo.promoted.clear()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (GitFailed, OSError) as error:
            if not self._stopping.is_set():
                log.error("maintenance failed and will be tried again: %s", error)
        except Exception:
            # The thread must live: without it the repository only grows.
            log.exception("maintenance failed and will be tried again")
