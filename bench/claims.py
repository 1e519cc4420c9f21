"""How long does a claim take when much is queued? Ask a hub process over HTTP, and see.

    python -m bench.claims --queued 10000 --commits 100000

The data directory is filled by SQL: `--commits` in all, of which `--queued` are leaves of 200
agents that wait for their first run in one track, and the others were trained in it. 50 workers
beat every 15 s meanwhile. Exits with 1 when the 99th percentile of the claims of a policy is above
`--limit`.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from sqlalchemy import insert, update

from ah_cli.client import HubClient
from bench.serve import serve_hub
from server import results, tables, wire
from server.db import Database, sqlite_url
from server.policy import Policy

AGENTS, WORKERS, BEAT_SECONDS = 200, 50, 15.0
CLAIM = wire.Claim(
    platform="H100", budget_seconds=300, data_fingerprint="f" * 64, scoring="isolated+audit"
)
#: Every so many codes that were trained have three replicates.
_REPLICATED = 20
_CHUNK = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=10_000, help="in all; at least --queued")
    parser.add_argument("--claims", type=int, default=500, help="that are timed, of each policy")
    parser.add_argument("--policy", choices=[*Policy, "all"], default="all")
    parser.add_argument("--limit", type=float, default=50.0, help="ms")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = {}
    for policy in [given.policy] if given.policy != "all" else list(Policy):
        print(f"{policy} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            figures[str(policy)] = measure(
                Path(folder), policy, given.queued, max(given.commits, given.queued), given.claims
            )
    print(json.dumps(figures) if given.json else _table(figures))
    sys.exit(any(one["claim"]["p99"] > given.limit for one in figures.values()))


def measure(folder: Path, policy: str, queued: int, commits: int, claims: int) -> dict[str, Any]:
    fill(folder, queued, commits)
    times: dict[str, list[float]] = {"claim": [], "heartbeat": [], "result": []}
    with serve_hub(folder, "--policy", policy) as admin, ExitStack() as stack:
        workers = [
            stack.enter_context(HubClient(admin.url, _join(admin, number)))
            for number in range(WORKERS + 1)
        ]
        started = time.perf_counter()
        held = [(worker, _claim(worker)) for worker in workers[1:]]
        first = time.perf_counter() - started
        with _beating(held, times["heartbeat"]):
            for number in range(claims):
                run = _time(times["claim"], lambda: _claim(workers[0]))
                score = round(0.99 + random.Random(number).uniform(0, 0.01), 6)
                ok = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.OK, val_bpb=score)
                _time(times["result"], lambda run=run, ok=ok: workers[0].finish(run.id, ok))
    return {name: _percentiles(taken) for name, taken in times.items() if taken} | {
        "first_claims": {"count": len(held), "seconds": round(first, 2)}
    }


def _join(admin: HubClient, number: int) -> str:
    return admin.create_agent(f"gpu{number:03}", wire.Role.WORKER).api_key


def _claim(worker: HubClient) -> wire.Run:
    run = worker.claim(CLAIM)
    assert run is not None
    return run


@contextmanager
def _beating(held: list[tuple[HubClient, wire.Run]], taken: list[float]) -> Iterator[None]:
    """Each worker beats every BEAT_SECONDS, evenly spread."""
    over = threading.Event()

    def beat() -> None:
        turn = 0
        while not over.wait(BEAT_SECONDS / len(held)):
            worker, run = held[turn % len(held)]
            heartbeat = wire.Heartbeat(fence=run.fence, step=turn, progress=0.5)
            _time(taken, lambda w=worker, r=run, h=heartbeat: w.heartbeat(r.id, h))
            turn += 1

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _time(into: list[float], call: Callable[[], Any]) -> Any:
    before = time.perf_counter()
    answer = call()
    into.append(time.perf_counter() - before)
    return answer


def _percentiles(taken: list[float]) -> dict[str, float]:
    """In ms."""
    cuts = quantiles(taken, n=100, method="inclusive") if len(taken) > 1 else taken * 99
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(taken)}
    return {name: round(value * 1000, 1) for name, value in named.items()} | {"count": len(taken)}


def _table(figures: dict[str, Any]) -> str:
    lines = ["| policy | call | p50 | p95 | p99 | max | calls |", "|---|---|---|---|---|---|---|"]
    for policy, one in figures.items():
        for call in ("claim", "result", "heartbeat"):
            if call in one:
                cells = " | ".join(str(one[call][name]) for name in _CELLS)
                lines.append(f"| {policy} | {call} | {cells} |")
    first = next(iter(figures.values()))["first_claims"]
    return "\n".join([*lines, "", f"ms; the first {first['count']} claims: {first['seconds']} s"])


_CELLS = ("p50", "p95", "p99", "max", "count")


# The data directory ------------------------------------------------------------------------------


def fill(data: Path, queued: int, commits: int) -> None:
    """A hub's database as if so many commits had come, all but the last ones trained."""
    db = Database(sqlite_url(data / "hub.db"))
    db.migrate()
    now = datetime.now(UTC)
    with db.write() as conn:
        names = [f"agent{number:03}" for number in range(AGENTS)]
        conn.execute(insert(tables.agents), [_agent(name, now) for name in names])
        key = CLAIM.model_dump(
            include={"platform", "budget_seconds", "data_fingerprint", "scoring"}
        )
        trained = commits - queued
        conn.execute(insert(tables.tracks), key | {"created_at": now, "seen_seq": trained})
        for start in range(1, commits + 1, _CHUNK):
            seqs = range(start, min(start + _CHUNK, commits + 1))
            conn.execute(insert(tables.commits), [_commit(seq, trained, now) for seq in seqs])
            linked = [_link(seq, trained) for seq in seqs if seq > 1]
            conn.execute(insert(tables.commit_parents), linked)
            done = [seq for seq in seqs if seq <= trained]
            if done:
                conn.execute(insert(tables.runs), [_run(seq, now) for seq in done])
                conn.execute(insert(tables.results), [_result(seq, now) for seq in done])
                conn.execute(insert(tables.scores), [_score(seq, now) for seq in done])
        results.recount(conn)
        # There are no objects to be read for `ah similar`, which would try all the time.
        conn.execute(update(tables.watermarks).values(upto=commits))
    db.close()


