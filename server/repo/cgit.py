"""C git, where it is installed: the hub's one door to processes. No request waits for it.

Git sees the repository's own settings and nothing of the machine's or the user's.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

#: `pack-objects --stdin-packs` came with it.
OLDEST = (2, 32)
_NICE = 10
_TIMEOUT_SECONDS = 6 * 3600
_SETTINGS = (
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    "gc.auto=0",
    "pack.packSizeLimit=0",
    "pack.threads=1",
    "pack.windowMemory=256m",
)


class GitFailed(RuntimeError):
    """Git did not do what it was asked: stopped, out of time, or a fault it names."""


class CGit:
    """Runs git in one repository, one command at a time, at low priority."""

    def __init__(self, program: str, repo: Path) -> None:
        self._command = [program, "--git-dir", str(repo)]
        for setting in _SETTINGS:
            self._command += ["-c", setting]
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, *args: str, given: bytes = b"", hold: Sequence[int] = ()) -> bytes:
        """Return what the command prints. It keeps the file descriptors `hold` open, and so the
        locks on them, even when the hub is killed before it ends. Raises GitFailed."""
        with self._lock:
            if self._is_stopped:
                raise GitFailed("the hub is stopping")
            self._running = process = subprocess.Popen(
                [*self._command, *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                pass_fds=hold,
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        return _finish(process, args[0], given)

    def stop(self) -> None:
        """Kill what is running and refuse to run more; for the end of the hub."""
        with self._lock:
            self._is_stopped = True
            if self._running:
                _kill(self._running)


def find_git(repo: Path) -> CGit | None:
    """Git for this repository, if it is on the PATH and not too old."""
    program = shutil.which("git")
    if not program:
        return None
    answer = subprocess.run(
        [program, "version"], env=environment(), capture_output=True, check=False, timeout=30
    )
    version = re.search(rb"(\d+)\.(\d+)", answer.stdout)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        return None
    return CGit(program, repo)


def environment() -> dict[str, str]:
    """Neither the operator's settings nor the language of the machine reach git."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _finish(process: subprocess.Popen[bytes], name: str, given: bytes) -> bytes:
    try:
        out, problem = process.communicate(given, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        raise GitFailed(f"git {name} took more than {_TIMEOUT_SECONDS} s") from None
    if process.returncode:
        said = problem.decode(errors="replace").strip() or f"ended with {process.returncode}"
        raise GitFailed(f"git {name}: {said}")
    return out


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
