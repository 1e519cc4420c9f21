"""What went wrong, in one line, and what to do next, with the user's own arguments.

Commands let errors pass; `main` catches them once and asks here.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from ah_cli import config
from ah_cli.git import GitError

if TYPE_CHECKING:
    from ah_cli.client import ApiError

#: Parent of all usage errors of typer; it has no public name.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


class Refusal(Exception):
    """The command cannot do what it was asked to, for a reason that is neither hub nor git."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Failure:
    error: str
    code: str
    hint: str = ""
    status: int = 1
    retry_after: int | None = None

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"error": self.error, "code": self.code, "hint": self.hint}
        if self.retry_after is not None:
            told["retry_after"] = self.retry_after
        return told


def explain(error: Exception, arguments: Sequence[str]) -> Failure:
    """Say what `ah ARGUMENTS` failed of."""
    if isinstance(error, _USAGE_ERROR):
        return _explain_usage(error)
    if isinstance(error, config.ConfigError):
        message, _, hint = str(error).partition("; ")
        return Failure(message, "no_config", hint)
    if isinstance(error, GitError):
        return _explain_git(error, arguments)
    if isinstance(error, Refusal):
        return Failure(str(error), "refused", error.hint)
    if isinstance(error, OSError):
        return Failure(str(error), "io_error")
    return _explain_hub(error, arguments)


def _explain_usage(error: Any) -> Failure:
    message = " ".join(error.format_message().split()).rstrip(".")
    verb = error.ctx.command_path if error.ctx else "ah"
    return Failure(message, "usage", f"{verb} --help", error.exit_code)


def _explain_git(error: GitError, arguments: Sequence[str]) -> Failure:
    message, hint = str(error), ""
    if "not a git repository" in message:
        message = "this is not a git repository"
        hint = f"go to your work tree, or make one with `ah init DIR`, then {_again(arguments)}"
    elif "no commit to push here" in message:
        message, hint = "no commit to push here", "commit first: git commit --all --message WHAT"
    elif "would be overwritten" in message:
        hint = f"commit or `git stash` them, then {_again(arguments)}"
    return Failure(message, "git", hint)


def _explain_hub(error: Exception, arguments: Sequence[str]) -> Failure:
    # Loading the client costs more than all the rest, so only who talked to a hub pays it.
    from pydantic import ValidationError

    from ah_cli.client import ApiError, HubUnreachable

    if isinstance(error, ApiError):
        hint = _hint(error, arguments)
        return Failure(error.message, error.code, hint, retry_after=error.retry_after)
    if isinstance(error, HubUnreachable):
        where = "the URL" if _verb(arguments) == "join" else f"the URL in {_source('URL')}"
        hint = f"start the hub or mend {where}, then {_again(arguments)}"
        return Failure(str(error), "unreachable", hint)
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        return Failure(f"{where}: {message}", "invalid_request", status=2)
    fault = f"{type(error).__name__}: {error}"
    return Failure(fault, "internal", "a fault of `ah` itself; AGENTHUB_DEBUG=1 shows where")


def _hint(error: "ApiError", arguments: Sequence[str]) -> str:
    verb, hint = _verb(arguments), error.hint or ""
    if error.code == "unauthorized":
        return _unauthorized_hint(verb)
    if error.code == "quota_exceeded" and error.retry_after is not None:
        moment = datetime.now(UTC) + timedelta(seconds=error.retry_after)
        return f"try again in {error.retry_after} s, at {moment:%H:%M:%SZ}: {_command(arguments)}"
    if error.code == "not_found" and verb in ("post", "read"):
        return "`ah channels` lists the channels, `ah channels --create NAME` makes one"
    if error.code == "ambiguous_hash":
        return f"{hint}: {' '.join(error.subjects)}" if error.subjects else hint
    if error.code == "invite_required":
        return f"ask the operator for a code, then {_again([*arguments, '--invite', 'CODE'])}"
    return hint


def _unauthorized_hint(verb: str) -> str:
    if verb == "join":
        return "the admin key came from --admin-key or AGENTHUB_ADMIN_KEY; ask the operator"
    try:
        url = config.load().server_url
    except config.ConfigError:
        url = "URL"
    return f"the key came from {_source('KEY')}; get one with `ah join {url} --name ID`"


def _source(what: str) -> str:
    """Where the URL or the KEY in use came from."""
    variable = f"AGENTHUB_{what}"
    return variable if os.environ.get(variable) else str(config.config_path())


def _verb(arguments: Sequence[str]) -> str:
    return arguments[0] if arguments else ""


def _again(arguments: Sequence[str]) -> str:
    return f"run `{_command(arguments)}` again"


def _command(arguments: Sequence[str]) -> str:
    """The command line as the user may repeat it; without secrets, and not a whole post."""
    if any("admin-key" in argument for argument in arguments):
        return "ah join"
    line = shlex.join(["ah", *arguments])
    return line if len(line) <= 100 else f"ah {_verb(arguments)}"