def _agent(name: str, now: datetime) -> dict[str, Any]:
    return {
        "id": name, "role": "agent", "key_hash": f"no key of {name}", "key_prefix": "",
        "created_at": now,
    }  # fmt: skip


def _hash(seq: int) -> str:
    return f"{seq * 2654435761 % 2**32:08x}{seq:032x}"


def _agent_of(seq: int) -> str:
    return f"agent{seq % AGENTS:03}"


def _commit(seq: int, trained: int, now: datetime) -> dict[str, Any]:
    return {
        "seq": seq, "hash": _hash(seq), "tree": _hash(seq), "code": _hash(seq),
        "agent_id": _agent_of(seq), "message": f"try {seq}", "body": "", "authored_at": now,
        "created_at": now, "generation": 2, "child_count": int(seq <= trained),
    }  # fmt: skip


def _link(seq: int, trained: int) -> dict[str, Any]:
    """Children of one of the first thousand, and every fortieth of the same one."""
    parent = 1 if seq % 40 == 0 else seq % min(1000, max(trained, 1)) + 1
    return {"child": seq, "position": 0, "parent": min(parent, seq - 1)}


def _run(seq: int, now: datetime) -> dict[str, Any]:
    return {
        "id": seq, "commit_seq": seq, "track_id": 1, "kind": "first", "state": "finished",
        "outcome": "ok", "agent_id": _agent_of(seq), "code": _hash(seq), "seed": 42, "fence": 1,
        "attempt": 1, "created_at": now, "started_at": now, "finished_at": now, "worker": {},
    }  # fmt: skip


def _result(seq: int, now: datetime) -> dict[str, Any]:
    return {
        "id": seq, "commit_seq": seq, "code": _hash(seq), "run_id": seq, "fence": 1,
        "kind": "first", "seed": 42, "agent_id": _agent_of(seq), "source": "measured",
        "track_id": 1, "outcome": "ok", "status": "discard", "val_bpb": _value(seq),
        "metrics": {}, "description": "", "created_at": now,
    }  # fmt: skip


def _score(seq: int, now: datetime) -> dict[str, Any]:
    is_replicated = seq % _REPLICATED == 0
    return {
        "track_id": 1, "code": _hash(seq), "commit_seq": seq, "agent_id": _agent_of(seq),
        "result_id": seq, "state": "measured", "val_bpb": _value(seq), "first": _value(seq),
        "n": 3 * is_replicated, "mean": _value(seq) if is_replicated else None,
        "m2": 7e-7 * is_replicated, "is_fixed_seed": False, "updated_at": now,
    }  # fmt: skip


def _value(seq: int) -> float:
    return round(0.99 + seq * 7919 % 10_000 / 1e6, 6)


if __name__ == "__main__":
    main()
