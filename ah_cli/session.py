"""What all commands share: the options they have in common, the hub they talk to, their words."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ah_cli import config, output
from ah_cli.failures import Refusal

if TYPE_CHECKING:
    from ah_cli.client import HubClient

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
Track = Annotated[
    str | None, typer.Option("--track", help="Only this one; the start of its name will do.")
]
Hash = Annotated[str, typer.Argument(metavar="HASH", help="4 digits or more.", show_default=False)]
Message = Annotated[
    list[str], typer.Argument(metavar="MESSAGE", help="Words, or - for stdin.", show_default=False)
]


def connect() -> "HubClient":
    """The hub as the configured identity; raise ConfigError when there is none."""
    # The client loads httpx and pydantic: half of a command's start, none of --help's.
    from ah_cli.client import HubClient

    identity = config.load()
    return HubClient(identity.server_url, identity.api_key)


def cap(limit: int) -> int:
    """The limit as the hub will apply it; say so if that is less than asked for."""
    from server import wire

    if limit > wire.LIST_MAX:
        output.note(f"note: the hub lists at most {wire.LIST_MAX}")
    return min(limit, wire.LIST_MAX)


def read_message(words: list[str]) -> str:
    """The words as one text, or standard input for a lone `-`."""
    if words != ["-"]:
        return " ".join(words)
    try:
        return sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise Refusal("standard input is not UTF-8 text", "pass text") from error
