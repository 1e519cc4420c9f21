"""Trainer: the untrusted process, its output and its end. The worker's only door to subprocess.

A trainer runs under a keeper (`keeper.py`) in its own session, and nothing of it outlives the
`with` block, nor the worker, however either ends.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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


class Trainer:
    """One running training; leaving the block kills whatever is left of it."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], transcript: Transcript
    ) -> None:
        self._transcript = transcript
        self._ended = threading.Event()
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), *command],
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise Fault(f"cannot start a trainer: {error}") from error
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
        try:
            self._keeper.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired as stuck:
            raise Fault("the trainer cannot be killed; it hangs in a driver") from stuck
        self._reader.join(KILL_SECONDS)

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


def capture(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a short command of our own; return its status, output and complaints.

    Raises OSError when it cannot be started.
    """
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def run_aloud(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a long command of our own; all it prints goes to standard error."""
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False
    )
    return done.returncode
