"""Fleet: one worker process per GPU under one supervisor, which this process becomes.

A member that ends for a passing reason is started again after a pause that grows; one that was
refused or has quarantined itself stays down, with its reason shown. The first SIGTERM or Ctrl-C
drains all, the second kills them.
"""

import selectors
import signal
import time
from collections.abc import Sequence
from types import FrameType

from worker.exits import Exit
from worker.fleet_view import FleetView
from worker.member import Member

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
#: A member that lived so long starts with the short pause again.
STEADY_SECONDS = 120.0
TICK_SECONDS = 0.25
#: Between the second Ctrl-C and SIGKILL.
KILL_SECONDS = 5.0
#: A restart would change nothing.
FINAL = (Exit.DONE, Exit.QUARANTINED, Exit.REFUSED)


class Fleet:
    def __init__(self, devices: Sequence[str], log: str, view: FleetView, memory: str = "") -> None:
        self._members = [Member(device, log, memory) for device in devices]
        self._view = view
        self._selector = selectors.DefaultSelector()
        #: How long each waits for its next restart, and until when it waits now.
        self._pauses = dict.fromkeys(devices, FIRST_PAUSE_SECONDS)
        self._due = dict.fromkeys(devices, 0.0)
        self._signals: list[int] = []
        self._passed_on = 0
        self._kill_at: float | None = None

    def supervise(self) -> int:
        """Run until all members are done or down; return the exit code of the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        with self._view:
            while any(member.ended is None for member in self._members):
                self._pass_on()
                for member in self._members:
                    self._look_after(member, time.monotonic())
                for key, _ in self._selector.select(TICK_SECONDS):
                    self._hear(key.data)
                self._view.show(self._members)
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return worst([member.ended or 0 for member in self._members])

    def _look_after(self, member: Member, now: float) -> None:
        if member.process is None:
            if member.ended is None and now >= self._due[member.device]:
                member.start()
                self._selector.register(member.pipe, selectors.EVENT_READ, member)
        elif (code := member.poll()) is not None:
            self._selector.unregister(member.pipe)
            self._hear(member)
            member.close()
            self._decide(member, code, now)

    def _decide(self, member: Member, code: int, now: float) -> None:
        """Whether a member that ended comes back."""
        if self._signals and code == 128 + signal.SIGTERM:
            code = Exit.DONE  # The drain came before it had begun.
        if code in FINAL or self._signals:
            member.down(code)
            reason = member.story.said if code else "done"
            self._view.tell(member, {"event": "down", "exit": code, "reason": reason})
            return
        if now - member.started_at >= STEADY_SECONDS:
            self._pauses[member.device] = FIRST_PAUSE_SECONDS
        pause = self._pauses[member.device]
        self._pauses[member.device] = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._due[member.device] = now + pause
        member.story.phase = "restarting"
        self._view.tell(member, {"event": "restarting", "exit": code, "seconds": pause})

    def _hear(self, member: Member) -> None:
        for event in member.read():
            self._view.tell(member, event)

    def _pass_on(self) -> None:
        """Act on signals that came since the last look."""
        while self._passed_on < len(self._signals):
            self._passed_on += 1
            for member in self._members:
                member.signal(signal.SIGTERM)
                if member.process is None and member.ended is None:
                    member.down(Exit.DONE)
            if self._passed_on > 1:
                self._kill_at = time.monotonic() + KILL_SECONDS
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            for member in self._members:
                member.signal(signal.SIGKILL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)


def worst(codes: Sequence[int]) -> int:
    """The exit code of a whole fleet: what needs a human counts more than what was done."""
    return next((code for code in (Exit.QUARANTINED, Exit.REFUSED) if code in codes), max(codes))
