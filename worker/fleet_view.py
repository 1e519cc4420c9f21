"""FleetView: what a supervisor shows of its members: a table on a terminal, else lines or JSON."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from worker.member import Member
from worker.transcript import clean_line
from worker.view import SCORING, write_line

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class FleetView:
    """One line per event, with the device before it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def tell(self, member: Member, event: dict[str, Any]) -> None:
        line = clean_line(f"{member.device}  {describe(event)}")
        write_line(sys.stdout if event.get("event") == "outcome" else sys.stderr, line)

    def show(self, members: Sequence[Member]) -> None:
        """Called a few times a second."""


class JsonFleetView(FleetView):
    def tell(self, member: Member, event: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **event, "device": member.device})
        write_line(sys.stdout if event.get("event") == "outcome" else sys.stderr, line)


class LiveFleetView(FleetView):
    """A row per member that moves; outcomes and what went wrong scroll by above."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = None

    def tell(self, member: Member, event: dict[str, Any]) -> None:
        if self._live is not None and event.get("event") not in ("progress", "claimed"):
            line = clean_line(f"{member.device}  {describe(event)}")
            self._live.console.print(line, markup=False, highlight=False)

    def show(self, members: Sequence[Member]) -> None:
        if self._live is not None:
            self._live.update(draw(members), refresh=True)


def open_fleet_view(log: str) -> tuple[FleetView, str]:
    """The view, and the kind of log that it needs of the members."""
    if log == "json":
        return JsonFleetView(), "json"
    return (LiveFleetView(), "feed") if sys.stderr.isatty() else (FleetView(), "json")


def describe(event: dict[str, Any]) -> str:
    """An event of a member in words."""
    told = {name: value for name, value in event.items() if value is not None}
    run = f"run {told.get('run')}  {str(told.get('commit', ''))[:12]}  "
    seconds = told.get("seconds", 0)
    match told.get("event"):
        case "ready":
            return f"ready: {told.get('worker')} on {told.get('hub')}, {told.get('platform')}"
        case "claimed":
            return f"{run}claimed: {told.get('kind')}, attempt {told.get('attempt')}"
        case "progress":
            if told.get("phase") == SCORING:
                return f"{run}scoring"
            return f"{run}{100 * told.get('progress', 0):.0f} %  step {told.get('step')}"
        case "outcome":
            score = told.get("val_bpb")
            said = told.get("description", "") if score is None else f"val_bpb {score:.4f}"
            return f"{run}{told.get('outcome')}  {said}  in {seconds:.1f} s"
        case "given_up":
            return f"{run}given up: {told.get('reason')}"
        case "quarantined":
            return f"quarantined: {told.get('reason')}"
        case "restarting":
            return f"ended with exit code {told.get('exit')}; starts again in {seconds:g} s"
        case "down":
            return f"down with exit code {told.get('exit')}: {told.get('reason')}"
    return str(told.get("text", ""))


def draw(members: Sequence[Member]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("device", "state", "run", "commit", "done", "tokens/s", "last result"):
        table.add_column(title, no_wrap=True)
    table.add_column("runs", justify="right")
    table.add_column("faults", justify="right")
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for member in members:
        one = member.story
        cells = [
            member.device,
            one.phase,
            "" if one.run is None else str(one.run),
            one.commit[:12] if one.run is not None else "",
            "" if one.progress is None else f"{100 * one.progress:.0f} %",
            "" if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}",
            one.result,
            str(one.done),
            str(one.faults),
            one.said if one.phase in ("quarantined", "refused", "down", "restarting") else "",
        ]
        table.add_row(*(Text(clean_line(cell)) for cell in cells))
    return table
