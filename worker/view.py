"""View: what a worker tells. Outcomes go to standard output, everything else to standard error.

Text from the hub or a trainer is cleaned before it is shown.
"""

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from server import wire
from worker.lease import Lease
from worker.transcript import Progress, clean_line
from worker.verdict import Verdict

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

#: At most one plain progress line in so many seconds.
LINE_SECONDS = 10.0
FEED_SECONDS = 1.0
#: The phase in which a training has nothing new to tell.
SCORING = "scoring"


class PlainView:
    """One line per event: for logs, pipes and files."""

    def __init__(self, line_seconds: float = LINE_SECONDS) -> None:
        self._line_seconds = line_seconds
        self._next_line_at = 0.0
        self._phase = ""

    def note(self, text: str) -> None:
        write_line(sys.stderr, clean_line(text))

    def ready(self, text: str, **facts: Any) -> None:
        self.note(f"ready: {text}")

    def claimed(self, run: wire.Run) -> None:
        self._start()
        self.note(f"{_name(run)}  claimed: {run.kind}, attempt {run.attempt}, seed {run.seed}")

    def progress(self, run: wire.Run, last: Progress | None, lease: Lease, phase: str) -> None:
        if not self._is_due(last, phase):
            return
        said = f"{100 * last.fraction:.0f} %  {_describe(last)}" if last else ""
        self.note(f"{_name(run)}  {phase if phase == SCORING else said}")

    def finished(self, run: wire.Run, verdict: Verdict, seconds: float) -> None:
        said = verdict.description
        if verdict.val_bpb is not None:
            said = f"val_bpb {verdict.val_bpb:.4f}"
        line = f"{_name(run)}  {verdict.outcome}  {said}  in {seconds:.1f} s"
        write_line(sys.stdout, clean_line(line))

    def dropped(self, run: wire.Run, reason: str, *, fault: bool = False) -> None:
        self.note(f"{_name(run)}  given up: {reason}")

    def quarantined(self, reason: str) -> None:
        """Nothing will be claimed any more."""
        self.note(reason)

    def _start(self) -> None:
        self._next_line_at, self._phase = time.monotonic() + self._line_seconds, ""

    def _is_due(self, last: Progress | None, phase: str) -> bool:
        """Whether there is something to say: now and then, and when scoring begins."""
        now = time.monotonic()
        begins = phase == SCORING != self._phase
        self._phase = phase
        if not begins and (now < self._next_line_at or (last is None and phase != SCORING)):
            return False
        self._next_line_at = now + self._line_seconds
        return True


class JsonView(PlainView):
    """The same as one JSON object per line."""

    def __init__(self, device: str, line_seconds: float = LINE_SECONDS) -> None:
        super().__init__(line_seconds)
        self._device = device

    def note(self, text: str) -> None:
        self._tell(sys.stderr, "note", text=clean_line(text))

    def ready(self, text: str, **facts: Any) -> None:
        if self._device == "auto":
            self._device = facts["device"]
        self._tell(sys.stderr, "ready", **{**facts, "device": self._device})

    def claimed(self, run: wire.Run) -> None:
        self._start()
        facts = run.model_dump(include={"kind", "attempt", "seed", "track"})
        self._tell(sys.stderr, "claimed", run, **facts)

    def progress(self, run: wire.Run, last: Progress | None, lease: Lease, phase: str) -> None:
        if not self._is_due(last, phase):
            return
        facts: dict[str, Any] = {"phase": phase}
        if last is not None:
            facts |= {"step": last.step, "progress": last.fraction, "loss": last.loss}
            facts["tokens_per_second"] = last.tokens_per_second
        self._tell(sys.stderr, "progress", run, **facts)

    def finished(self, run: wire.Run, verdict: Verdict, seconds: float) -> None:
        facts: dict[str, Any] = {"outcome": verdict.outcome, "val_bpb": verdict.val_bpb}
        facts |= {"description": verdict.description, "seconds": round(seconds, 3)}
        self._tell(sys.stdout, "outcome", run, **facts, metrics=verdict.metrics)

    def dropped(self, run: wire.Run, reason: str, *, fault: bool = False) -> None:
        self._tell(sys.stderr, "given_up", run, reason=clean_line(reason), fault=fault)

    def quarantined(self, reason: str) -> None:
        self._tell(sys.stderr, "quarantined", reason=clean_line(reason))

    def _tell(self, out: TextIO, event: str, run: wire.Run | None = None, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        of = {"run": run.id, "commit": clean_line(run.commit)} if run else {}
        told = {"time": now, "device": self._device, "event": event, **of, **facts}
        write_line(out, json.dumps(told))


class LiveView(PlainView):
    """A terminal: the running training as one line that moves, outcomes above it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def claimed(self, run: wire.Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=1.0, name=_name(run), said="starting")
        self._bar.start()

    def progress(self, run: wire.Run, last: Progress | None, lease: Lease, phase: str) -> None:
        if self._bar is None or self._task is None:
            return
        said = [_describe(last)] if last else ["starting"]
        if phase == SCORING:
            said = [phase]
        if lease.age_seconds > 2 * lease.heartbeat_seconds:
            said.append(f"no word from the hub for {lease.age_seconds:.0f} s")
        done = last.fraction if last else 0.0
        self._bar.update(self._task, completed=done, said="  ".join(said))

    def finished(self, run: wire.Run, verdict: Verdict, seconds: float) -> None:
        self._stop()
        super().finished(run, verdict, seconds)

    def dropped(self, run: wire.Run, reason: str, *, fault: bool = False) -> None:
        self._stop()
        super().dropped(run, reason, fault=fault)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def open_view(log: str, device: str) -> PlainView:
    """By the kind of log; `feed` is the JSON that a supervisor shows on a terminal."""
    if log in ("json", "feed"):
        return JsonView(device, LINE_SECONDS if log == "json" else FEED_SECONDS)
    return LiveView() if sys.stderr.isatty() else PlainView()


def _name(run: wire.Run) -> str:
    return f"run {run.id}  {clean_line(run.commit, 12)}"


def _describe(last: Progress) -> str:
    said = [f"step {last.step}"]
    if last.loss is not None:
        said.append(f"loss {last.loss:.4f}")
    if last.tokens_per_second is not None:
        said.append(f"{last.tokens_per_second:,.0f} tok/s")
    return "  ".join(said)


def write_line(out: TextIO, line: str) -> None:
    """Write and flush a line; a reader that went away must not end a training."""
    try:
        out.write(f"{line}\n")
        out.flush()
    except OSError:
        pass
