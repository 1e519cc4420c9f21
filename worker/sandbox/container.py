"""Container: podman or docker around this machine's own system, with an image that holds no file.

The image has links such as /lib and nothing else; programs and libraries are mounted read-only as
in bubblewrap, so nothing is pulled and the interpreter is the worker's. The engine's own process
starts the container, not ours: descriptors go in through a socket (`Command.line`), and when the
worker's end of it closes, the container's first process ends, and the container with it.
"""

import csv
import hashlib
import io
import os
import resource
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from worker.sandbox.base import ENTRY, Limits, Sandbox
from worker.sandbox.system import SYS_GPU, outermost
from worker.trainer import Command, Fault, Guard, capture

#: Where the scratch's original and the line to the worker lie inside.
ORIGINAL, LINE = "/.scratch", "/.line"
ROOT_NEEDS = ("SETUID", "SETGID", "CHOWN", "SETPCAP")
#: What a client needs to find its engine.
PASSED = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
PASSED_PREFIXES = ("DOCKER_", "CONTAINER_", "CONTAINERS_")
ENGINE_SECONDS = 60.0
#: Descriptors and processes before entry.py and `--pids-limit` allow fewer.
MOST = 32_768


class Container(Sandbox):
    engine: ClassVar[str]

    def obstacle(self) -> str:
        if shutil.which(self.engine) is None:
            return f"{self.engine} is not installed"
        try:
            status, _, complaint = capture([self.engine, "info"], _outer(), ENGINE_SECONDS)
        except OSError as error:
            return str(error)
        if status:
            return (complaint.strip().splitlines() or [f"{self.engine} info fails"])[-1]
        return ""

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
        image = self._image()
        name = f"agenthub-{uuid.uuid4().hex}"
        line = Path(tempfile.gettempdir(), name)
        enter = self._enter(argv, scratch, cwd, env, limits, copy=ORIGINAL, line=LINE)
        options = [
            *("--rm", "--pull", "never", "--name", name, "--hostname", "sandbox"),
            *self._isolate(limits),
            *self._mount([*readable], scratch, line, limits),
        ]
        run = [self.engine, "run", *options, "--entrypoint", enter[0], image, *enter[1:]]
        end = (self.engine, "rm", "--force", name)
        guard = Guard(wall_seconds=limits.wall_seconds, last=end, files=(str(line),))
        return Command(run, Path("/"), _outer(), tuple(pass_fds), guard, enters=True, line=line)

    def _isolate(self, limits: Limits) -> Iterator[str]:
        memory = str(limits.memory_bytes)
        yield from ("--network", "none", "--ipc", "private", "--read-only", "--log-driver", "none")
        yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        yield from ("--memory", memory, "--memory-swap", memory)
        yield from ("--pids-limit", str(limits.processes))
        # Engines set limits of their own, which may be more than they are allowed to.
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
            hard = resource.getrlimit(number)[1]
            most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
            yield from ("--ulimit", f"{name}={most}:{most}")
        yield from self._user()

    def _resource_limits(self, limits: Limits) -> dict[str, int]:
        # The engine counts processes by container, this one would by user.
        found = super()._resource_limits(limits)
        return {name: most for name, most in found.items() if name != "NPROC"}

    def _user(self) -> Iterator[str]:
        if os.geteuid():
            yield from ("--user", f"{os.geteuid()}:{os.getegid()}")
        else:
            yield from ("--user", "0:0")
            for needed in ROOT_NEEDS:
                yield from ("--cap-add", needed)

    def _mount(
        self, readable: Sequence[Path], scratch: Path, line: Path, limits: Limits
    ) -> Iterator[str]:
        for path in outermost([*self.system.shown, *readable, ENTRY]):
            yield from _bind(path, str(path))
        for withheld in self.system.withheld:  # Engines mount what lies deeper later.
            yield from _bind(withheld.mask, str(withheld.folder))
        for path in map(Path, SYS_GPU if self.gpu.nodes else ()):
            if path.exists():  # Counting cores and memory nodes works without: /sys is there.
                yield from _bind(path, str(path))
        yield from _bind(scratch, ORIGINAL)
        yield from _bind(line, LINE)
        for node in self.gpu.nodes:
            yield from ("--device", str(node))
        yield from ("--shm-size", str(limits.shm_bytes))
        for folder, size in (("/tmp", limits.shm_bytes), (scratch, limits.scratch_bytes)):  # noqa: S108
            yield from ("--tmpfs", f"{folder}:rw,nosuid,nodev,exec,mode=0777,size={size}")

    def _image(self) -> str:
        """The empty image, made if it is not there; raise Fault when that fails."""
        archive = _empty_root(self.system.links)
        name = f"localhost/agenthub-sandbox:{hashlib.sha256(archive).hexdigest()[:16]}"
        status, _, _ = capture([self.engine, "image", "inspect", name], _outer(), ENGINE_SECONDS)
        if not status:
            return name
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(archive)
            file.flush()
            made = [self.engine, "import", file.name, name]
            status, _, complaint = capture(made, _outer(), ENGINE_SECONDS)
        if status:
            raise Fault(f"{self.engine} cannot import an image: {complaint.strip()}")
        return name


class Podman(Container):
    kind: ClassVar[str] = "podman"
    engine: ClassVar[str] = "podman"

    def _isolate(self, limits: Limits) -> Iterator[str]:
        # Otherwise /run and /var/tmp could be filled.
        yield from super()._isolate(limits)
        yield "--read-only-tmpfs=false"

    def _user(self) -> Iterator[str]:
        # Rootless, the user is root inside unless told otherwise.
        if os.geteuid():
            yield from ("--userns", "keep-id")
        yield from super()._user()


class Docker(Container):
    kind: ClassVar[str] = "docker"
    engine: ClassVar[str] = "docker"


def _bind(source: Path, target: str) -> tuple[str, str]:
    # Fields are CSV: a path may hold commas and quotes.
    fields = ["type=bind", f"source={source}", f"target={target}", "readonly"]
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields)
    return ("--mount", row.getvalue())


def _empty_root(links: Sequence[tuple[Path, str]]) -> bytes:
    """A tar with the links of this system, the same bytes each time."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("dev", "proc", "sys", "tmp", "etc"):
            folder = tarfile.TarInfo(name)
            # A tmpfs takes the mode of the folder that it covers.
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for path, target in links:
            link = tarfile.TarInfo(str(path).lstrip("/"))
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(link)
    return file.getvalue()


def _outer() -> dict[str, str]:
    """Variables of the engine's client; the container sees none of them."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }
