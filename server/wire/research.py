"""For whoever plans the next experiment: analysis, frontier, similar ones."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from server.wire.base import SIMILAR_DEFAULT, SIMILAR_MAX, Text, Timestamp, Wire
from server.wire.results import Record, Score, Track
from server.wire.runs import Outcome, RunState


class Trend(StrEnum):
    #: Fewer experiments than a trend takes.
    NEW = "new"
    IMPROVING = "improving"
    PLATEAU = "plateau"


class ChangeStat(Wire):
    """Experiments that touched one setting or part of the code, and what came of them."""

    kind: str
    tried: int
    kept: int
    crashed: int
    #: Over the parents, bpb; positive is better.
    mean_gain: float | None
    best_gain: float | None
    best_commit: str | None


class FailureStat(Wire):
    outcome: Outcome
    count: int
    #: Of the newest one.
    description: str
    commit: str


class WorkerState(StrEnum):
    TRAINING = "training"
    IDLE = "idle"
    #: Holds a run and has been silent for longer than its lease.
    STALE = "stale"
    #: Not heard of for an hour.
    GONE = "gone"


class WorkerStat(Wire):
    id: str
    state: WorkerState
    last_seen_at: Timestamp | None
    run_id: int | None
    #: Of the run it holds, or held last.
    track: str | None
    #: Since the day before.
    runs: int


class Analysis(Wire):
    """What a track has come to, for whoever plans the next experiment."""

    track: Track
    trend: Trend
    experiments: int
    #: Since the best single score came down by more than the noise of one run.
    since_gain: int
    keep_rate: float
    recent_keep_rate: float
    crashes: int
    best: float | None
    record: Record | None
    #: What was tried most, first; `paid` by mean gain, `failed` never kept.
    paid: list[ChangeStat]
    failed: list[ChangeStat]
    failures: list[FailureStat]
    workers: list[WorkerStat]
    quarantined: int
    #: Challengers of the record whose replicates are to come.
    challengers: int


class FrontierEntry(Wire):
    """A commit to build on, and why."""

    rank: int
    commit: str
    agent_id: str
    message: str
    #: In the track that was asked about.
    score: Score | None
    is_leaf: bool
    children: int
    #: Children that came out no better, or crashed.
    failed: int
    #: When it or a child of it was pushed last.
    touched_at: Timestamp
    why: str


class Frontier(Wire):
    #: None while nothing has a score.
    track: str | None
    policy: str
    entries: list[FrontierEntry]


class SimilarQuery(Wire):
    """What to look for: a commit, or a text of words, of a diff, or of both."""

    commit: str | None = None
    text: Text | None = None
    #: Of an experiment that is not here: finds the commits that have the very same tree.
    tree: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=SIMILAR_MAX)] = SIMILAR_DEFAULT


class CommitLine(Wire):
    """A commit in short."""

    hash: str
    agent_id: str
    message: str
    created_at: Timestamp


class Similar(Wire):
    """A past experiment near to what was asked for, and what came of it."""

    commit: CommitLine
    #: 1: all terms are shared, 0: none. Rare terms, numbers and names in code count more.
    similarity: float
    #: The files are equal, so it is the same experiment.
    same_tree: bool
    best: Score | None
    #: How it ended, `ok` when it has a score; None when no training of it has ended.
    outcome: Outcome | None
    #: What its last result says, cut.
    description: str
    #: Of its run, while there is no result.
    state: RunState | None
    #: The most telling terms that are shared; a minus marks what both take away.
    matched: list[str]
