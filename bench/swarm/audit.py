"""What came of a simulated swarm, read through the API and held against what is true."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ah_cli.client import HubClient
from bench.swarm.backlog import Backlog
from bench.swarm.play import Play, Tally
from bench.swarm.world import Code, Commit
from server import wire

#: An agent may be so far from its due, or by one run in a track: a run cannot be divided.
UNFAIR_MAX = 0.20
#: An agent that had work waiting for such a part of the runs, in every track, is a steady one.
STEADY_PART = 0.95
#: Two ways to sum up the same scores may differ by so much.
_NEAR = 1e-9
_CHALLENGED = {wire.ScoreState.CHALLENGER, wire.ScoreState.REFUTED, wire.ScoreState.CONFIRMED}


@dataclass(frozen=True)
class Share:
    """What an agent got in all tracks, in runs."""

    agent: str
    pushes: int
    #: Equal parts of the runs for which it had work waiting.
    due: float
    #: What each agent gets that always has work waiting: an equal part of what the others leave.
    level: float
    served: int
    #: Whether it nearly always had work waiting, in every track.
    is_steady: bool

    @property
    def is_fair(self) -> bool:
        """Max-min fair: who always waits gets the level, nobody more, and no one waits in vain."""
        least = self.level if self.is_steady else min(self.due, self.level)
        slack = max(UNFAIR_MAX * self.level, 1.0)
        return least - slack <= self.served <= self.level + slack


@dataclass
class Report:
    tally: Tally
    shares: list[Share]
    records: int = 0
    false_records: int = 0
    states: Counter[str] = field(default_factory=Counter)
    comparisons: int = 0
    problems: list[str] = field(default_factory=list)
    #: How much better than the baseline the last record of each track is in truth, and the best
    #: of what was trained.
    progress: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def challengers(self) -> int:
        return sum(self.states[state] for state in _CHALLENGED)


def audit(play: Play, client: HubClient) -> Report:
    report = Report(play.tally, _weigh(play), problems=list(play.tally.odd))
    for share in report.shares:
        if not share.is_fair:
            what = f"due {share.due:.1f}, {share.level:.1f} for who always waits"
            report.problems.append(f"{share.agent} got {share.served} runs: {what}")
    events = list(_list_events(client))
    boards = client.leaderboard(limit=wire.LIST_MAX)
    if len(boards) != len(play.backlogs):
        report.problems.append(f"{len(boards)} tracks instead of {len(play.backlogs)}")
    for board in boards:
        results = {result.id: result for result in _list_results(client, board.track.name)}
        _Track(board, play.world.commits, results, report).check(events)
    return report


def _weigh(play: Play) -> list[Share]:
    backlogs = play.backlogs.values()
    steady = {
        agent
        for agent in play.appetites
        if all(one.present[agent] >= STEADY_PART * one.shared for one in backlogs)
    }
    # Without any there is nobody to whom the others leave something.
    level = sum(_level(one, steady) if steady else one.shared for one in backlogs)
    return [
        Share(
            agent,
            pushes=play.tally.pushes[agent],
            due=sum(backlog.due[agent] for backlog in backlogs),
            level=level,
            served=sum(backlog.served[agent] for backlog in backlogs),
            is_steady=agent in steady,
        )
        for agent in play.appetites
    ]


def _level(backlog: Backlog, steady: set[str]) -> float:
    return sum(backlog.served[agent] for agent in steady) / len(steady)


def _list_events(client: HubClient) -> Iterator[wire.Event]:
    after = 0
    while found := client.events(after):
        yield from found
        after = found[-1].id


def _list_results(client: HubClient, track: str) -> list[wire.Result]:
    found: list[wire.Result] = []
    before: int | None = None
    while page := client.results(track=track, limit=wire.LIST_MAX, before=before):
        found += page
        before = page[-1].id
    return found


@dataclass
class _Track:
    """Replays one track's results and records in their order."""

    board: wire.Leaderboard
    commits: dict[str, Commit]
    results: dict[int, wire.Result]
    report: Report
    #: Scores of each code that count, by its number, in their order.
    scores: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    record: Code | None = None
    baseline: Code | None = None

    def check(self, events: list[wire.Event]) -> None:
        for event in events:
            if event.payload.get("track") != self.board.track.name:
                continue
            if event.kind == "result":
                self._take_result(self.results.pop(int(event.subject)))
            elif event.kind == "record":
                self._take_record(event.payload)
        for result in self.results.values():
            self._problem(f"result {result.id} was never announced")
        self._check_board()
        self._measure_progress()

    def _take_result(self, result: wire.Result) -> None:
        commit = self.commits[result.commit]
        if result.track != self.board.track.name:
            self._problem(f"result {result.id} is of {result.track}")
        parent = self.commits.get(commit.parent)
        for found, other in (
            (result.against_record, self.record),
            (result.against_parent, parent.code if parent else None),
        ):
            self._check_gain(result, found, other)
        if result.val_bpb is not None and not result.quarantine:
            self.scores[commit.code.number].append(result.val_bpb)
            if self.record is None:
                self.record = self.baseline = commit.code

    def _check_gain(
        self, result: wire.Result, found: wire.Comparison | None, other: Code | None
    ) -> None:
        value = None if other is None else self._value(other)
        if result.val_bpb is None or result.quarantine:
            value = None
        expected = None if value is None or result.val_bpb is None else value - result.val_bpb
        told = None if found is None else found.gain
        self.report.comparisons += 1
        if (told is None) is not (expected is None) or abs((told or 0) - (expected or 0)) > _NEAR:
            self._problem(f"result {result.id} has a gain of {told}, not {expected}")

    def _value(self, code: Code) -> float | None:
        """The mean without the run of the discovery; all runs of the baseline, chosen by nobody."""
        scores = self.scores.get(code.number)
        if not scores:
            return None
        return fmean(scores if code is self.baseline else scores[1:] or scores)

    def _take_record(self, payload: dict[str, Any]) -> None:
        code, platform = self.commits[payload["commit"]].code, self.board.track.platform
        self.report.records += 1
        if self.record is None or code.truth[platform] >= self.record.truth[platform]:
            self.report.false_records += 1
        if code.nature != "honest":
            self._problem(f"a {code.nature} code became the record")
        self.record = code

    def _check_board(self) -> None:
        for entry in self.board.entries:
            value = self._value(self.commits[entry.commit].code)
            if value is None or abs(value - entry.val_bpb) > _NEAR:
                self._problem(f"{entry.commit[:8]} at {entry.val_bpb}; its runs here say {value}")
            self.report.states[entry.state] += 1
        standing = self.board.record
        if standing is None or self.commits[standing.commit].code is not self.record:
            self._problem("the record is not the one that was announced last")

    def _measure_progress(self) -> None:
        platform = self.board.track.platform
        if self.baseline is not None and self.record is not None:
            start = self.baseline.truth[platform]
            best = min(self.commits[e.commit].code.truth[platform] for e in self.board.entries)
            self.report.progress[platform] = start - self.record.truth[platform], start - best

    def _problem(self, what: str) -> None:
        self.report.problems.append(f"{self.board.track.label}: {what}")
