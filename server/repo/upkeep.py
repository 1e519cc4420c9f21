"""Upkeep: loose objects become packs, small packs larger ones, refs few; nothing is ever dropped.

C git writes the new packs; this module decides what may go once they are durable. Killed at any
moment it leaves the repository whole: a pack comes before what it replaces goes, and all that a
run leaves half done the next one does again. Objects that no ref reaches stay too, because a push
in flight may build on them.
"""

import contextlib
import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from server.repo.cgit import CGit
from server.repo.refs import KeepRefs
from server.repo.store import StoredPack, sync_folder

#: What a pack costs its readers, in loose objects.
PACK_WEIGHT = 32
# Measured in docs/performance.md; a window this wide costs little on the few objects of one run.
_DELTAS = ("--window=250", "--depth=50")
# Up to so many objects a merge looks for better deltas; above, it keeps those there are.
_ANEW_OBJECTS = 1000
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_LOOSE = re.compile(r"[0-9a-f]{38}")
# What git leaves behind when it is killed.
_LITTER = (
    "packed-refs.lock",
    "packed-refs.new",
    "objects/??/tmp_obj_*",
    "objects/pack/tmp_*",
    "objects/pack/.tmp-*",
    "objects/info/commit-graph*.lock",
    "objects/info/commit-graphs/*.lock",
    "objects/info/commit-graphs/tmp_graph_*",
)

#: Told what was done, in words for the operator.
Report = Callable[[str], None]


class Upkeep:
    """Of one repository. `promoting` excludes promotes; it is held for moments only."""

    def __init__(
        self, path: Path, git: CGit, promoting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._path = path
        self._git = git
        self._promoting = promoting
        self._refs = KeepRefs(path)
        self._has_swept = False

    def measure(self) -> int:
        """How much there is to do: loose objects, and packs that should be merged."""
        counts = {path: len(StoredPack(path)) for path in list_packs(self._path)}
        loose = sum(1 for _ in list_loose(self._path))
        return loose + PACK_WEIGHT * len(choose_crowd(counts))

    def run(self, report: Report, *, wait: bool) -> bool:
        """Do all of it; False when another process is at it and we don't wait. Raises GitFailed."""
        with alone(self._path, wait) as lock:
            if lock is None:
                return False
            if not self._has_swept:
                self._sweep()
                self._has_swept = True
            report(f"{self._pack_loose(lock)} loose objects packed")
            report(f"{self._merge_packs(lock)} packs merged")
            report(f"{self._refs.tidy(self._git, lock)} refs tidied")
            if list_packs(self._path):
                self._run(lock, "commit-graph", "write", "--reachable", "--split", "--no-progress")
            report("commit graph written")
        return True

    def _sweep(self) -> None:
        for pattern in _LITTER:
            for path in self._path.glob(pattern):
                path.unlink(missing_ok=True)

    def _pack_loose(self, lock: int) -> int:
        # Packs count as durable from here on.
        sync_folder(self._path / "objects" / "pack")
        loose = dict(list_loose(self._path))
        packs = [StoredPack(path) for path in list_packs(self._path)]
        fresh = [sha for sha in loose if not any(pack.find(sha) for pack in packs)]
        if fresh:
            packs.append(self._write_pack(lock, "\n".join(fresh), *_DELTAS))
        # Not those that an operator's gc has taken away meanwhile.
        there = [pack for pack in reversed(packs) if pack.path.exists()]
        for sha, path in loose.items():
            if any(pack.find(sha) for pack in there):
                path.unlink(missing_ok=True)
        return len(loose)

    def _merge_packs(self, lock: int) -> int:
        packs = {path: StoredPack(path) for path in list_packs(self._path)}
        crowd = choose_crowd({path: len(pack) for path, pack in packs.items()})
        if not crowd:
            return 0
        names = "\n".join(path.with_suffix(".pack").name for path in crowd)
        olds = [packs[path] for path in crowd]
        count = sum(map(len, olds))
        anew = ["--no-reuse-delta"] if count <= _ANEW_OBJECTS else []
        merged = self._write_pack(lock, names, "--stdin-packs", *anew, *_DELTAS)
        if len(merged) != count and not all(
            merged.find(sha) for old in olds for sha in old.hashes()
        ):
            raise RuntimeError(f"{merged.path.name} lacks objects of the packs it was made from")
        # A promote of the very same pack may not find one half of it here.
        with self._promoting():
            self._remove([path for path in crowd if path != merged.path])
        return len(crowd)

    def _write_pack(self, lock: int, given: str, *options: str) -> StoredPack:
        folder = self._path / "objects" / "pack"
        name = self._run(
            lock, "pack-objects", "--quiet", *options, str(folder / "pack"), given=given
        )
        sync_folder(folder)
        return StoredPack(folder / f"pack-{name.decode().strip()}.idx")

    def _remove(self, packs: list[Path]) -> None:
        # An operator's, and it would name packs that are no more.
        for path in self._path.glob("objects/pack/multi-pack-index*"):
            path.unlink(missing_ok=True)
        for index in packs:
            # Without its index nobody looks at a pack.
            index.unlink(missing_ok=True)
            for path in index.parent.glob(f"{index.stem}.*"):
                path.unlink(missing_ok=True)

    def _run(self, lock: int, *args: str, given: str = "") -> bytes:
        return self._git.run(*args, given=given.encode(), hold=[lock])


@contextlib.contextmanager
def alone(path: Path, wait: bool) -> Iterator[int | None]:
    """Hold the lock of a repository's upkeep; None when it is taken and we don't wait.

    It is free again when the last git has ended that a killed hub left running.
    """
    with (path / "upkeep.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def choose_crowd(counts: dict[Path, int]) -> list[Path]:
    """The packs to merge, so that each that stays holds twice what all smaller ones hold."""
    crowd, held = 0, 0
    order = sorted(counts, key=lambda path: counts[path])
    for at, path in enumerate(order):
        if at and counts[path] < 2 * held:
            crowd = at + 1
        held += counts[path]
    return order[:crowd]


def list_packs(path: Path) -> list[Path]:
    """Indexes of the packs that may be changed: those that nobody marked with a `.keep` file."""
    indexes = (path / "objects" / "pack").glob("pack-*.idx")
    return [
        index
        for index in indexes
        if index.with_suffix(".pack").exists() and not index.with_suffix(".keep").exists()
    ]


def list_loose(path: Path) -> Iterator[tuple[str, Path]]:
    for folder in (path / "objects").iterdir():
        if _FAN_OUT.fullmatch(folder.name):
            with contextlib.suppress(FileNotFoundError):
                for file in folder.iterdir():
                    if _LOOSE.fullmatch(file.name):
                        yield folder.name + file.name, file
