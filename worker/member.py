"""Member: one worker process of a fleet, and what it has told of itself.

It is this very program again, for one device, with its story as JSON lines in a pipe. It has a
session of its own, so Ctrl-C reaches it only through the supervisor; if that is killed, the kernel
tells the member to drain.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from worker.exits import Exit
from worker.keeper import PR_SET_PDEATHSIG, prctl

#: Tells a member the process id of its supervisor.
SUPERVISOR = "AGENTHUB_SUPERVISOR"
#: Longest line that is read; what a trainer says never comes through here.
LINE_BYTES = 256 * 1024


def obey_supervisor() -> None:
    """In a member: drain when the supervisor dies, however it does."""
    told = os.environ.pop(SUPERVISOR, None)
    if told is None:
        return
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(told):
        os.kill(os.getpid(), signal.SIGTERM)  # It died before we could say so.


@dataclass
class Story:
    """What is to be seen of a member, from the events it told."""

    phase: str = "starting"
    run: int | None = None
    commit: str = ""
    progress: float | None = None
    tokens_per_second: float | None = None
    #: The last outcome, e.g. `ok 1.2345`.
    result: str = ""
    done: int = 0
    faults: int = 0
    #: Its last words; why it is down, if it is.
    said: str = ""

    def hear(self, told: dict[str, Any]) -> None:
        match told.get("event"):
            case "ready":
                self.phase = "idle"
            case "claimed":
                self.phase, self.run, self.progress = "starting", told.get("run"), None
                self.commit, self.tokens_per_second = str(told.get("commit", "")), None
            case "progress":
                self.phase = str(told.get("phase") or "training")
                self.progress = told.get("progress") if self.phase == "training" else None
                self.tokens_per_second = told.get("tokens_per_second")
            case "outcome":
                score = told.get("val_bpb")
                self.result = f"{told.get('outcome')}" + (f" {score:.4f}" if score else "")
                self.phase, self.run, self.progress = "idle", None, None
                self.done += 1
            case "given_up":
                self.phase, self.run, self.progress = "idle", None, None
                self.faults += bool(told.get("fault"))
                self.said = str(told.get("reason", ""))
            case "quarantined":
                self.said = str(told.get("reason", ""))
            case "note":
                self.said = str(told.get("text", ""))


@dataclass
class Member:
    device: str
    log: str
    #: Of one training, as `--memory` takes it; empty means what the command line says.
    memory: str = ""
    story: Story = field(default_factory=Story)
    #: How it ended; None while it runs or waits for its restart.
    ended: int | None = None
    started_at: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    #: Becomes readable when it tells something, and when it has ended.
    pipe: int = -1
    _rest: bytes = b""

    def start(self) -> None:
        # The last one counts of an option that is given twice.
        own = ["--gpus", "", "--device", self.device, "--log", self.log]
        own += ["--memory", self.memory] if self.memory else []
        self.pipe, theirs = os.pipe()
        os.set_blocking(self.pipe, False)
        self.process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:], *own],
            env={**os.environ, SUPERVISOR: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.started_at, self._rest = time.monotonic(), b""
        self.story.phase = "starting"

    def close(self) -> None:
        """After its end: what it told is read, nothing else is of use."""
        os.close(self.pipe)
        self.process = None

    def read(self) -> list[dict[str, Any]]:
        """The events told since the last call."""
        told = bytearray(self._rest)
        with suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 64 * 1024):
                told += chunk
        *lines, rest = bytes(told).split(b"\n")
        self._rest = rest[:LINE_BYTES]
        events = [_parse(line) for line in lines if line.strip()]
        for event in events:
            self.story.hear(event)
        return events

    def poll(self) -> int | None:
        """Its exit code once it has ended, as a shell tells it."""
        code = self.process.poll() if self.process is not None else None
        return 128 - code if code is not None and code < 0 else code

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def down(self, code: int) -> None:
        """It is not to be started again."""
        self.ended = code
        words = {Exit.DONE: "done", Exit.QUARANTINED: "quarantined", Exit.REFUSED: "refused"}
        self.story.phase = words.get(Exit(code), "down") if code in set(Exit) else "down"


def _parse(line: bytes) -> dict[str, Any]:
    """An event; words that are none, such as a traceback's, become a note."""
    text = line.decode(errors="replace")
    with suppress(ValueError):
        told = json.loads(text)
        if isinstance(told, dict):
            return told
    return {"event": "note", "text": text}
