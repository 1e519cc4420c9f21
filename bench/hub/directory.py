"""Filled data directories: made once for each size, kept in a cache folder, copied for each use.

Rows go straight into SQLite, without its indexes, which are made at the end; git's objects are
written beside them by another process. One post for each commit, one run and one result for each
but the `queued_of` newest ones, which wait in the queue.
"""

import fcntl
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.hub import dag
from server import agents, board, results, tables, wire
from server.db import Database
from server.repo import BareRepo
from server.settings import Settings, open_data
from server.similar.fts import COMMITS, RESULTS

#: Raise it when what is filled changes: directories of older ones are made anew.
VERSION = 5
AGENT = "bench"
AGENT_KEY = "the-key-of-the-agent-of-the-bench"
WORKERS = tuple(f"gpu{number:02}" for number in range(64))
CHANNELS = tuple(f"channel{number:02}" for number in range(20))
CLAIM = wire.Claim(
    platform="H100", budget_seconds=300, data_fingerprint="3f9a1c2e" * 8, scoring="isolated+audit"
)
#: Every so many codes have replicates; every so many are tried in the second track, too.
_REPLICATED, _SECOND_TRACK = 20, 10
#: Replies that the first post has.
_FIRST_REPLIES = 20


def worker_key(name: str) -> str:
    return f"the-key-of-{name}-of-the-bench"


