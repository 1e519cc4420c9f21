"""Base: what every sandbox takes and gives, so that trainer and model server start alike."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from worker.sandbox.gpu import Gpu
from worker.sandbox.scope import Scope
from worker.sandbox.system import System
from worker.trainer import Command

ENTRY = Path(__file__).with_name("entry.py")
MIB, GIB = 2**20, 2**30
#: Root's trainings run as one of these, by the worker's process id: no system hands them out.
TRAINER_UIDS = range(60_706, 61_184)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may take. Only `none` has no limits."""

    memory_bytes: int
    #: Files a training writes live in memory: of its scratch, and of /dev/shm.
    scratch_bytes: int
    shm_bytes: int
    #: Of one file, descriptors passed in included.
    file_bytes: int
    #: Threads count too.
    processes: int = 2048
    open_files: int = 4096
    #: For the keeper, should the worker's own clock fail to end it.
    wall_seconds: float | None = None


def default_limits(memory_bytes: int | None = None) -> Limits:
    """Limits for one training; without a size, four fifths of this machine's memory."""
    memory = memory_bytes or machine_memory() * 4 // 5
    part = max(64 * MIB, min(4 * GIB, memory // 4))
    return Limits(memory, scratch_bytes=part, shm_bytes=part, file_bytes=4 * GIB)


def machine_memory() -> int:
    """Memory of this machine, or of the container that the worker is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            told = Path("/sys/fs/cgroup", name).read_text().strip()
        except OSError:
            continue
        if told.isdecimal():
            whole = min(whole, int(told))
    return whole


class Sandbox(ABC):
    """Starts untrusted programs. Inside, paths are the same as outside, as far as they exist."""

    kind: ClassVar[str]

    def __init__(self, system: System, gpu: Gpu, limits: Limits, scope: Scope | None) -> None:
        self.system, self.gpu, self.limits, self.scope = system, gpu, limits, scope

    @property
    def python(self) -> str:
        """The interpreter that can be started inside."""
        return self.system.python

    def obstacle(self) -> str:
        """Why it cannot work here, as far as that is told without trying; else empty."""
        return ""

    @abstractmethod
    def command(
        self,
        argv: Sequence[str],
        *,
        scratch: Path,
        cwd: Path,
        env: Mapping[str, str],
        readable: Sequence[Path] = (),
        pass_fds: Sequence[int] = (),
        limits: Limits | None = None,
    ) -> Command:
        """What a Trainer runs to have `argv` run inside, with exactly the environment `env`.

        The program sees a private copy of the folder `scratch`, which it may write to and which is
        gone with it, the files and folders of `readable`, and the descriptors `pass_fds` under
        their own numbers. Nothing that it writes elsewhere than to a descriptor comes out.
        """

    def _enter(
        self,
        argv: Sequence[str],
        scratch: Path,
        cwd: Path,
        env: Mapping[str, str],
        limits: Limits,
        **more: Any,
    ) -> list[str]:
        """The command line of `entry.py`, which becomes `argv`."""
        plan: dict[str, Any] = {
            "argv": list(argv),
            "env": {**env, **self.gpu.environment},
            "cwd": str(cwd),
            "scratch": str(scratch),
            "copy": None,
            "uid": trainer_uid(),
            "limits": self._resource_limits(limits),
            "landlock": None,
            "init": True,
            "own": True,
            "line": None,
            "memfd": self.scope is not None or bool(self.gpu.nodes),
        }
        return [self.python, "-I", "-S", "-B", str(ENTRY), json.dumps(plan | more)]

    def _resource_limits(self, limits: Limits) -> dict[str, int]:
        found = {
            "CORE": 0,
            "FSIZE": limits.file_bytes,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes,
        }
        if not self.gpu.nodes:  # CUDA maps far more than it uses.
            found["DATA"] = limits.memory_bytes
        return found


def trainer_uid() -> int | None:
    """Who root's trainings run as; None for all others, who stay who they are."""
    return None if os.geteuid() else TRAINER_UIDS[os.getpid() % len(TRAINER_UIDS)]
