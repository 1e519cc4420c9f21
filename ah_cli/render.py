"""Wire models as lines of text: one line per item, 12-digit hashes, aligned columns.

What others wrote comes last on its line, so it cannot pass for a column before it; further lines
of a post are indented, so they cannot pass for a post of their own.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server import wire

NONE = "-"
UNKNOWN_AGENT = "(seed)"


def short(hash: str) -> str:
    return hash[:12]


def log(commits: "list[wire.Commit]") -> list[str]:
    return _columns(
        [short(c.hash), _agent(c.agent_id), _time(c.created_at), _score(c.best), c.message]
        for c in commits
    )


def commits(commits: "list[wire.Commit]") -> list[str]:
    return _columns([short(c.hash), _agent(c.agent_id), _score(c.best), c.message] for c in commits)


def pushed(answer: "wire.Pushed") -> list[str]:
    new = answer.new_commits
    count = f"{new} new commit{'' if new == 1 else 's'}" if new else "nothing new"
    return [f"pushed {short(hash)}  {count}" for hash in dict.fromkeys(answer.hashes)]


def channels(channels: "list[wire.Channel]") -> list[str]:
    return _columns([f"#{c.name}", c.description] for c in channels)


def posts(posts: "list[wire.Post]") -> Iterator[str]:
    for post in posts:
        answered = f" replies to {post.parent_id}" if post.parent_id is not None else ""
        first, *more = post.content.replace("\r\n", "\n").split("\n")
        yield f"[{post.id}] {_agent(post.agent_id)}{answered} ({_time(post.created_at)}): {first}"
        yield from (f"    {line}" for line in more)


def leaderboards(boards: "list[wire.Leaderboard]") -> Iterator[str]:
    for board in boards:
        yield f"track {board.track.name}"
        yield from _columns(
            [f"{e.rank:3}", _bpb(e.val_bpb), e.source, short(e.commit), e.agent_id, e.message]
            for e in board.entries
        )


def runs(runs: "list[wire.Run]") -> list[str]:
    return _columns(
        [
            str(run.id),
            short(run.commit),
            _state(run),
            _bpb(run.val_bpb),
            run.worker_id or NONE,
            run.track or NONE,
            run.failure or "",
        ]
        for run in runs
    )


def run(run: "wire.Run") -> list[str]:
    """Everything known of one run, a line each; the worker's words come last."""
    known = {
        "run": str(run.id),
        "commit": run.commit,
        "state": _state(run),
        "val_bpb": _bpb(run.val_bpb) if run.val_bpb is not None else None,
        "kind": f"{run.kind}, attempt {run.attempt}",
        "track": run.track,
        "worker": run.worker_id,
        "seed": run.seed,
        "step": run.step,
        "loss": run.loss,
        "tokens": run.tokens,
        "created": _time(run.created_at),
        "started": _time(run.started_at) if run.started_at else None,
        "finished": _time(run.finished_at) if run.finished_at else None,
        "failure": run.failure,
    }
    return _columns([name, str(value)] for name, value in known.items() if value is not None)


def nothing(_: object) -> list[str]:
    """For what is printed as JSON only."""
    return []


def text(words: str) -> list[str]:
    """A log: progress that was written over itself becomes lines."""
    lines = words.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Pad all columns but the last, two blanks apart."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), last]
        ).rstrip()
        for row in table
        for last in row[-1:]
    ]


def _agent(id: str) -> str:
    return id or UNKNOWN_AGENT


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bpb(val_bpb: float | None) -> str:
    return NONE if val_bpb is None else f"{val_bpb:.6f}"


def _score(score: "wire.Score | None") -> str:
    """The score with all it takes to compare it: who says so, and in which track."""
    return f"{_bpb(score.val_bpb)} {score.source} {score.track}" if score else NONE


def _state(run: "wire.Run") -> str:
    if run.outcome is not None:
        return run.outcome
    if run.state == "running" and run.progress is not None:
        return f"running {run.progress:.0%}"
    return run.state
