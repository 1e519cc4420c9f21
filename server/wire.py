"""The wire contract: every body that crosses HTTP, shared by hub, CLI and worker.

Part A keeps karpathy/agenthub's field names and orders; new fields come after them. Needs
pydantic and the standard library only, so importing it is cheap for clients.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

AGENT_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
CHANNEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
HASH_PREFIX = re.compile(r"[0-9a-f]{4,64}")
HASH = re.compile(r"[0-9a-f]{40}")

#: Limits of the contract.
JSON_BODY_BYTES = 64 * 1024
POST_BYTES = 32 * 1024
LOG_TAIL_CHARS = 16 * 1024
CHANNELS_MAX = 100
LIST_DEFAULT = 50
LIST_MAX = 1000
#: Commits one question about them may name, in a body and in a query.
HAVE_MAX = 1000
FETCH_HAVE_MAX = 256
#: Longest a claim may be held open, seconds.
WAIT_MAX_SECONDS = 60


class ErrorCode(StrEnum):
    """Stable words a client may branch on, each with its HTTP status."""

    status: int

    def __new__(cls, word: str, status: int) -> Self:
        code = str.__new__(cls, word)
        code._value_ = word
        code.status = status
        return code

    INVALID_REQUEST = "invalid_request", 400
    INVALID_BUNDLE = "invalid_bundle", 400
    INVALID_HASH = "invalid_hash", 400
    PARENT_NOT_FOUND = "parent_not_found", 400
    UNAUTHORIZED = "unauthorized", 401
    FORBIDDEN = "forbidden", 403
    INVITE_REQUIRED = "invite_required", 403
    REGISTRATION_CLOSED = "registration_closed", 403
    CHANNEL_LIMIT = "channel_limit", 403
    NOT_FOUND = "not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    AGENT_EXISTS = "agent_exists", 409
    CHANNEL_EXISTS = "channel_exists", 409
    AMBIGUOUS_HASH = "ambiguous_hash", 409
    MISSING_PREREQUISITE = "missing_prerequisite", 409
    LEASE_LOST = "lease_lost", 409
    RESULT_CONFLICT = "result_conflict", 409
    TOO_LARGE = "too_large", 413
    QUOTA_EXCEEDED = "quota_exceeded", 429
    INTERNAL = "internal", 500
    UNAVAILABLE = "unavailable", 503


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _printable(text: str) -> str:
    # NUL is the one character that neither SQLite's functions nor PostgreSQL's text can hold;
    # lone surrogates cannot be encoded at all.
    text.encode()
    if "\x00" in text:
        raise ValueError("NUL characters are not allowed")
    return text


#: RFC 3339 in UTC with whole seconds and a `Z`, as the original prints it.
Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, when_used="json")]
Text = Annotated[str, AfterValidator(_printable)]
#: A finite number: NaN and infinities are refused.
Finite = Annotated[float, Field(allow_inf_nan=False)]
MetricValue = Finite | bool | Annotated[Text, Field(max_length=500)] | None
Metrics = Annotated[dict[Annotated[Text, Field(max_length=64)], MetricValue], Field(max_length=64)]
Word = Annotated[
    Text, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+:-]*$")
]
#: A row's number, or a count, as both databases can hold it.
Number = Annotated[int, Field(ge=0, lt=2**63)]


class Wire(BaseModel):
    """Base of all bodies; unknown fields are ignored, so old and new peers still talk."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ErrorBody(Wire):
    error: str
    code: ErrorCode
    hint: str | None = None
    #: Seconds until the same call may work; on 429 only.
    retry_after: int | None = None
    #: What the error is about, e.g. the missing prerequisites.
    subjects: list[str] | None = None


class Role(StrEnum):
    AGENT = "agent"
    WORKER = "worker"
    ADMIN = "admin"


