"""Surroundings: what runs could leave on this machine, looked at before and after."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.base import trainer_uid


@dataclass(frozen=True)
class Surroundings:
    """All that a run could leave on this machine."""

    processes: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    descriptors: tuple[str, ...]
    sockets: frozenset[str]

    @classmethod
    def look(cls, folder: Path) -> "Surroundings":
        return cls(
            processes=frozenset(_processes(folder)),
            mounts=frozenset(_mounts(folder)),
            files=frozenset(_files(folder)),
            descriptors=tuple(sorted(_descriptors())),
            sockets=frozenset(_listening()),
        )

    def left(self, folder: Path, seconds: float = 5) -> list[str]:
        """What is there now and was not before; the kernel is given a moment to tidy up."""
        until = time.monotonic() + seconds
        while (left := self._compare(folder)) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _compare(self, folder: Path) -> list[str]:
        now = Surroundings.look(folder)
        left = [f"process {name}" for name in now.processes - self.processes]
        left += [f"mount {line}" for line in now.mounts - self.mounts]
        left += [f"file {name}" for name in now.files - self.files]
        left += [f"socket {name}" for name in now.sockets - self.sockets]
        if now.descriptors != self.descriptors:
            left.append(f"descriptors {now.descriptors} instead of {self.descriptors}")
        return left


def _processes(folder: Path) -> Iterator[str]:
    """Those of a trainer's user id, those below us, and those that name our folder."""
    ours = trainer_uid()
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = (place / "stat").read_bytes().rpartition(b")")[2].split()
            parents[int(place.name)] = int(words[1])
            if words[0] == b"Z":
                continue
            told = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            is_ours = place.stat().st_uid == ours
            if is_ours or str(folder).encode() in told:
                yield place.name
    for pid in parents:
        above = pid
        while above > 1 and above != os.getpid():
            above = parents.get(above, 0)
        if above == os.getpid() and pid != above:
            yield str(pid)


def _mounts(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(folder) in line:
            yield line


def _files(folder: Path) -> Iterator[str]:
    yield from (str(path) for path in (folder / "cache" / "live").rglob("*"))
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        for path in Path(place).iterdir():
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == trainer_uid():
                    yield str(path)


def _descriptors() -> Iterator[str]:
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(number.readlink()).split(":")[0]


def _listening() -> Iterator[str]:
    """Unix sockets whose name tells that they are of a training."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        if "exploit" in line:
            yield line.split()[-1]
