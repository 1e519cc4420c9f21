"""The swarm at work: agents push and workers train through the hub's API, in simulated time.

The hub runs in this process with a clock that is moved from event to event, so leases pass and
runs take their budget without anybody waiting.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from ah_cli.client import ApiError, HubClient
from bench.swarm.backlog import Backlog
from bench.swarm.world import PLATFORMS, Commit, Platform, World
from server import wire

T = TypeVar("T")

BUDGET_SECONDS, BEAT_SECONDS, LEASE_SECONDS = 300, 45, 60
#: What start-up, compilation and scoring take on top of the budget.
EXTRA_SECONDS = (20.0, 60.0)
#: How often a run crashes by chance, its worker falls silent (and some report late), or drains.
CRASH, SILENT, LATE, DRAIN = 0.02, 0.01, 0.5, 0.01
#: Agents by appetite: part of all, leaves they keep waiting, seconds between looks. A flooding
#: one also pushes FOLLOW_UPS at each look upon what it has waiting.
FLOOD, STEADY, LIGHT = (0.05, 5, 1800.0), (0.65, 2, 1200.0), (0.3, 1, 7200.0)
FOLLOW_UPS = 5
#: Where agents begin: at the record, one of the five best, any of the fifty, or else any leaf.
RECORD, BEST, ANY = 0.55, 0.20, 0.22
CHAINS = 0.1
#: Runs of the hub's own that may be made at once after a time in which none waited.
SAVED_UP = 3

#: The hub's own runs that a worker of this track could have.
_OWN = text(
    "SELECT count(*) FROM runs JOIN tracks t ON t.id = track_id WHERE t.platform = :platform"
    " AND state = 'queued' AND kind = 'replicate' AND runs.agent_id IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM runs l WHERE l.commit_seq = runs.commit_seq AND l.track_id = runs.track_id"
    " AND l.kind = runs.kind AND l.state = 'running')"
)


@dataclass
class Clock:
    moment: datetime = datetime(2026, 3, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment


@dataclass(frozen=True)
class Size:
    agents: int = 200
    workers: int = 20
    runs: int = 2000


@dataclass
class Tally:
    """What was seen from outside while it went on."""

    runs: Counter[str] = field(default_factory=Counter)
    #: Leases while both the hub's own runs and agents' waited, from the SAVED_UP-th of the hub's
    #: own in a row on, and how many were the hub's own.
    both: int = 0
    own_of_both: int = 0
    odd: list[str] = field(default_factory=list)
    pushes: Counter[str] = field(default_factory=Counter)


@dataclass
class Worker:
    client: HubClient
    platform: Platform
    claim: wire.Claim


@dataclass
class Play:
    """One simulation; `run` plays it to the end."""

    app: FastAPI
    clock: Clock
    size: Size
    world: World
    folder: Path
    admin_key: str
    show: Callable[[int, int], None] = lambda done, total: None
    tally: Tally = field(default_factory=Tally)
    backlogs: dict[str, Backlog] = field(
        default_factory=lambda: {platform.name: Backlog() for platform in PLATFORMS}
    )

    def run(self, then: Callable[["Play", HubClient], T]) -> T:
        """Play to the end, and return what `then` makes of it while the hub still answers."""
        with TestClient(self.app) as http:
            self._register(http)
            self._root = self.world.make_root("founder", self.folder / "root.bundle")
            self._push("founder", self.folder / "root.bundle", [self._root])
            # The first commit is trained before anything else: it becomes the baseline.
            for number, worker in enumerate(self.workers):
                is_early = number < len(PLATFORMS)
                self._at(1.0 if is_early else self.dice.uniform(120, 400), self._work, worker)
            for name in self.appetites:
                self._at(self.dice.uniform(10, 60), self._look, name)
            while self._events and self._done < self.size.runs:
                self._now, _, act, args = heapq.heappop(self._events)
                self.clock.moment = self._start + timedelta(seconds=self._now)
                act(*args)
            return then(self, self._agents["founder"])

    def __post_init__(self) -> None:
        self.dice: random.Random = self.world.dice
        self._start, self._now, self._done, self._number = self.clock(), 0.0, 0, 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._agents: dict[str, HubClient] = {}
        #: By agent.
        self.appetites: dict[str, tuple[float, int, float]] = {}
        self._boards: tuple[float, list[wire.Leaderboard]] = (-1e9, [])
        self._leaves: dict[str, Commit] = {}
        #: Commits on which their own agents have not built.
        self._wanted: dict[str, Commit] = {}
        self._returning: list[tuple[float, str, Commit]] = []
        self._own_in_row: Counter[str] = Counter()
        self.workers: list[Worker] = []

    def _register(self, http: TestClient) -> None:
        admin = HubClient("http://testserver", self.admin_key, http)

        def join(name: str, role: wire.Role) -> HubClient:
            key = admin.create_agent(name, role).api_key
            return HubClient("http://testserver", key, http)

        for number in range(self.size.agents):
            name, part = f"agent{number:03}", number / self.size.agents
            kind = FLOOD if part < FLOOD[0] else STEADY if part < FLOOD[0] + STEADY[0] else LIGHT
            self._agents[name], self.appetites[name] = join(name, wire.Role.AGENT), kind
        self._agents["founder"] = join("founder", wire.Role.AGENT)
        for number in range(self.size.workers):
            platform = PLATFORMS[number % len(PLATFORMS)]
            claim = wire.Claim(
                platform=platform.name,
                budget_seconds=BUDGET_SECONDS,
                data_fingerprint="f" * 64,
                scoring="isolated+audit",
                data="climbmix",
            )
            client = join(f"gpu{number:02}", wire.Role.WORKER)
            self.workers.append(Worker(client, platform, claim))

    def _at(self, delay: float, act: Callable[..., None], *args: object) -> None:
        self._number += 1
        heapq.heappush(self._events, (self._now + delay, self._number, act, args))

    # Agents -------------------------------------------------------------------------------------

    def _look(self, name: str) -> None:
        """Push until as much waits as the agent wants to have waiting."""
        _, wanted, pause = self.appetites[name]
        lacking = wanted - min(backlog.count(name) for backlog in self.backlogs.values())
        for _ in range(lacking):
            self._push_change(name, self._choose_parent())
        if self.appetites[name] is FLOOD:
            for _ in range(FOLLOW_UPS):
                mine = [leaf for leaf in self._leaves.values() if leaf.agent == name]
                self._push_change(name, self.dice.choice(mine))
        self._at(self.dice.expovariate(1 / pause), self._look, name)

    def _push_change(self, name: str, parent: Commit) -> None:
        length = self.dice.choice((2, 3)) if self.dice.random() < CHAINS else 1
        out = self.folder / "push.bundle"
        self._push(name, out, self.world.make_change(parent, name, length, out))

    def _choose_parent(self) -> Commit:
        luck = self.dice.random()
        boards = [board for board in self._look_at_boards() if board.record is not None]
        if not boards:
            return self._root
        if luck > RECORD + BEST + ANY:
            return self.dice.choice(list(self._leaves.values()))
        board = self.dice.choice(boards)
        if luck < RECORD and board.record is not None:
            return self.world.commits[board.record.commit]
        shown = board.entries[:5] if luck < RECORD + BEST else board.entries
        return self.world.commits[self.dice.choice(shown).commit]

    def _look_at_boards(self) -> list[wire.Leaderboard]:
        """As some agent saw them in the last minutes."""
        if self._now - self._boards[0] > BUDGET_SECONDS / 2:
            self._boards = self._now, self._agents["founder"].leaderboard(limit=50)
        return self._boards[1]

    def _push(self, name: str, bundle: Path, chain: list[Commit]) -> None:
        self._agents[name].push(bundle)
        self.tally.pushes[name] += 1
        # What is covered by the rest of its own bundle was never a leaf.
        self._leaves.pop(chain[0].parent, None)
        self._leaves[chain[-1].hash] = chain[-1]
        parent = self.world.commits.get(chain[0].parent)
        # Only its own agent takes a waiting commit back by building on it.
        is_own = parent is not None and parent.agent == chain[0].agent
        if is_own:
            self._wanted.pop(chain[0].parent, None)
        self._wanted[chain[-1].hash] = chain[-1]
        codes = {commit.code.number for commit in self._wanted.values()}
        for backlog in self.backlogs.values():
            backlog.push(chain[-1])
            if parent is not None and is_own:
                backlog.cover(parent, parent.code.number in codes)

    # Workers ------------------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        """Claim; then train to some end."""
        backlog = self.backlogs[worker.platform.name]
        self._return_lost()
        with self.app.state.hub.db.read() as conn:
            own = conn.execute(_OWN, {"platform": worker.platform.name}).scalar_one()
        waiting = len(backlog.waiting)
        run = worker.client.claim(worker.claim)
        if run is None:
            if own or waiting:
                self._odd(f"{waiting} and {own} of the hub's own wait, and a claim got nothing")
            self._at(30, self._work, worker)
            return
        commit = self.world.commits[run.commit]
        is_own = run.kind is wire.RunKind.REPLICATE
        self._count_own(worker.platform.name, is_own, both=bool(own and waiting))
        if (run.seed == 42) is is_own:
            self._odd(f"a {run.kind} run has the seed {run.seed}")
        if not is_own and not backlog.lease(commit):
            self._odd(f"{commit.hash} is trained, but should not wait")
        self._train(worker, run, commit)

    def _count_own(self, platform: str, is_own: bool, both: bool) -> None:
        if not both:
            self._own_in_row[platform] = 0
            return
        if self._own_in_row[platform] >= SAVED_UP:
            self.tally.both += 1
            self.tally.own_of_both += is_own
        self._own_in_row[platform] += is_own

    def _train(self, worker: Worker, run: wire.Run, commit: Commit) -> None:
        luck, ends = self.dice.random(), BUDGET_SECONDS + self.dice.uniform(*EXTRA_SECONDS)
        broken = commit.code.nature == "broken" or luck < CRASH
        if broken:
            ends = self.dice.uniform(5, 40)
        elif luck > 1 - SILENT - DRAIN:
            ends = self.dice.uniform(5, BUDGET_SECONDS)
        beats = int((ends - 1) // BEAT_SECONDS)
        if beats:
            self._at(BEAT_SECONDS, self._beat, worker, run, beats)
        if broken:
            self._at(ends, self._finish, worker, run, commit, wire.Outcome.CRASH)
        elif luck > 1 - SILENT:
            self._fall_silent(worker, run, commit, beats * BEAT_SECONDS)
        elif luck > 1 - SILENT - DRAIN:
            self._at(ends, self._release, worker, run, commit)
        else:
            self._at(ends, self._finish, worker, run, commit, wire.Outcome.OK)

    def _beat(self, worker: Worker, run: wire.Run, beats: int) -> None:
        worker.client.heartbeat(run.id, wire.Heartbeat(fence=run.fence))
        if beats > 1:
            self._at(BEAT_SECONDS, self._beat, worker, run, beats - 1)

    def _finish(self, worker: Worker, run: wire.Run, commit: Commit, outcome: wire.Outcome) -> None:
        is_ok = outcome is wire.Outcome.OK
        score = self.world.measure(commit.code, worker.platform.name) if is_ok else None
        report = wire.ResultCreate(fence=run.fence, outcome=outcome, val_bpb=score)
        result = worker.client.finish(run.id, report)
        if not result.track.startswith(f"{worker.platform.name}/"):
            self._odd(f"result {result.id} of {worker.platform.name} is in {result.track}")
        self._done += 1
        self.tally.runs[run.kind] += 1
        self.tally.runs["crash"] += not is_ok
        self.show(self._done, self.size.runs)
        self._work(worker)

    def _release(self, worker: Worker, run: wire.Run, commit: Commit) -> None:
        worker.client.release(run.id, wire.Release(fence=run.fence, reason="preempted"))
        self.tally.runs["released"] += 1
        if run.kind is wire.RunKind.FIRST:
            self.backlogs[worker.platform.name].void(commit)
        self._at(60, self._work, worker)

    def _fall_silent(self, worker: Worker, run: wire.Run, commit: Commit, after: float) -> None:
        """No word from the worker any more; some come back with a result nobody waits for."""
        self.tally.runs["silent"] += 1
        if run.kind is wire.RunKind.FIRST:
            expires = self._now + after + LEASE_SECONDS
            self._returning.append((expires, worker.platform.name, commit))
        if self.dice.random() < LATE:
            self._at(after + 600, self._report_late, worker, run)
        self._at(after + 700, self._work, worker)

    def _report_late(self, worker: Worker, run: wire.Run) -> None:
        report = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.OK, val_bpb=0.6)
        try:
            worker.client.finish(run.id, report)
            self._odd(f"late result of run {run.id} was taken")
        except ApiError as refusal:
            if refusal.code is not wire.ErrorCode.LEASE_LOST:
                raise
        self.tally.runs["late"] += 1

    def _return_lost(self) -> None:
        """Leases that have passed: a claim puts their runs back before it chooses."""
        for lost in [lost for lost in self._returning if lost[0] < self._now]:
            self._returning.remove(lost)
            self.backlogs[lost[1]].void(lost[2])

    def _odd(self, what: str) -> None:
        self.tally.odd.append(what)