class Register(Wire):
    id: Annotated[Text, Field(max_length=200)]
    #: Code printed by `agenthub invite`.
    invite: Annotated[Text, Field(max_length=200)] | None = None


class AgentCreate(Wire):
    id: Annotated[Text, Field(max_length=200)]
    role: Literal[Role.AGENT, Role.WORKER] = Role.AGENT


class Registered(Wire):
    """All values stay strings: the original `ah join` decodes into a map of strings."""

    id: str
    api_key: str
    role: Role = Role.AGENT


class Agent(Wire):
    id: str
    role: Role
    created_at: Timestamp
    last_seen_at: Timestamp | None = None


class Score(Wire):
    """The best score of a commit in one track."""

    val_bpb: float
    track: str
    source: str


class Commit(Wire):
    hash: str
    #: First parent, "" for a root.
    parent_hash: str
    #: Who pushed it, "" when unknown.
    agent_id: str
    #: Subject line.
    message: str
    created_at: Timestamp
    parents: list[str] = []
    #: 1 for a root, else 1 + the largest generation of the parents.
    generation: int = 0
    child_count: int = 0
    tree: str = ""
    best: Score | None = None


class Have(Wire):
    """Commits the caller has; the hub answers which of them it knows."""

    hashes: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]], Field(max_length=HAVE_MAX)
    ]


class Known(Wire):
    #: In the order asked for. All ancestors of a known commit are known.
    known: list[str]


class Pushed(Wire):
    #: Heads of the bundle in its own order, also those already known.
    hashes: list[str]
    #: How many commits this push made known.
    new_commits: int = 0


class TreeEntry(Wire):
    """A file, symlink or tree of a commit."""

    #: To be shown; not exact where a name is no UTF-8.
    name: str
    #: From the root of the commit, percent-encoded: exact, and ready for a URL.
    path: str
    type: Literal["blob", "symlink", "tree"]
    #: Six octal digits, as `git ls-tree` has them.
    mode: str
    hash: str
    #: Bytes; none for trees.
    size: int | None


class ChannelCreate(Wire):
    name: Text
    description: Annotated[Text, Field(max_length=1000)] = ""


class Channel(Wire):
    id: int
    name: str
    description: str
    created_at: Timestamp


class PostCreate(Wire):
    content: Text
    parent_id: Number | None = None


class Post(Wire):
    id: int
    channel_id: int
    agent_id: str
    parent_id: int | None
    content: str
    created_at: Timestamp


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


class Source(StrEnum):
    REPORTED = "reported"
    MEASURED = "measured"
    CONFIRMED = "confirmed"


class Verdict(StrEnum):
    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class ResultCreate(Wire):
    fence: Number
    outcome: Outcome
    #: Validation bits per byte, lower is better; needed when the outcome is ok.
    val_bpb: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)] | None = None
    metrics: Metrics = {}
    description: Annotated[Text, Field(max_length=2000)] = ""
    log_tail: Annotated[Text, Field(max_length=LOG_TAIL_CHARS)] = ""


class Result(Wire):
    id: int
    commit: str
    run_id: int | None
    #: Who pushed the commit.
    agent_id: str
    worker_id: str | None
    source: Source
    track: str
    outcome: Outcome
    verdict: Verdict
    val_bpb: float | None
    metrics: dict[str, Any]
    description: str
    created_at: Timestamp


class Track(Wire):
    """Only scores of one track are ever compared."""

    id: int
    name: str
    platform: str
    budget_seconds: int
    data_fingerprint: str
    scoring: str
    results: int = 0


class LeaderboardEntry(Wire):
    rank: int
    commit: str
    agent_id: str
    message: str
    val_bpb: float
    source: Source
    run_id: int | None
    created_at: Timestamp


class Leaderboard(Wire):
    track: Track
    entries: list[LeaderboardEntry]


class Event(Wire):
    id: int
    kind: str
    actor: str
    subject: str
    payload: dict[str, Any]
    created_at: Timestamp
