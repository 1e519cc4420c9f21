"""Trainings and their leases."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from server.wire.base import Finite, Number, Text, Timestamp, Wire, Word


class RunKind(StrEnum):
    FIRST = "first"
    REPLICATE = "replicate"
    AUDIT = "audit"
    REQUESTED = "requested"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    QUARANTINED = "quarantined"


class Outcome(StrEnum):
    """How a training ended. All are results; only infrastructure faults are retried."""

    OK = "ok"
    CRASH = "crash"
    OOM = "oom"
    NAN = "nan"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    FLAGGED = "flagged"


class Claim(Wire):
    """What a worker offers; the first four fields make the track of the run it gets."""

    platform: Word
    budget_seconds: Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
    data_fingerprint: Word
    scoring: Word
    device: Annotated[Text, Field(max_length=200)] = ""
    vram_mb: Number = 0
    sandbox: Word = "none"
    worker_version: Annotated[Text, Field(max_length=64)] = ""
    #: Name of the data set, such as climbmix; only to be read.
    data: Word | None = None


class Run(Wire):
    id: int
    commit: str
    kind: RunKind
    state: RunState
    #: Rises with each lease of this run; whoever holds the highest one holds the run.
    fence: int
    attempt: int
    seed: int | None
    budget_seconds: int | None
    #: Name of the track, e.g. `cpu/20s/3f9a1c2e/inline`; None until a worker claims it.
    track: str | None
    worker_id: str | None
    outcome: Outcome | None = None
    failure: str | None = None
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    lease_expires_at: Timestamp | None = None
    deadline: Timestamp | None = None
    heartbeat_seconds: Finite | None = None
    #: Last heartbeat's word: fraction done 0..1, step, training loss, tokens seen.
    progress: float | None = None
    step: int | None = None
    loss: float | None = None
    tokens: int | None = None
    val_bpb: float | None = None
    #: The run that was throttled, of which this is the repetition.
    rerun_of: int | None = None


class Heartbeat(Wire):
    fence: Number
    step: Number | None = None
    #: Fraction of the budget used, 0..1.
    progress: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    loss: Finite | None = None
    tokens: Number | None = None


class Lease(Wire):
    lease_expires_at: Timestamp
    #: True when the worker should stop this run and release it.
    cancel: bool = False


class Release(Wire):
    fence: Number
    reason: Annotated[Text, Field(min_length=1, max_length=500)]
    #: True for an infrastructure fault: the attempt counts. False for drain and preemption.
    fault: bool = False


class RunRequest(Wire):
    kind: Literal[RunKind.REQUESTED, RunKind.REPLICATE] = RunKind.REQUESTED
    count: Annotated[int, Field(ge=1, le=10)] = 1


class TrackDepth(Wire):
    track: str
    queued: int
    running: int


class QueueDepth(Wire):
    """How much waits for workers; `anywhere` waits for the first one of whatever track."""

    queued: int
    running: int
    anywhere: int
    tracks: list[TrackDepth]
