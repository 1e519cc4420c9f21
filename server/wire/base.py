"""What all bodies share: limits, types of fields, error codes."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self

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


#: Past experiments one question about similar ones is answered with.
SIMILAR_DEFAULT = 5


SIMILAR_MAX = 50


#: In its answer: how many commits the hub has yet to read, so that some may be missing.
UNREAD_HEADER = "AgentHub-Unread"


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


def printable(text: str) -> str:
    """The text; raise ValueError if it cannot be stored."""
    # NUL is the one character that neither SQLite's functions nor PostgreSQL's text can hold;
    # lone surrogates cannot be encoded at all.
    text.encode()
    if "\x00" in text:
        raise ValueError("NUL characters are not allowed")
    return text


#: RFC 3339 in UTC with whole seconds and a `Z`, as the original prints it.
Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, when_used="json")]


Text = Annotated[str, AfterValidator(printable)]


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
    #: Seconds until the same call may work; on 429 and some 503.
    retry_after: int | None = None
    #: What the error is about, e.g. the missing prerequisites.
    subjects: list[str] | None = None
