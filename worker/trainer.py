"""Trainer: the untrusted process, its output and its end. The worker's door to subprocess.

A trainer runs under a keeper (`keeper.py`) in its own session, and nothing of it outlives the
`with` block, nor the worker, however either ends.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.transcript import Transcript

KEEPER = Path(__file__).with_name("keeper.py")
#: Between asking a trainer to end and killing it.
POLITE_SECONDS = 10.0
#: A process that does not die of SIGKILL hangs in a driver.
KILL_SECONDS = 30.0
TICK_SECONDS = 0.2


class Fault(Exception):
    """Something of ours failed, not the trained code; the run goes back to the queue."""


class Interrupted(Exception):
    """The training was stopped for a reason outside of it, which the message names."""


@dataclass(frozen=True, slots=True)
class Ended:
    #: As a shell tells it: 128 + N after signal N.
    status: int
    seconds: float
    timed_out: bool


@dataclass(frozen=True, slots=True)
class Guard:
    """What the keeper watches, from outside; it kills all at once when one is passed."""

    memory_bytes: int | None = None
    wall_seconds: float | None = None
    #: A folder on the disk, and how much may lie in it.
    folder: str = ""
    folder_bytes: int = 0
    #: Run by the keeper when nothing of the trainer is left.
    last: Sequence[str] = ()
    #: Removed by it then.
    files: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start; see `worker.sandbox.base`, which makes them."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    guard: Guard = field(default_factory=Guard)
    #: It says on READY_FD when the program is about to start, as sandbox/entry.py does.
    enters: bool = False
    #: A socket to make, over which it fetches its descriptors when they cannot be inherited.
    line: Path | None = None


class Line:
    """A socket that hands descriptors to the first that calls; its end tells them to end."""

    def __init__(self, path: Path, files: Sequence[int]) -> None:
        self._path = path
        self._numbers = json.dumps(list(files)).encode()
        self._files = [os.dup(file) for file in files]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(1)
        self._caller: socket.socket | None = None
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(KILL_SECONDS)
        for end in (self._socket, self._caller):
            if end:
                end.close()
        self._path.unlink(missing_ok=True)

    def _answer(self) -> None:
        try:
            with suppress(OSError):  # Nobody came.
                self._caller, _ = self._socket.accept()
                socket.send_fds(self._caller, [self._numbers], self._files)
        finally:
            for file in self._files:
                os.close(file)


class Trainer:
    """One running training; leaving the block kills whatever is left of it."""

    def __init__(self, command: Command, transcript: Transcript) -> None:
        self._transcript = transcript
        self._ended = threading.Event()
        self._enters, ready = os.pipe()
        os.set_blocking(self._enters, False)
        self._entered = b"" if command.enters else b"r"
        self._line = Line(command.line, [ready, *command.pass_fds]) if command.line else None
        try:
            self._keeper = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(KEEPER)),
                    *(json.dumps(asdict(command.guard)), *command.argv),
                ],
                cwd=command.cwd,
                env={**command.env, "READY_FD": str(ready)} if command.enters else command.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                pass_fds=(*command.pass_fds, ready) if command.enters else command.pass_fds,
            )
        except OSError as error:
            os.close(self._enters)
            raise Fault(f"cannot start a trainer: {error}") from error
        finally:
            os.close(ready)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cut_line()
        if self._line:
            self._line.close()
        self.kill()
        self._reader.join(KILL_SECONDS)
        if self._keeper.stdout is not None and not self._reader.is_alive():
            self._keeper.stdout.close()
        self._hear()
        os.close(self._enters)

    @property
    def is_ready(self) -> bool:
        """Whether the program was about to start; what ends before that is no fault of it."""
        self._hear()
        return self._entered == b"r"

    @property
    def is_too_big(self) -> bool:
        """Whether its files did not fit into the sandbox."""
        self._hear()
        return self._entered == b"f"

    def wait(self, seconds: float) -> int | None:
        """The exit status if it ends within so many seconds."""
        self._ended.wait(seconds)
        code = self._keeper.wait(1) if self._ended.is_set() else self._keeper.poll()
        return 128 - code if code is not None and code < 0 else code

    def ask_to_end(self) -> None:
        line = self._keeper.stdin
        if line is not None:
            with suppress(OSError):  # It may have ended already.
                line.write(b"t")

    def kill(self) -> None:
        """Return when it is dead, or raise Fault."""
        self._cut_line()
        try:
            self._keeper.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired as stuck:
            raise Fault("the trainer cannot be killed; it hangs in a driver") from stuck

    def _hear(self) -> None:
        if not self._entered:
            with suppress(OSError):
                self._entered = os.read(self._enters, 1)

    def _cut_line(self) -> None:
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()

    def _read(self) -> None:
        # The pipe ends when the keeper has ended, since the keeper holds it too.
        output = self._keeper.stdout
        while output is not None and (chunk := output.read(64 * 1024)):
            self._transcript.feed(chunk)
        self._transcript.close()
        self._ended.set()


def train(
    trainer: Trainer, deadline: float, interruption: Callable[[], str], tick: Callable[[], None]
) -> Ended:
    """Wait for the trainer's end, at most until `deadline` on the monotonic clock.

    Raises Interrupted as soon as `interruption` names a reason. Calls `tick` a few times a second.
    """
    started = time.monotonic()
    while (status := trainer.wait(TICK_SECONDS)) is None:
        if reason := interruption():
            raise Interrupted(reason)
        if time.monotonic() > deadline:
            trainer.ask_to_end()
            trainer.wait(POLITE_SECONDS)
            return Ended(-1, time.monotonic() - started, timed_out=True)
        tick()
    return Ended(status, time.monotonic() - started, timed_out=False)


def capture(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> tuple[int, str, str]:
    """Run a short command of our own; return its status, output and complaints.

    Raises OSError when it cannot be started, or takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        raise TimeoutError(f"{command[0]} did not end within {seconds} s") from late
    return done.returncode, done.stdout, done.stderr


def run_aloud(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a long command of our own; all it prints goes to standard error."""
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False
    )
    return done.returncode
