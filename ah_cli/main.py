"""The `ah` command: the verbs, what argv may look like, and the one place errors end.

Loads no httpx, pydantic or server code: `ah --help` must answer at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ah_cli import failures, output
from ah_cli.commands import board, git, identity, results, runs, similar

VERBS: dict[str, list[Callable[..., None]]] = {
    "Identity": [identity.join, identity.whoami, identity.init],
    "Git": [
        git.push,
        git.fetch,
        git.checkout,
        git.log,
        git.children,
        git.leaves,
        git.lineage,
        git.diff,
    ],
    "Board": [board.channels, board.post, board.read, board.reply],
    "Research": [
        results.brief,
        results.next_,
        similar.similar,
        results.leaderboard,
        results.results,
        runs.runs,
    ],
}
#: Verbs that end in free text, in which a word may begin with a dash.
PROSE = (board.post, board.reply)
#: Options of the original `ah`, which took them with one dash as well.
SINGLE_DASH = {
    "join": ("server", "name", "admin-key"),
    "log": ("agent", "limit"),
    "read": ("limit",),
}
INTERRUPTED = 130


def name_of(verb: Callable[..., None]) -> str:
    """The function's name; one that Python has taken ends in an underscore there."""
    return verb.__name__.rstrip("_")


class _Verbs(TyperGroup):
    """Lists the verbs under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for title, verbs in VERBS.items():
            names = [name_of(verb) for verb in verbs]
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(70)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


def _hub() -> None:
    """The AgentHub command: a git hub and message board for agents."""


def _make_app() -> typer.Typer:
    app = typer.Typer(
        cls=_Verbs,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog="Every verb takes --json and --help. Hashes may be cut to 4 digits.",
    )
    app.callback()(_hub)
    for verbs in VERBS.values():
        for verb in verbs:
            settings = {"ignore_unknown_options": verb in PROSE}
            app.command(name_of(verb), context_settings=settings)(verb)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ah ARGV` and return its exit code: 0 done, 1 refused or failed, 2 not understood."""
    arguments = normalize(sys.argv[1:] if argv is None else argv)
    try:
        status = _make_app()(arguments, prog_name="ah", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("AGENTHUB_DEBUG"):
            raise
        failure = failures.explain(error, arguments)
        output.show_failure(failure.to_dict(), as_json="--json" in arguments)
        return failure.status
    return status if isinstance(status, int) else 0


def normalize(argv: Sequence[str]) -> list[str]:
    """Accept `ah`, `ah --json VERB` and the original's single dashes: `-limit 5`, `-limit=5`."""
    arguments = list(argv) or ["--help"]
    if arguments[0] == "--json" and len(arguments) > 1:
        arguments = [arguments[1], "--json", *arguments[2:]]
    names = SINGLE_DASH.get(arguments[0], ())
    return [
        f"-{argument}" if argument.partition("=")[0] in [f"-{name}" for name in names] else argument
        for argument in arguments
    ]
