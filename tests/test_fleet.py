"""A fleet of fake workers over the real HTTP API: each commit gets the results it should, once."""

import json
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import ADMIN_KEY, CLAIM, Clock, Hub, WorkTree, ok
from sqlalchemy import select

from server import tables, wire
from server.app import create_app
from server.settings import Settings

LEASE_SECONDS = 60
#: The third worker that dies of a run makes the hub give it up, which is another test's business.
DEATHS_MAX = 2


@contextmanager
def serve(folder: Path, clock: Clock) -> Iterator[tuple[Hub, int]]:
    """A hub behind a real socket but in this process, so that its clock stays in our hands."""
    folder.mkdir()
    quotas = dict.fromkeys(("max_pushes_per_hour", "max_posts_per_hour"), 0)
    limits = {"lease_seconds": LEASE_SECONDS, "pack_after": 0, **quotas}
    app = create_app(Settings(data=folder, admin_key=ADMIN_KEY, **limits), clock)  # type: ignore[arg-type]
    config = uvicorn.Config(app, port=0, log_level="error")
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        yield Hub(app, clock, folder), socket.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


def grow_leaves(folder: Path, count: int) -> tuple[Path, list[str]]:
    """A bundle of so many leaves on one root, and their hashes."""
    work = WorkTree(folder)
    who = "committer Ada <ada@example.org> 1700000000 +0000\ndata 4\ntry\n"
    parts = [f"commit refs/heads/root\nmark :1\n{who}"]
    for number in range(count):
        code = f"# {number}\n"
        parts.append(
            f"commit refs/heads/leaf{number}\n{who}from :1\n"
            f"M 100644 inline train.py\ndata {len(code)}\n{code}\n"
        )
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=folder, input="".join(parts).encode(), check=True
    )
    listed = work.git("for-each-ref", "--format=%(objectname)", "refs/heads/leaf*")
    return work.bundle("--branches"), listed.split()


class FakeWorker:
    """The calls of a worker by a bare HTTP client: thousands of them must cost little."""

    def __init__(self, port: int, key: str) -> None:
        self._http = HTTPConnection("127.0.0.1", port)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: wire.Wire) -> tuple[int, Any]:
        self._http.request(method, path, body.model_dump_json(), self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def finish(self, run: dict[str, Any], val_bpb: float) -> int:
        return self.call("PUT", f"/api/runs/{run['id']}/result", ok(run["fence"], val_bpb))[0]

    def close(self) -> None:
        self._http.close()


@dataclass
class Fleet:
    """Workers that claim and report at once; now and then one dies and leaves its run behind."""

    port: int
    keys: list[str]
    deaths: float
    #: The keys of workers that died, and the runs that they held.
    dead: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    killed: int = 0
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def shift(self, runs: int) -> int:
        """Let all workers work until so many runs are done, or nothing is left; return how many."""
        self._left = runs
        with ThreadPoolExecutor(len(self.keys)) as pool:
            return sum(pool.map(self._work, range(len(self.keys))))

    def _work(self, number: int) -> int:
        key = self.keys[number]
        rng, worker, done = random.Random(f"{number}/{self.killed}"), FakeWorker(self.port, key), 0
        while self._may_go_on():
            status, run = worker.call("POST", "/api/runs", CLAIM)
            if status == 204:
                break
            assert status == 201, run
            done += 1
            if rng.random() < self.deaths and run["attempt"] <= DEATHS_MAX:
                self._die(key, run)
                continue
            if rng.random() < 0.1:
                beat = wire.Heartbeat(fence=run["fence"], step=1)
                assert worker.call("POST", f"/api/runs/{run['id']}/heartbeat", beat)[0] == 200
            assert worker.finish(run, 2.0) == 201
            if rng.random() < 0.05:  # The answer was lost on its way.
                assert worker.finish(run, 2.0) == 200
        worker.close()
        return done

    def _die(self, key: str, run: dict[str, Any]) -> None:
        with self._lock:
            self.dead.append((key, run))
            self.killed += 1

    def _may_go_on(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def report_late(self, key: str, run: dict[str, Any]) -> None:
        """It was only frozen, and reports after its run was taken from it."""
        worker = FakeWorker(self.port, key)
        assert worker.finish(run, 0.9) == wire.ErrorCode.LEASE_LOST.status
        worker.close()


def check_fleet(folder: Path, clock: Clock, workers: int, commits: int) -> None:
    bundle, leaves = grow_leaves(folder / "work", commits)
    wanted = Counter(leaves)
    with serve(folder / "hub", clock) as (hub, port):
        agent = hub.agent()
        agent.push(bundle)
        for leaf in leaves[:: commits // 20]:
            agent.request_runs(leaf, wire.RunRequest(kind=wire.RunKind.REPLICATE, count=2))
            wanted[leaf] = 2  # The first run of a code that was asked for is taken back.
        keys = [hub.key(f"gpu{number}", wire.Role.WORKER) for number in range(workers)]
        fleet = Fleet(port, keys, deaths=0.1)
        zombies: list[tuple[str, dict[str, Any]]] = []
        while fleet.shift(commits // 4):
            for key, run in zombies:
                fleet.report_late(key, run)
            zombies, fleet.dead = fleet.dead, []
            clock.advance(seconds=LEASE_SECONDS + 1)
        assert fleet.killed > commits // 20
        check_results(hub, wanted, fleet.killed)


def check_results(hub: Hub, wanted: Counter[str], killed: int) -> None:
    r, c = tables.results, tables.commits
    with hub.app.state.hub.db.read() as conn:
        query = select(c.c.hash, r.c.late, r.c.val_bpb).join(c, c.c.seq == r.c.commit_seq)
        rows = conn.execute(query).all()
        states = Counter(conn.scalars(select(tables.runs.c.state)))
    assert Counter(row.hash for row in rows if not row.late) == wanted
    assert {row.val_bpb for row in rows if not row.late} == {2.0}
    assert sum(row.late for row in rows) == killed
    assert states == {wire.RunState.FINISHED: wanted.total()}


def test_64_workers_of_which_some_die_bring_each_commit_its_results(
    tmp_path: Path, clock: Clock
) -> None:
    check_fleet(tmp_path, clock, workers=64, commits=1_000)


@pytest.mark.stress
def test_256_workers_and_10_000_commits(tmp_path: Path, clock: Clock) -> None:
    check_fleet(tmp_path, clock, workers=256, commits=10_000)
