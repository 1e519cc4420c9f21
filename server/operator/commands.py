"""The operator's commands, apart from `serve`: thin, each around one function of this room."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.errors import HubError
from server.operator.meter import open_meter

if TYPE_CHECKING:
    from server.operator.fsck import Report

Data = Annotated[
    Path, typer.Option(envvar="AGENTHUB_DATA", help="Directory of database, repository, keys.")
]
NewData = Annotated[
    Path, typer.Option(envvar="AGENTHUB_DATA", help="The hub's directory, new or empty.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def fsck(
    data: Data = Path("data"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Re-index what git has; correct rows; delete nothing.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read every file too, not only commits and trees.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare the index with git, both ways; works while the hub runs. Exit 1: problems.

    Example: agenthub fsck --data ./data --repair
    """
    from server.operator.fsck import check
    from server.operator.repair import repair as mend

    with refusals(), open_meter(quiet) as meter:
        report = check(data, meter, full=full)
        if repair and (report.problems or report.adoptable):
            done = mend(data, meter, datetime.now(UTC))
            report = check(data, meter, full=full)
            report.repaired = done
    _print_report(report, as_json)


def backup(
    target: Annotated[Path, typer.Argument(help="New folder, or FILE.tar, .tar.gz, .tgz.")],
    data: Data = Path("data"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy the hub, also while it runs. The copy holds the admin key: keep it as safe.

    Example: agenthub backup /backups/hub-2026-11-23.tar.gz --data ./data
    """
    from server.operator.backup import backup as copy

    with refusals(), open_meter(quiet) as meter:
        report = copy(data, target, meter, datetime.now(UTC))
    typer.echo(f"backed up to {target} (with the admin key, if the hub keeps one)", err=True)
    _print_report(report, as_json)


def restore(
    source: Annotated[Path, typer.Argument(help="Folder or archive that `backup` made.")],
    data: NewData = Path("data"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a hub's data directory of a backup, and check it.

    Example: agenthub restore /backups/hub-2026-11-23.tar.gz --data ./data
    """
    from server.operator.backup import restore as copy

    with refusals(), open_meter(quiet) as meter:
        report = copy(source, data, meter)
    typer.echo(f"restored to {data}: `agenthub serve --data {data}`", err=True)
    _print_report(report, as_json)


def import_(
    source: Annotated[Path, typer.Argument(help="Data directory of the original AgentHub.")],
    data: NewData = Path("data"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a hub of the original's data: keys, commits, channels and posts are kept.

    Example: agenthub import ./old-data --data ./data
    """
    from server.operator.importing import import_original

    with refusals(), open_meter(quiet) as meter:
        summary = import_original(source, data, meter, datetime.now(UTC))
    if as_json:
        _print_json(summary.to_json())
        return
    for line in summary.lines():
        typer.echo(line)


def export(
    target: Annotated[Path, typer.Argument(help="Folder, new or empty.")],
    data: Data = Path("data"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a git bundle of everything and JSON lines; works while the hub runs. No keys.

    Example: agenthub export ./export --data ./data
    """
    from server.operator.export import export as write

    with refusals(), open_meter(quiet) as meter:
        manifest = write(data, target, meter, datetime.now(UTC))
    if as_json:
        _print_json(manifest)
        return
    for name, count in manifest["counts"].items():
        typer.echo(f"{count} {name}")


def register(cli: typer.Typer) -> None:
    for command in (fsck, backup, restore, export):
        cli.command()(command)
    cli.command("import")(import_)


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except HubError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        # A full disk, a folder of somebody else's: nothing to look for in our code.
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _print_report(report: "Report", as_json: bool) -> None:
    if as_json:
        _print_json(report.to_json())
    else:
        for line in report.repaired:
            typer.echo(f"repaired: {line}")
        for finding in report.problems:
            can = " (--repair mends it)" if finding.is_repairable else ""
            typer.echo(f"problem: {finding.code}: {finding.subject}: {finding.message}{can}")
        for sha in report.adoptable:
            typer.echo(
                f"note: commit {sha} was never acknowledged; --repair adopts it, the hub stopped"
            )
        word = "clean" if report.is_clean else f"{len(report.problems)} problems"
        typer.echo(f"{report.commits} commits, {report.objects} objects: {word}")
    if not report.is_clean:
        raise typer.Exit(1)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
