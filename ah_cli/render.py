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


def similar(found: "list[wire.Similar]") -> list[str]:
    return _columns(
        [
            "same" if one.same_tree else f"{one.similarity:.2f}",
            short(one.commit.hash),
            _score(one.best) if one.best else one.outcome or one.state or NONE,
            _agent(one.commit.agent_id),
            one.commit.message,
        ]
        for one in found
    )


def pushed(answer: "wire.Pushed") -> list[str]:
    new = answer.new_commits
    count = f"{new} new commit{'' if new == 1 else 's'}" if new else "nothing new"
    lines = [f"pushed {short(hash)}  {count}" for hash in dict.fromkeys(answer.hashes)]
    return lines + [_evaluated(one) for one in answer.evaluated]


def _evaluated(one: "wire.Evaluated") -> str:
    if one.score is None:
        return f"{short(one.hash)} is in training as {short(one.same_as)}: it has the same code"
    return f"{short(one.hash)} already evaluated as {short(one.same_as)}: {_score(one.score)}"


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
            [f"{e.rank:3}", _mean(e), e.state, short(e.commit), _agent(e.agent_id), e.message]
            for e in board.entries
        )
        yield from _columns(
            [
                f"{a.rank:3}",
                _bpb(a.best),
                _agent(a.agent_id),
                f"{a.keeps}/{a.experiments}",
                f"{a.keep_rate:.0%}",
                f"{a.records} record{'' if a.records == 1 else 's'}",
                short(a.best_commit) or NONE,
            ]
            for a in board.agents
        )


def _mean(entry: "wire.LeaderboardEntry") -> str:
    """One run as it is; a mean with what it may be off by."""
    if entry.n == 1 or entry.standard_error is None:
        return _bpb(entry.val_bpb)
    return f"{_bpb(entry.val_bpb)} ±{entry.standard_error:.4f} n={entry.n}"


def results(results: "list[wire.Result]") -> list[str]:
    return _columns(
        [
            str(one.id),
            short(one.commit) + ("" if one.is_linked else "?"),
            one.status if one.outcome == "ok" else one.outcome,
            _bpb(one.val_bpb),
            one.source,
            _verdict(one),
            _agent(one.agent_id),
            one.track,
            f"[quarantined: {one.quarantine}] {one.description}"
            if one.quarantine
            else one.description,
        ]
        for one in results
    )


def _verdict(result: "wire.Result") -> str:
    if result.against_record is None or result.verdict is None:
        return result.verdict or NONE
    return f"{result.verdict} {result.against_record.z:+.1f}"


def imported(done: "wire.ResultsImported") -> Iterator[str]:
    yield (
        f"imported {done.added} into {done.track}: {done.keep} keep, {done.discard} discard, "
        f"{done.crash} crash; best {_bpb(done.best)}"
    )
    notes = {
        "already here": done.known,
        "of commits that are not here, kept under the hash they name": done.unlinked,
        "in quarantine (ah results --quarantined)": done.quarantined,
    }
    yield from (f"{count} {what}" for what, count in notes.items() if count)
    yield from (f"line {one.line} left out: {one.reason}" for one in done.problems)


def frontier(found: "wire.Frontier") -> list[str]:
    return _columns(
        [
            str(e.rank),
            short(e.commit),
            _bpb(e.score.val_bpb if e.score else None),
            e.why,
            _agent(e.agent_id),
            e.message,
        ]
        for e in found.entries
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


def table(words: str) -> list[str]:
    """A file of lines, as it is."""
    return words.split("\n")[:-1]


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
