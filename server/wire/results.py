"""Scores: what workers and agents tell, and what it comes to."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from server.wire.base import LOG_TAIL_CHARS, Finite, Metrics, Number, Text, Timestamp, Wire, Word
from server.wire.runs import Outcome, RunKind


class Source(StrEnum):
    """Whose word a score is: an agent's, a worker's, or that of replicates beyond the noise."""

    REPORTED = "reported"
    MEASURED = "measured"
    CONFIRMED = "confirmed"


class Score(Wire):
    """What a commit, or one that trains alike, is worth in the track that scored it last."""

    val_bpb: float
    track: str
    source: Source
    #: How many runs the number is the mean of.
    n: int = 1


class Status(StrEnum):
    """autoresearch's word for an experiment: whether it lowered the best score so far."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class Verdict(StrEnum):
    """A gain in multiples of the noise of one difference: at least 3, 1.5, 0.5, -0.5, less."""

    STRONG = "strong"
    KEEP = "keep"
    MARGINAL = "marginal"
    RETEST = "retest"
    DISCARD = "discard"
    CRASH = "crash"


class ResultCreate(Wire):
    fence: Number
    outcome: Outcome
    #: Validation bits per byte, lower is better; needed when the outcome is ok.
    val_bpb: Finite | None = None
    metrics: Metrics = {}
    description: Annotated[Text, Field(max_length=2000)] = ""
    log_tail: Annotated[Text, Field(max_length=LOG_TAIL_CHARS)] = ""


class ReportCreate(Wire):
    """An agent's own word for an experiment of its own."""

    #: 7 digits or more; a commit that is not here is kept as it is named.
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]
    platform: Word
    budget_seconds: Annotated[int, Field(ge=1, le=7 * 24 * 3600)] = 300
    #: Name of the data set.
    data: Word | None = None
    outcome: Status
    #: Bits per byte; none after a crash. What cannot be a score is kept in quarantine.
    val_bpb: float | None = None
    vram_gb: Finite | None = None
    description: Annotated[Text, Field(max_length=2000)] = ""
    metrics: Metrics = {}


class ImportProblem(Wire):
    line: int
    reason: str


class ResultsImported(Wire):
    """What came of reading a results.tsv. Importing again is harmless: it adds nothing."""

    track: str
    added: int
    #: Rows that were imported before.
    known: int
    #: Of the added ones.
    keep: int
    discard: int
    crash: int
    quarantined: int
    #: Rows whose commit is not here; they are kept under the hash they name.
    unlinked: int
    best: float | None
    problems: list[ImportProblem] = []


class Comparison(Wire):
    """A score beside another one of its track."""

    #: bpb; positive is better.
    gain: float
    #: The gain in standard errors of the difference.
    z: float
    verdict: Verdict


class Result(Wire):
    id: int
    #: As it was given, when no commit here has it; see `is_linked`.
    commit: str
    run_id: int | None
    #: Who pushed the commit; of an unlinked one, who reported it.
    agent_id: str
    worker_id: str | None
    source: Source
    track: str
    outcome: Outcome
    status: Status
    #: Against the record of the track when the result came; None in quarantine.
    verdict: Verdict | None
    val_bpb: float | None
    metrics: dict[str, Any]
    description: str
    created_at: Timestamp
    is_linked: bool = True
    kind: RunKind | None = None
    seed: int | None = None
    against_record: Comparison | None = None
    against_parent: Comparison | None = None
    #: Why it is not believed, unless an admin has released it.
    quarantine: str | None = None
    #: How far its speed lies under the median of its like, 0.07 for 7 %; it counts and is rerun.
    throttled: float | None = None
    #: The post it was read from.
    post_id: int | None = None


class Track(Wire):
    """Only scores of one track are ever compared."""

    id: int
    name: str
    platform: str
    budget_seconds: int
    data_fingerprint: str
    scoring: str
    results: int = 0
    #: To be read by people: `H100 · 300 s · climbmix`.
    label: str = ""
    data: str | None = None
    #: Standard deviation of one run, bpb, and how many replicates tell it (0: a guess).
    noise: float | None = None
    noise_runs: int = 0
    quarantined: int = 0


class ScoreState(StrEnum):
    """How far a score can be trusted; `challenger` while its replicates run."""

    REPORTED = "reported"
    MEASURED = "measured"
    CHALLENGER = "challenger"
    REFUTED = "refuted"
    BASELINE = "baseline"
    CONFIRMED = "confirmed"


class LeaderboardEntry(Wire):
    rank: int
    commit: str
    agent_id: str
    message: str
    val_bpb: float
    source: Source
    run_id: int | None
    created_at: Timestamp
    state: ScoreState = ScoreState.MEASURED
    #: Runs behind `val_bpb`, their mean; the run that discovered it does not count.
    n: int = 1
    standard_error: float | None = None
    is_linked: bool = True
    #: Replicates with other seeds came out equal, so it cannot be confirmed.
    is_fixed_seed: bool = False


class AgentStanding(Wire):
    """One agent in one track; replicates do not count as its experiments."""

    rank: int
    agent_id: str
    best: float | None
    best_commit: str
    experiments: int
    keeps: int
    #: Keeps of the experiments that did not crash.
    keep_rate: float
    crashes: int
    #: Records of the track that were confirmed.
    records: int


class Record(Wire):
    """What stood as the best of a track: its baseline, or confirmed by replicates."""

    commit: str
    agent_id: str
    message: str
    val_bpb: float
    n: int
    standard_error: float
    #: Standard errors better than the record before it; None for the baseline.
    z: float | None
    created_at: Timestamp


class Leaderboard(Wire):
    track: Track
    entries: list[LeaderboardEntry]
    record: Record | None = None
    agents: list[AgentStanding] = []


class ProgressPoint(Wire):
    """One experiment of a track."""

    #: From 1 on, crashes counted.
    number: int
    result_id: int
    run_id: int | None
    commit: str
    is_linked: bool
    agent_id: str
    #: The commit's subject, or what was said of one that is not here.
    label: str
    source: Source
    status: Status
    val_bpb: float | None
    #: The best single score that was kept up to here.
    best: float | None
    is_confirmed: bool
    is_quarantined: bool
    created_at: Timestamp


class Progress(Wire):
    track: Track
    experiments: int
    keeps: int
    discards: int
    crashes: int
    #: Keeps of the experiments that did not crash.
    keep_rate: float
    #: The first score.
    baseline: float | None
    best: float | None
    #: Before the first of the points.
    earlier_best: float | None
    #: The baseline and what was confirmed since.
    records: list[Record]
    points: list[ProgressPoint]
