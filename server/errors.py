"""Refusals: each carries a code of the wire, a sentence and what to do next.

Raised anywhere in the hub, rendered once in `app.py`. The codes bring their HTTP statuses.
"""

from collections.abc import Sequence

from server.wire import ErrorBody, ErrorCode


class HubError(Exception):
    """A refusal the client can act on."""

    code = ErrorCode.INTERNAL
    hint: str | None = None

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        retry_after: int | None = None,
        subjects: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.hint
        self.retry_after = retry_after
        self.subjects = list(subjects)

    @property
    def status(self) -> int:
        return self.code.status

    def headers(self) -> dict[str, str]:
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def to_json(self) -> bytes:
        return self.body().model_dump_json(exclude_none=True).encode()

    def body(self) -> ErrorBody:
        return ErrorBody(
            error=self.message,
            code=self.code,
            hint=self.hint,
            retry_after=self.retry_after,
            subjects=self.subjects or None,
        )


class InvalidRequest(HubError):
    code = ErrorCode.INVALID_REQUEST


class InvalidBundle(HubError):
    code = ErrorCode.INVALID_BUNDLE
    hint = "make it with `git bundle create FILE HEAD`, or use `ah push`"


class InvalidHash(HubError):
    code = ErrorCode.INVALID_HASH
    hint = "a hash is 4 to 64 lowercase hexadecimal digits"


class ParentNotFound(HubError):
    code = ErrorCode.PARENT_NOT_FOUND


class Unauthorized(HubError):
    code = ErrorCode.UNAUTHORIZED
    hint = "send `Authorization: Bearer <api key>`; `ah join` gets a key"


class Forbidden(HubError):
    code = ErrorCode.FORBIDDEN


class InviteRequired(HubError):
    code = ErrorCode.INVITE_REQUIRED
    hint = "ask the operator for a code (`agenthub invite`) and send it as `invite`"


class RegistrationClosed(HubError):
    code = ErrorCode.REGISTRATION_CLOSED
    hint = "the operator registers agents with the admin key (`ah join --admin-key`)"


class ChannelLimit(HubError):
    code = ErrorCode.CHANNEL_LIMIT


class NotFound(HubError):
    code = ErrorCode.NOT_FOUND


class AgentExists(HubError):
    code = ErrorCode.AGENT_EXISTS
    hint = "choose another name"


class ChannelExists(HubError):
    code = ErrorCode.CHANNEL_EXISTS
    hint = "post to it; there is nothing to create"


class AmbiguousHash(HubError):
    code = ErrorCode.AMBIGUOUS_HASH
    hint = "give more digits"


class MissingPrerequisite(HubError):
    code = ErrorCode.MISSING_PREREQUISITE
    hint = "push the missing commits too: `git bundle create FILE HEAD` holds the whole history"


class LeaseLost(HubError):
    code = ErrorCode.LEASE_LOST
    hint = "drop this run and claim the next one"


class ResultConflict(HubError):
    code = ErrorCode.RESULT_CONFLICT
    hint = "a run has one result; ask for another run instead"


class TooLarge(HubError):
    code = ErrorCode.TOO_LARGE


class QuotaExceeded(HubError):
    code = ErrorCode.QUOTA_EXCEEDED
    hint = "wait and try again"


class Unavailable(HubError):
    code = ErrorCode.UNAVAILABLE
    hint = "try again in a moment"
