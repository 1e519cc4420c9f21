"""Bubblewrap: namespaces made by `bwrap`, from this machine's own system, without an image."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from worker.sandbox.base import ENTRY, GIB, Limits, Sandbox
from worker.sandbox.system import SYS, SYS_GPU, outermost
from worker.trainer import Command, Guard

#: Where the scratch's original lies inside, for the copy that is made of it.
ORIGINAL = "/.scratch"
#: What entry.py needs as root, before it becomes somebody else.
ROOT_NEEDS = ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_SETPCAP")


class Bubblewrap(Sandbox):
    kind: ClassVar[str] = "bubblewrap"

    def obstacle(self) -> str:
        return "" if shutil.which("bwrap") else "bwrap is not installed"

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
        enter = self._enter(argv, scratch, cwd, env, limits, copy=ORIGINAL)
        scope = self.scope.argv(limits.memory_bytes, limits.processes) if self.scope else []
        view = [*self._isolate(), *self._show(scratch, readable, limits)]
        return Command(
            [*scope, "bwrap", *view, "--", *enter],
            cwd=Path("/"),
            env=self._environment(),
            pass_fds=tuple(pass_fds),
            guard=Guard(limits.memory_bytes, limits.wall_seconds),
            enters=True,
        )

    def _environment(self) -> dict[str, str]:
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        return path | (self.scope.environment if self.scope else {})

    def _isolate(self) -> Iterator[str]:
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts")
        yield from ("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1")
        yield from ("--hostname", "sandbox", "--cap-drop", "ALL")
        if os.geteuid():
            yield "--unshare-user"
        else:
            for needed in ROOT_NEEDS:
                yield from ("--cap-add", needed)

    def _show(self, scratch: Path, readable: Sequence[Path], limits: Limits) -> Iterator[str]:
        """The arguments that build its file system, in their order."""
        yield from _tmpfs("/tmp", limits.shm_bytes)  # noqa: S108
        for path, target in self.system.links:
            yield from ("--symlink", target, str(path))
        shown = outermost([*self.system.shown, *readable])
        for folder in _parents([*shown, ENTRY, scratch]):
            yield from ("--perms", "0755", "--dir", folder)
        for path in shown:
            yield from ("--ro-bind", str(path), str(path))
        for withheld in self.system.withheld:
            yield from ("--ro-bind", str(withheld.mask), str(withheld.folder))
        for name in SYS_GPU if self.gpu.nodes else SYS:
            yield from ("--ro-bind-try", name, name)
        yield from ("--proc", "/proc", "--dev", "/dev")
        for node in self.gpu.nodes:
            yield from ("--dev-bind", str(node), str(node))
        yield from ("--ro-bind", str(ENTRY), str(ENTRY))
        yield from ("--ro-bind", str(scratch), ORIGINAL)
        # Whatever is not named here cannot be written, the empty folders between included.
        yield from _tmpfs("/dev/shm", limits.shm_bytes)  # noqa: S108
        yield from _tmpfs(str(scratch), limits.scratch_bytes)
        yield from ("--remount-ro", "/dev", "--remount-ro", "/")


def _parents(paths: Iterable[Path]) -> list[str]:
    """Left to itself, bwrap makes folders that only their owner may enter."""
    parents = {parent for path in paths for parent in path.parents}
    return [str(parent) for parent in sorted(parents) if str(parent) not in ("/", "/tmp")]  # noqa: S108


def _tmpfs(path: str, size: int) -> tuple[str, ...]:
    return ("--perms", "0777", "--size", str(min(size, 64 * GIB)), "--tmpfs", path)