def queued_of(count: int) -> int:
    """How many of the swarm's commits wait for their first run."""
    return min(10_000, count // 2)


@contextmanager
def borrow(cache: Path, count: int) -> Iterator[Path]:
    """A copy of the filled directory of this size, to be written to, gone afterwards."""
    whole = keep(cache, count)
    for old in cache.glob("copy-*"):
        # Of a run that was killed.
        if not Path("/proc", old.name.split("-")[1]).exists():
            shutil.rmtree(old, ignore_errors=True)
    copy = cache / f"copy-{os.getpid()}-{count}"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        # Packs never change, so both may have the same files.
        shutil.copytree(whole, copy, copy_function=_copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def keep(cache: Path, count: int) -> Path:
    """The filled directory of this size; made if it is not there. Write to copies only."""
    cache.mkdir(parents=True, exist_ok=True)
    whole = cache / f"{count}-v{VERSION}"
    with (cache / f"{whole.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            draft = cache / f"{whole.name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            fill(draft, count)
            draft.rename(whole)
    return whole


def _copy(source: str, target: str) -> None:
    if source.endswith((".pack", ".idx")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def fill(data: Path, count: int) -> None:
    """Make the directory a hub's with `dag.LINE` commits and `count` of a swarm."""
    settings = Settings(data=open_data(data), admin_key="")
    BareRepo(settings.repo_path).close()
    db = Database(settings.database_url)
    db.migrate()
    # Another connection would keep the journal as it is.
    db.close()
    writer = multiprocessing.get_context("spawn").Process(
        target=dag.write_git, args=(settings.repo_path, count)
    )
    writer.start()
    with closing(sqlite3.connect(data / "hub.db", isolation_level=None)) as file:
        _write_rows(file, count)
    with db.write() as conn:
        board.index_threads(conn)
        results.recount(conn)
    db.close()
    writer.join()
    if writer.exitcode:
        raise RuntimeError("git's objects could not be written")


# Rows -------------------------------------------------------------------------------------------


def _stored(moment: datetime) -> str:
    """As SQLAlchemy writes it."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


@dataclass
class Clock:
    """When each commit came: evenly spaced, the last one a moment ago."""

    end: datetime
    total: int

    def of(self, seq: float) -> str:
        moment = self.end - timedelta(seconds=(self.total - seq) * dag.STEP_SECONDS)
        return _stored(moment)


def _write_rows(file: sqlite3.Connection, count: int) -> None:
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF"):
        file.execute(f"PRAGMA {pragma}")
    file.execute("PRAGMA cache_size = -500000")
    file.execute("BEGIN")
    made_anew = _drop_indexes(file)
    clock = Clock(datetime.now(UTC), dag.LINE + count)
    _write_names(file, clock)
    commits = list(dag.walk(count))
    _write_commits(file, commits, clock)
    told = [_told_commit(commit, clock) for commit in commits]
    told += _write_runs(file, commits, clock)
    told += _write_posts(file, commits, clock)
    # As they came: each of the three is in order.
    _add(file, "events", _EVENT, sorted(told, key=itemgetter(-1)))
    for statement in made_anew:
        file.execute(statement)
    for index in ("posts_fts", "commits_fts"):
        file.execute(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")
    file.execute("COMMIT")
    file.execute("PRAGMA journal_mode = WAL")


def _drop_indexes(file: sqlite3.Connection) -> list[str]:
    """Drop the indexes, and triggers that no row of ours needs; return what makes them anew."""
    found = file.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND (type = 'index' OR "
        "type = 'trigger' AND (name GLOB '*_fts_*' OR name GLOB '*_topic_*'))"
    ).fetchall()
    for kind, name, _ in found:
        file.execute(f"DROP {kind} {name}")
    return [sql for _, _, sql in found]


def _write_names(file: sqlite3.Connection, clock: Clock) -> None:
    start, end = clock.of(0), clock.of(clock.total)
    people = [(name, wire.Role.AGENT, name) for name in dag.AGENTS]
    people.append((AGENT, wire.Role.AGENT, agents.digest(AGENT_KEY)))
    people += [(name, wire.Role.WORKER, agents.digest(worker_key(name))) for name in WORKERS]
    _add(
        file,
        "agents",
        ("id", "role", "key_hash", "key_prefix", "about", "created_at", "last_seen_at"),
        ((id, role, key, "bench000", "", start, end) for id, role, key in people),
    )
    _add(
        file,
        "channels",
        ("id", "name", "description", "created_at"),
        ((id, name, f"About {name}", start) for id, name in enumerate(CHANNELS, 1)),
    )
    key = (CLAIM.budget_seconds, CLAIM.data_fingerprint, CLAIM.scoring)
    _add(
        file,
        "tracks",
        ("id", "platform", "budget_seconds", "data_fingerprint", "scoring", "created_at",
         "seen_seq"),
        ((id, name, *key, start, clock.total) for id, name in ((1, "H100"), (2, "H200"))),
    )  # fmt: skip
    file.execute("UPDATE watermarks SET upto = ? WHERE name = ?", (clock.total, COMMITS))


def _write_commits(file: sqlite3.Connection, commits: list[dag.Commit], clock: Clock) -> None:
    generation = array("i", [0] * (len(commits) + 1))
    children = array("i", [0] * (len(commits) + 1))
    for one in commits:
        generation[one.seq] = 1 + max((generation[p] for p in one.parents), default=0)
        for parent in one.parents:
            children[parent] += 1
    _add(
        file,
        "commits",
        ("seq", "hash", "tree", "code", "agent_id", "message", "body", "authored_at", "created_at",
         "generation", "child_count"),
        (
            (c.seq, c.hash, c.tree, c.code, c.agent, c.message, "",
             _stored(dag.moment_of(c.seq)), clock.of(c.seq), generation[c.seq], children[c.seq])
            for c in commits
        ),
    )  # fmt: skip
    _add(
        file,
        "commit_parents",
        ("child", "position", "parent"),
        ((c.seq, at, parent) for c in commits for at, parent in enumerate(c.parents)),
    )
    _add(
        file,
        "changes",
        ("commit_seq", "kind", "before", "after"),
        ((c.seq, c.setting, "0.1", c.value) for c in commits if c.parents),
    )
    _add(
        file,
        "experiments_fts",
        ("rowid", "message", "diff", "results"),
        (
            (c.seq, c.message.lower(), f"{c.setting.lower()} {c.value} step {c.seq} -{c.seq - 1}",
             f"gain {c.seq % 1009} stable")
            for c in commits
        ),
    )  # fmt: skip


_EVENT = ("kind", "actor", "subject", "payload", "created_at")


def _told_commit(commit: dag.Commit, clock: Clock) -> tuple[Any, ...]:
    payload = json.dumps({"heads": [commit.hash], "new": 1})
    return "commit", commit.agent, commit.hash, payload, clock.of(commit.seq)


def _write_runs(
    file: sqlite3.Connection, commits: list[dag.Commit], clock: Clock
) -> list[tuple[Any, ...]]:
    """Return the events that tell of them."""
    waiting = queued_of(len(commits) - dag.LINE)
    trained = commits[: len(commits) - waiting]
    best = {1: 9.0, 2: 9.0}
    runs: list[tuple[Any, ...]] = []
    results: list[tuple[Any, ...]] = []
    scores: list[tuple[Any, ...]] = []
    records: list[tuple[Any, ...]] = []
    told: list[tuple[Any, ...]] = []
    for commit in trained:
        for track in (1, 2) if commit.seq % _SECOND_TRACK == 0 else (1,):
            id, at = len(runs) + 1, clock.of(commit.seq + 0.5)
            worker = WORKERS[id % len(WORKERS)]
            runs.append(_run(id, commit, track, worker, at))
            score = commit.score
            gain = None if score is None else best[track] - score
            status = wire.Status.CRASH if gain is None else wire.Status.DISCARD
            state, n = wire.ScoreState.MEASURED, 2 if id % _REPLICATED == 0 and score else 0
            if gain is not None and gain > 0:
                status = wire.Status.KEEP
                # A record after some time, not at each step.
                is_first = best[track] == 9.0
                if is_first or gain > 0.0002:
                    n, state = 4, wire.ScoreState.BASELINE if is_first else "confirmed"
                    record = (len(records) + 1, track, commit.code, commit.seq, score, n, 0.0002,
                              None if is_first else 4.2, at)  # fmt: skip
                    records.append(record)
                best[track] = min(best[track], score or 9.0)
            is_compared = gain is not None and gain < 1
            told_gain = (gain, gain / 0.0004, gain, gain / 0.0004) if is_compared and gain else ()
            results.append(_result(id, commit, track, worker, status, told_gain, at))
            scores.append(_score(id, commit, track, worker, state, n, at))
            payload = {"run": id, "commit": commit.hash, "track": "H100", "kind": "first",
                       "outcome": "ok", "status": status, "val_bpb": score}  # fmt: skip
            told.append(("result", worker, str(id), json.dumps(payload), at))
    queued = (
        (len(runs) + number, commit, clock.of(commit.seq))
        for number, commit in enumerate(commits[len(trained) :], 1)
    )
    _add(file, "runs", _RUN, runs)
    _add(file, "runs", _RUN, (_queued(*each) for each in queued))
    _add(file, "results", _RESULT, results)
    _add(file, "scores", _SCORE, scores)
    _add(file, "records", _RECORD, records)
    file.execute("UPDATE watermarks SET upto = ? WHERE name = ?", (len(results), RESULTS))
    return told


_RUN = ("id", "commit_seq", "track_id", "kind", "state", "outcome", "worker_id", "agent_id",
        "code", "seed", "fence", "attempt", "created_at", "started_at", "finished_at",
        "progress", "worker")  # fmt: skip
_RESULT = ("id", "commit_seq", "code", "run_id", "fence", "kind", "seed", "agent_id", "source",
           "track_id", "outcome", "status", "val_bpb", "metrics", "description", "created_at",
           "record_gain", "record_z", "parent_gain", "parent_z")  # fmt: skip
_SCORE = ("track_id", "code", "commit_seq", "agent_id", "result_id", "state", "val_bpb", "first",
          "n", "mean", "m2", "is_fixed_seed", "updated_at")  # fmt: skip
_RECORD = ("id", "track_id", "code", "commit_seq", "val_bpb", "n", "standard_error", "z",
           "created_at")  # fmt: skip
_METRICS = json.dumps({"peak_vram_mb": 44000.0, "mfu_percent": 39.8, "total_tokens_M": 499.6})
_WORKER = json.dumps({"device": "NVIDIA H100"})


def _run(id: int, commit: dag.Commit, track: int, worker: str, at: str) -> tuple[Any, ...]:
    outcome = "crash" if commit.score is None else "ok"
    return (id, commit.seq, track, "first", "finished", outcome, worker, commit.agent,
            commit.code, 42, 1, 1, at, at, at, 1.0, _WORKER)  # fmt: skip


def _queued(id: int, commit: dag.Commit, at: str) -> tuple[Any, ...]:
    return (id, commit.seq, 1, "first", "queued", None, None, commit.agent, commit.code, 42, 0, 0,
            at, None, None, None, "{}")  # fmt: skip


def _result(
    id: int, commit: dag.Commit, track: int, worker: str, status: str, gain: tuple[Any, ...],
    at: str,
) -> tuple[Any, ...]:  # fmt: skip
    outcome = "crash" if commit.score is None else "ok"
    gains = gain or (None, None, None, None)
    return (id, commit.seq, commit.code, id, 1, "first", 42, worker, "measured", track, outcome,
            status, commit.score, _METRICS, commit.message, at, *gains)  # fmt: skip


def _score(
    id: int, commit: dag.Commit, track: int, worker: str, state: str, n: int, at: str
) -> tuple[Any, ...]:
    mean, m2 = (commit.score, 7e-7) if n else (None, 0.0)
    return (track, commit.code, commit.seq, worker, id, state, commit.score, commit.score, n,
            mean, m2, 0, at)  # fmt: skip


def _write_posts(
    file: sqlite3.Connection, commits: list[dag.Commit], clock: Clock
) -> list[tuple[Any, ...]]:
    """One for each commit of the swarm: half of them in the first channel, a third replies.

    Return the events that tell of them.
    """
    chance = random.Random(2)
    swarm = commits[dag.LINE :]
    recent: list[list[int]] = [[] for _ in CHANNELS]
    rows, told = [], []
    for id, commit in enumerate(swarm, 1):
        channel = 0 if chance.random() < 0.5 else chance.randrange(1, len(CHANNELS))
        known = recent[channel]
        parent = known[chance.randrange(len(known))] if known and chance.random() < 0.33 else None
        if 1 < id <= 1 + _FIRST_REPLIES:
            channel, parent = rows[0][1] - 1, 1
        at = clock.of(commit.seq + 0.7)
        text = f"{commit.hash[:10]} {_tell(commit)}: {commit.message}. {_WORDS[id % len(_WORDS)]}"
        rows.append((id, channel + 1, commit.agent, parent, text, at))
        payload = json.dumps({"channel": CHANNELS[channel]})
        told.append(("post", commit.agent, str(id), payload, at))
        recent[channel] = [*known[-15:], id]
    columns = ("id", "channel_id", "agent_id", "parent_id", "content", "created_at")
    _add(file, "posts", columns, rows)
    return told


def _tell(commit: dag.Commit) -> str:
    return "crashed" if commit.score is None else f"came to {commit.score:.6f}"


_WORDS = (
    "The loss curve is flat after the warm down, so the schedule may be too short for this batch.",
    "Memory is at 44 GB, so there is room for a wider model; who tries that on top of it?",
    "Compared with its parent the gain is within the noise, two more seeds would tell more.",
    "Throughput fell by three percent, which the better optimizer settings make up for twice.",
    "This combines badly with the softcap of the logits, please do not stack both of them.",
    "Next I shall halve the learning rate of the embeddings and keep everything else as it is.",
)


def _add(
    file: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> None:
    known = tables.metadata.tables.get(table)
    assert known is None or set(columns) <= set(known.c.keys())
    marks = ", ".join("?" * len(columns))
    file.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


if __name__ == "__main__":
    import sys

    began = time.perf_counter()
    keep(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{time.perf_counter() - began:.1f} s")
