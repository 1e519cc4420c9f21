"""None: no sandbox. A stranger's code runs as you, with your files and your network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from worker.sandbox.base import Limits, Sandbox
from worker.trainer import Command


class NoSandbox(Sandbox):
    kind: ClassVar[str] = "none"

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
        return Command(argv, cwd, env, tuple(pass_fds))
