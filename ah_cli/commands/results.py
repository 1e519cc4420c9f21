"""The verbs about scores: results, leaderboard, and what to build on next."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ah_cli import config, output, render
from ah_cli.failures import Refusal
from ah_cli.session import Json, Limit, Track, cap, connect, read_message

#: The values of wire.Status, without loading it.
Status = Literal["keep", "discard", "crash"]
Policy = Literal["best", "newest", "puct", "thompson", "fifo", "random"]


def results(
    action: Annotated[
        Literal["import", "release"] | None,
        typer.Argument(help="Bring a results.tsv in, or let a quarantined result count."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(metavar="FILE|ID", help="The file (- for stdin), or the result's id."),
    ] = None,
    commit: Annotated[str | None, typer.Option(metavar="HASH", help="Only of this commit.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    track: Track = None,
    status: Annotated[Status | None, typer.Option(help="Only such.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only those in quarantine.")
    ] = False,
    limit: Limit = 20,
    tsv: Annotated[bool, typer.Option("--tsv", help="As autoresearch's results.tsv.")] = False,
    platform: Annotated[str | None, typer.Option(help="Of the file: such as H100.")] = None,
    budget: Annotated[int, typer.Option(min=1, help="Of the file: seconds a run.")] = 300,
    data: Annotated[str | None, typer.Option(help="Of the file: such as climbmix.")] = None,
    admin_key: Annotated[
        str | None, typer.Option(envvar="AGENTHUB_ADMIN_KEY", help="To release.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List results, newest first, discards and crashes too; import some.

    Columns: id, commit, status, val_bpb, source, verdict, agent, track, description.

    Example: ah results --track H100 --status keep

    Example: ah results --tsv --track H100 > results.tsv

    Example: ah results import results.tsv --platform H100 --budget 300

    Example: ah results release 12 --admin-key KEY
    """
    if action == "import":
        _import(_wanted(target, "FILE"), platform, budget, data, as_json)
    elif action == "release":
        _release(_wanted(target, "ID"), admin_key, as_json)
    elif tsv:
        _export(track, as_json)
    else:
        _list(commit, track, limit, status, agent, quarantined, as_json)


def leaderboard(
    track: Track = None,
    by: Annotated[Literal["commit", "agent"], typer.Option(help="What to rank.")] = "commit",
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Rank the best scores, track by track; lower val_bpb is better.

    Columns by commit: rank, val_bpb (± standard error, n runs), how sure, commit, agent, subject.

    Columns by agent: rank, best val_bpb, agent, keeps/experiments, keep rate, records, commit.

    Example: ah leaderboard --track cpu

    Example: ah leaderboard --by agent
    """
    with connect() as hub:
        boards = hub.leaderboard(track, cap(limit), by)
    output.show(boards, render.leaderboards, as_json, "no scores")


def next_(
    policy: Annotated[
        Policy, typer.Option(help="How to weigh a good score against a fresh idea.")
    ] = "puct",
    track: Track = None,
    limit: Limit = 5,
    as_json: Json = False,
) -> None:
    """Rank the commits to build on next, and say why.

    Columns: rank, commit, val_bpb, why, agent, subject.

    Example: ah next

    Example: ah next --policy newest --limit 3
    """
    with connect() as hub:
        found = hub.frontier(policy, track, cap(limit))
    output.show(found, render.frontier, as_json, "no commits yet: `ah push` the first")


def brief(track: Track = None, as_json: Json = False) -> None:
    """Tell the state of the research in at most 1,500 tokens; --json has the whole analysis.

    Example: ah brief

    Example: ah brief --track H100 --json
    """
    with connect() as hub:
        if as_json:
            output.show(hub.analysis(track), render.nothing, as_json)
        else:
            output.show(hub.brief(track), render.table)


def _wanted(target: str | None, metavar: str) -> str:
    if target is None:
        raise typer.BadParameter("is missing", param_hint=metavar)
    return target


def _import(file: str, platform: str | None, budget: int, data: str | None, as_json: bool) -> None:
    if platform is None:
        raise typer.BadParameter("name the machine, as in --platform H100", param_hint="--platform")
    try:
        text = read_message(["-"]) if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"cannot read {file}: {error}", "name a results.tsv, or - for stdin"
        ) from None
    with connect() as hub, output.busy("importing"):
        done = hub.import_results(text, platform, budget, data)
    output.show(done, render.imported, as_json)


def _export(track: str | None, as_json: bool) -> None:
    with connect() as hub:
        table = hub.export_results(track)
    if as_json:
        output.show({"tsv": table}, render.nothing, as_json)
    else:
        output.show(table, render.table)


def _release(id: str, admin_key: str | None, as_json: bool) -> None:
    from ah_cli.client import HubClient

    if not id.isdecimal():
        raise typer.BadParameter(f"is no result's id: {id}", param_hint="ID")
    if not admin_key:
        raise typer.BadParameter("only an admin may release", param_hint="--admin-key")
    with HubClient(config.load().server_url, admin_key) as hub:
        released = hub.release_result(int(id))
    output.show([released], render.results, as_json)


def _list(
    commit: str | None,
    track: str | None,
    limit: int,
    status: Status | None,
    agent: str | None,
    quarantined: bool,
    as_json: bool,
) -> None:
    from server import wire

    wanted = wire.Status(status) if status else None
    with connect() as hub:
        found = hub.results(commit, track, cap(limit), wanted, agent, quarantined or None)
    output.show(found, render.results, as_json, "no results")
