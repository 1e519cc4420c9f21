"""Fill a data directory with a swarm's work, quickly: real git objects, rows written directly.

    python -m bench.fill --data DIR --commits 10000

Per 10 commits: 12 results and runs in two tracks, 20 posts. The directory is then a hub's like
any other: `agenthub serve --data DIR`.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Table, insert

from bench.research import AGENTS, Attempt, research
from server import board, results, runs, tables, wire
from server.db import Connection, Database
from server.repo import BareRepo
from server.settings import Settings, open_data

END = datetime(2026, 3, 10, 7, 0, tzinfo=UTC)
WORKERS = tuple(f"gpu{n}" for n in range(1, 9))
CHANNELS = ("general", "ideas", "results")
RUNNING = 6
_CHUNK = 5_000
_DRAFT = "refs/heads/draft"
_TEXT = "import torch\n" + "".join(f"value_{n} = {n}\n" for n in range(24))


def fill(data: Path, commits: int, seed: int = 1, end: datetime = END) -> None:
    """Make the directory a hub's and fill it, the last commit from `end`.

    Raise FileExistsError where there is a hub already.
    """
    if (data / "hub.db").exists():
        raise FileExistsError(f"{data} has a hub already")
    settings = Settings(data=open_data(data), admin_key="")
    attempts = list(research(commits, seed))
    BareRepo(settings.repo_path).close()
    times = Times(commits, end)
    hashes = _write_git(settings.repo_path, attempts, times)
    db = Database(settings.database_url)
    db.migrate()
    with db.write() as conn:
        _write_rows(conn, attempts, hashes, times)
    db.close()


@dataclass(frozen=True, slots=True)
class Times:
    """When each attempt was pushed: 36 seconds apart, at most 60 days in all."""

    count: int
    end: datetime

    def of(self, number: float) -> datetime:
        step = min(36.0, 60 * 86400 / self.count)
        return self.end - timedelta(seconds=(self.count - number) * step)


# Git --------------------------------------------------------------------------------------------


def _write_git(repo: Path, attempts: list[Attempt], times: Times) -> list[tuple[str, str]]:
    """Commit and tree hash of each attempt."""
    git = ("git", "-C", str(repo))
    command = [*git, "fast-import", "--quiet", "--export-marks=marks"]
    importer = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert importer.stdin is not None
    for number, attempt in enumerate(attempts):
        importer.stdin.write(_commit(number, attempt, times.of(number)))
    importer.stdin.close()
    assert importer.wait() == 0
    marks = dict(line.split() for line in (repo / "marks").read_text().splitlines())
    (repo / "marks").unlink()
    order = [marks[f":{number}"] for number in range(1, len(attempts) + 1)]
    asked = "".join(f"{hash}^{{tree}}\n" for hash in order)
    command = [*git, "cat-file", "--batch-check=%(objectname)"]
    trees = subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout
    _keep_leaves([*git], attempts, order)
    return list(zip(order, trees.split(), strict=True))


def _keep_leaves(git: list[str], attempts: list[Attempt], order: list[str]) -> None:
    inner = {parent for attempt in attempts for parent in attempt.parents}
    leaves = [hash for number, hash in enumerate(order) if number not in inner]
    told = "".join(f"create refs/agenthub/heads/{hash} {hash}\n" for hash in leaves)
    told += f"delete {_DRAFT}\n"
    subprocess.run([*git, "update-ref", "--stdin"], input=told, text=True, check=True)
    subprocess.run([*git, "pack-refs", "--all", "--prune"], check=True)


def _commit(number: int, attempt: Attempt, moment: datetime) -> bytes:
    text = _TEXT.replace(f"value_{number % 24} = ", f"value_{number % 24} = {number} + ")
    lines = [
        f"commit {_DRAFT}",
        f"mark :{number + 1}",
        f"committer {attempt.agent} <{attempt.agent}@example.org> {moment.timestamp():.0f} +0000",
        f"data {len(attempt.message)}\n{attempt.message}",
    ]
    for position, parent in enumerate(attempt.parents):
        lines.append(f"{'merge' if position else 'from'} :{parent + 1}")
    lines.append(f"M 644 inline train.py\ndata {len(text)}\n{text}\n")
    return "\n".join(lines).encode()


# Rows -------------------------------------------------------------------------------------------


def _write_rows(
    conn: Connection, attempts: list[Attempt], hashes: list[tuple[str, str]], times: Times
) -> None:
    names = [(name, wire.Role.AGENT) for name in AGENTS] + [(n, wire.Role.WORKER) for n in WORKERS]
    count = len(attempts)
    start = times.of(-10)
    keys = {
        "key_prefix": "bench000",
        "about": "",
        "created_at": start,
        "last_seen_at": times.of(count + 10),
    }
    _add(conn, tables.agents, [{"id": n, "role": r, "key_hash": n, **keys} for n, r in names])
    common = {"budget_seconds": 300, "data_fingerprint": "3f9a1c2e" * 8, "scoring": "inline"}
    made = {"created_at": start}
    tracks = [{"id": n, "platform": p, **common, **made} for n, p in ((1, "H100"), (2, "H200"))]
    _add(conn, tables.tracks, tracks)
    _add(
        conn,
        tables.channels,
        [{"id": n, "name": c, "description": "", **made} for n, c in enumerate(CHANNELS, 1)],
    )
    _write_commits(conn, attempts, hashes, times)
    _write_results(conn, attempts, hashes, times)
    _write_posts(conn, attempts, hashes, times)
    board.index_threads(conn)
    results.recount(conn)
    _sum_up(conn, times.end)


def _sum_up(conn: Connection, now: datetime) -> None:
    """Scores, and the baseline of each track; challenges begin with the first new result."""
    scored = [score for score in results.rebuild(conn, now) if score.val_bpb is not None]
    baselines = {score.track_id: score for score in reversed(scored)}
    for track, score in baselines.items():
        runs.settle(conn, score.agent_id, track, score.code, now)


def _write_commits(
    conn: Connection, attempts: list[Attempt], hashes: list[tuple[str, str]], times: Times
) -> None:
    count = len(attempts)
    generations: list[int] = []
    children = [0] * count
    for attempt in attempts:
        generations.append(1 + max((generations[p] for p in attempt.parents), default=0))
        for parent in attempt.parents:
            children[parent] += 1
    rows, links, told = [], [], []
    for number, attempt in enumerate(attempts):
        moment = times.of(number)
        hash, tree = hashes[number]
        rows.append(
            {
                "seq": number + 1,
                "hash": hash,
                "tree": tree,
                "code": hash,
                "agent_id": attempt.agent,
                "message": attempt.message,
                "body": "",
                "authored_at": moment,
                "created_at": moment,
                "generation": generations[number],
                "child_count": children[number],
            }
        )
        links += [
            {"child": number + 1, "position": position, "parent": parent + 1}
            for position, parent in enumerate(attempt.parents)
        ]
        payload = {"heads": [hash], "new": 1}
        told.append(_event("commit", attempt.agent, hash, payload, moment))
    _add(conn, tables.commits, rows)
    _add(conn, tables.commit_parents, links)
    _add(conn, tables.events, told)


def _write_results(
    conn: Connection, attempts: list[Attempt], hashes: list[tuple[str, str]], times: Times
) -> None:
    count = len(attempts)
    trained, scored = [], []
    best = {1: 9.0, 2: 9.0}
    for number, attempt in enumerate(attempts):
        for track in (1, 2) if number % 5 == 0 else (1,):
            id = len(trained) + 1
            moment = times.of(number + 9)
            is_running = number >= count - RUNNING and track == 1
            score = None if attempt.score is None else round(attempt.score - (track - 1) * 0.004, 6)
            outcome = wire.Outcome.CRASH if score is None else wire.Outcome.OK
            trained.append(
                {
                    "id": id,
                    "commit_seq": number + 1,
                    "track_id": track,
                    "kind": wire.RunKind.FIRST,
                    "code": hashes[number][0],
                    "state": wire.RunState.RUNNING if is_running else wire.RunState.FINISHED,
                    "outcome": None if is_running else outcome,
                    "worker_id": WORKERS[id % len(WORKERS)],
                    "fence": 1,
                    "attempt": 1,
                    "created_at": moment,
                    "started_at": moment,
                    "finished_at": None if is_running else moment,
                    "lease_expires_at": moment + timedelta(days=3650) if is_running else None,
                    "progress": (id % 10) / 10 if is_running else 1.0,
                    "worker": {"device": "NVIDIA H100"},
                    "log": "",
                }
            )
            if is_running:
                continue
            status = wire.Status.CRASH if score is None else wire.Status.DISCARD
            if score is not None and score < best[track]:
                best[track], status = score, wire.Status.KEEP
            scored.append(
                {
                    "commit_seq": number + 1,
                    "code": hashes[number][0],
                    "run_id": id,
                    "fence": 1,
                    "kind": wire.RunKind.FIRST,
                    "agent_id": WORKERS[id % len(WORKERS)],
                    "source": wire.Source.MEASURED,
                    "track_id": track,
                    "outcome": outcome,
                    "status": status,
                    "val_bpb": score,
                    "metrics": {"peak_vram_mb": 44_000.0, "mfu_percent": 39.8},
                    "description": attempt.message,
                    "created_at": moment,
                }
            )
    _add(conn, tables.runs, trained)
    _add(conn, tables.results, scored)


def _write_posts(
    conn: Connection, attempts: list[Attempt], hashes: list[tuple[str, str]], times: Times
) -> None:
    rows = []
    for number, attempt in enumerate(attempts):
        hash, moment = hashes[number][0], times.of(number + 10)
        told = "crashed" if attempt.score is None else f"came to {attempt.score:.6f}"
        texts = (
            (f"{hash[:10]} {told}: {attempt.message}.", 3, None),
            (f"Next after {hash[:8]}: {attempt.message}?", 2, 2 * number if number % 3 else None),
        )
        for text, channel, parent in texts:
            row = {"id": len(rows) + 1, "channel_id": channel, "agent_id": attempt.agent}
            answers = parent if parent and parent % 2 == 0 else None
            rows.append({**row, "parent_id": answers, "content": text, "created_at": moment})
    _add(conn, tables.posts, rows)


def _event(kind: str, actor: str, subject: str, payload: Any, moment: datetime) -> dict[str, Any]:
    about = {"kind": kind, "actor": actor, "subject": subject}
    return {**about, "payload": payload, "created_at": moment}


def _add(conn: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    every = list(rows)
    for start in range(0, len(every), _CHUNK):
        conn.execute(insert(table), every[start : start + _CHUNK])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    fill(given.data, given.commits, given.seed)
    print(f"{given.commits:,} commits in {given.data}", file=sys.stderr)


if __name__ == "__main__":
    main()
