"""Landlock: one process that gave up files, network and signals; for where namespaces are barred.

It shares this machine's processes, memory and disk with everybody, so more is forbidden inside:
there are no sockets but pairs, and nothing that changes an owner, a mode or a time. What it does
not hide is told in docs/sandbox.md.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from worker.sandbox.base import Limits, Sandbox
from worker.sandbox.system import SYS, SYS_GPU
from worker.sandbox.withheld import open_around
from worker.trainer import Command, Guard

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
#: Of /proc only this much: other processes' folders hold their environment.
PROC = ("self", "cpuinfo", "meminfo", "stat", "version", "filesystems", "driver/nvidia")


class Landlock(Sandbox):
    kind: ClassVar[str] = "landlock"

    def obstacle(self) -> str:
        return "" if os.geteuid() else "it is no wall around root: start the worker as another user"

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
        limits = limits or self.limits
        shown = [*self.system.shown, *readable]
        listed = list[Path]()
        if self.system.withheld:
            shown, listed = open_around(shown, self.system.withheld)
        system = [*SYS, *(SYS_GPU if self.gpu.nodes else ()), *(f"/proc/{name}" for name in PROC)]
        rules = {
            "read": [*map(str, shown), *system],
            "listed": [*map(str, listed)],
            "write": [str(scratch)],
            "devices": [*DEVICES, *map(str, self.gpu.nodes)],
        }
        enter = self._enter(argv, scratch, cwd, env, limits, landlock=rules, init=False, own=False)
        scope = self.scope.argv(limits.memory_bytes, limits.processes) if self.scope else []
        guard = Guard(limits.memory_bytes, limits.wall_seconds, str(scratch), limits.scratch_bytes)
        outer = self.scope.environment if self.scope else {}
        return Command([*scope, *enter], Path("/"), outer, tuple(pass_fds), guard, enters=True)

    def _resource_limits(self, limits: Limits) -> dict[str, int]:
        # Processes are counted by user here, and a user may have others.
        processes = limits.processes + count_threads(os.geteuid())
        return super()._resource_limits(limits) | {"NPROC": processes}


def count_threads(uid: int) -> int:
    """Threads of a user, all over this machine."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == uid:
                found += sum(1 for _ in (process / "task").iterdir())
        except OSError:
            continue  # It ended meanwhile.
    return found
