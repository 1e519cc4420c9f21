"""Mirror: every commit fetched so far, shared by all workers of one cache, up to a size.

    CACHE/mirror.git    the commits, each held by a ref
    CACHE/used/HASH     when a commit was needed last
    CACHE/mirror.lock   shared while a worker fetches and reads, exclusive while one evicts

When it has grown too large, the commits needed least recently go, half of them at a time. An
eviction waits for nobody: while another worker reads, it is left to the next one.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ah_cli import git
from worker.trainer import Fault

#: An eviction goes on until so much of the size is left.
ENOUGH = 0.8
_REFS = "refs/agenthub/"


class Mirror:
    def __init__(self, cache: Path, limit_bytes: int) -> None:
        self.path = cache / "mirror.git"
        self._limit_bytes = limit_bytes
        self._used = cache / "used"
        self._used.mkdir(exist_ok=True)
        self._lock_path = cache / "mirror.lock"

    def open(self) -> None:
        """Make it unless it is there; the caller holds the lock of the cache."""
        if not (self.path / "HEAD").exists():
            git.init(self.path, bare=True)

    @contextmanager
    def using(self, hash: str) -> Iterator[None]:
        """Nothing is evicted in here; the commit counts as needed now."""
        with self._locked(fcntl.LOCK_SH):
            (self._used / hash).touch()
            yield

    def has_commit(self, hash: str) -> bool:
        """Whether it is here, in which case it is held from now on."""
        if not git.has_commit(hash, self.path):
            return False
        git.keep(hash, self.path)
        return True

    def keep(self, hash: str) -> None:
        """Keep a commit that was fetched; raise Fault if it was not."""
        if not self.has_commit(hash):
            raise Fault(f"the hub's bundle does not hold {hash}")
        with suppress(git.GitError):
            # Each bundle is one pack; now and then git makes one of many.
            git.git("-c", "gc.autoDetach=false", "gc", "--auto", "--quiet", cwd=self.path)

    def trim(self) -> None:
        """Evict if it is too large and nobody uses it now."""
        if measure(self.path) <= self._limit_bytes:
            return
        with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._evict()

    def _evict(self) -> None:
        kept = self._list_by_use()
        try:
            while kept and measure(self.path) > ENOUGH * self._limit_bytes:
                kept, dropped = kept[: len(kept) // 2], kept[len(kept) // 2 :]
                self._drop(dropped)
        except git.GitError:
            kept = []  # A full disk, say, has no room to repack.
        if not kept:
            shutil.rmtree(self.path)
            self.open()

    def _list_by_use(self) -> list[str]:
        """Hashes of all that is held, the one needed last first."""
        listed = git.git("for-each-ref", "--format=%(refname)", _REFS, cwd=self.path)
        hashes = [name.removeprefix(_REFS) for name in listed.split()]
        return sorted(hashes, key=self._used_at, reverse=True)

    def _used_at(self, hash: str) -> float:
        try:
            return (self._used / hash).stat().st_mtime
        except OSError:
            return 0.0

    def _drop(self, hashes: list[str]) -> None:
        orders = "".join(f"delete {_REFS}{hash}\n" for hash in hashes)
        git.git("update-ref", "--stdin", cwd=self.path, stdin=orders)
        for hash in hashes:
            (self._used / hash).unlink(missing_ok=True)
        git.git("gc", "--prune=now", "--quiet", cwd=self.path)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, how)
            yield
        finally:
            os.close(file)


def measure(mirror: Path) -> int:
    """Bytes of all objects in it."""
    total = 0
    for folder, _, names in os.walk(mirror / "objects"):
        for name in names:
            with suppress(OSError):  # Git replaces files meanwhile.
                total += Path(folder, name).stat().st_size
    return total
