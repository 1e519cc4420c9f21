"""The verb about training: what runs and ran."""

from typing import Annotated, Literal

import typer

from ah_cli import output, render
from ah_cli.session import Json, Limit, cap, connect

#: The values of wire.RunState, without loading it.
State = Literal["queued", "running", "finished", "quarantined"]


def runs(
    id: Annotated[
        int | None, typer.Argument(metavar="ID", help="Only this one, in full.", show_default=False)
    ] = None,
    commit: Annotated[str | None, typer.Option(metavar="HASH", help="Only of this commit.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only on this worker.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = 20,
    log: Annotated[bool, typer.Option("--log", help="The end of the run's log.")] = False,
    as_json: Json = False,
) -> None:
    """List training runs, newest first, or show one.

    Columns: id, commit, outcome or state, val_bpb, worker, track, failure.

    Example: ah runs --state running

    Example: ah runs 12 --log
    """
    if log and id is None:
        raise typer.BadParameter("name the run, as in `ah runs 12 --log`", param_hint="--log")
    if id is None:
        _show_list(commit, worker, state, limit, as_json)
    elif log:
        _show_log(id, as_json)
    else:
        with connect() as hub:
            output.show(hub.run(id), render.run, as_json)


def _show_list(
    commit: str | None, worker: str | None, state: State | None, limit: int, as_json: bool
) -> None:
    from server import wire

    with connect() as hub:
        wanted = wire.RunState(state) if state else None
        found = hub.runs(commit, worker, wanted, cap(limit))
    output.show(found, render.runs, as_json, "no runs")


def _show_log(id: int, as_json: bool) -> None:
    with connect() as hub:
        log = hub.run_log(id)
    if as_json:
        output.show({"log": log}, render.nothing, as_json)
    else:
        output.show(log, render.text, empty="no log")
