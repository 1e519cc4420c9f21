"""What a human sees while the demo runs: the frontier, the runs with their bars, the best score."""

from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire


@dataclass
class Snapshot:
    """The hub at one moment."""

    leaves: list[wire.Commit] = field(default_factory=list)
    runs: list[wire.Run] = field(default_factory=list)
    entries: list[wire.LeaderboardEntry] = field(default_factory=list)
    results: list[wire.Result] = field(default_factory=list)
    posts: list[wire.Post] = field(default_factory=list)


def look(hub: HubClient, last: Snapshot) -> Snapshot:
    """A fresh snapshot, or the last one when the hub does not answer just now."""
    try:
        boards = hub.leaderboard()
        channels = {channel.name for channel in hub.channels()}
        return Snapshot(
            leaves=hub.leaves(),
            runs=hub.runs(limit=50),
            entries=boards[0].entries if boards else [],
            results=hub.results(limit=1000),
            posts=hub.posts("discussion", limit=6) if "discussion" in channels else [],
        )
    except (ApiError, HubUnreachable):
        return last


def render(url: str, now: Snapshot) -> RenderableType:
    return Group(
        _headline(url, now),
        Panel(_runs(now), title="runs", title_align="left"),
        Panel(_frontier(now), title="frontier", title_align="left"),
        Panel(_board(now), title="#discussion", title_align="left"),
        Text("Ctrl-C ends everything", style="dim"),
    )


def _headline(url: str, now: Snapshot) -> Text:
    line = Text.assemble(("AgentHub  ", "bold"), (url, "underline"))
    if now.entries:
        best, first = now.entries[0], now.results[-1]
        line.append(f"   best val_bpb {best.val_bpb:.4f}", "bold green")
        if first.val_bpb is not None:
            line.append(f"  ({first.val_bpb - best.val_bpb:.4f} below the baseline)")
    return line.append(f"   {len(now.results)} results")


def _runs(now: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    about = {leaf.hash: f"{leaf.agent_id}: {leaf.message}" for leaf in now.leaves}
    about |= {entry.commit: f"{entry.agent_id}: {entry.message}" for entry in now.entries}
    for run in now.runs[:6]:
        done = 1.0 if run.state is wire.RunState.FINISHED else run.progress or 0.0
        score = f"{run.val_bpb:.4f}" if run.val_bpb is not None else run.outcome or run.state
        is_live = run.state is wire.RunState.RUNNING and run.loss is not None
        loss = f"step {run.step}  loss {run.loss:.3f}" if is_live else ""
        bar = ProgressBar(total=1.0, completed=done, width=24)
        what = Text(about.get(run.commit, ""))
        table.add_row(f"#{run.id}", run.commit[:12], bar, score, what, Text(loss, style="dim"))
    return table if now.runs else Text("the worker is starting", style="dim")


def _frontier(now: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for leaf in now.leaves[:8]:
        score = f"{leaf.best.val_bpb:.4f}" if leaf.best else "-"
        table.add_row(leaf.hash[:12], score, leaf.agent_id, Text(leaf.message))
    return table


def _board(now: Snapshot) -> RenderableType:
    lines = [Text(f"{post.agent_id}: {post.content}") for post in reversed(now.posts)]
    return Group(*lines) if lines else Text("nothing yet", style="dim")


class Plain:
    """For pipes and logs: one line for each thing that is new."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told: set[str] = set()

    def show(self, now: Snapshot) -> None:
        for run in reversed(now.runs):
            if run.state is wire.RunState.RUNNING:
                self._tell(f"run {run.id}.{run.attempt}", f"training {run.commit[:12]}")
        for result in reversed(now.results):
            score = f"val_bpb {result.val_bpb:.6f}" if result.val_bpb is not None else ""
            what = f"{result.commit[:12]} {result.outcome} {score} {result.status}"
            self._tell(f"result {result.id}", f"{what}  by {result.agent_id}")
        for post in reversed(now.posts):
            self._tell(f"post {post.id}", f"{post.agent_id}: {post.content}")

    def _tell(self, key: str, text: str) -> None:
        if key not in self.told:
            self.told.add(key)
            self.console.print(Text(f"{key:>10}  {text}"), soft_wrap=True)
