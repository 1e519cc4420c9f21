"""`ah-worker`: claims runs from a hub and trains them on this machine.

Exit codes: 0 done or drained, 1 something failed that a restart may mend, 2 do not restart me.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker.settings import NO_SANDBOX_RISK, OWN_TEMPLATE, Refused, Settings, parse_duration

app = typer.Typer(
    help="Train commits of an AgentHub on this machine and report their scores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CACHE = Path("~/.cache/agenthub")


@app.callback()
def _group() -> None:
    """Keeps `run` a command of its own while it is the only one."""


@app.command()
def run(
    hub: Annotated[str, typer.Option(help="Hub's URL [env AGENTHUB_URL, then ah's config]")] = "",
    key: Annotated[
        str, typer.Option(help="Worker's key [env AGENTHUB_KEY, which `ps` does not show]")
    ] = "",
    sandbox: Annotated[str, typer.Option(help=f"Only `none` for now: {NO_SANDBOX_RISK}")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:N or mps")] = "auto",
    budget: Annotated[
        str, typer.Option(help="Training time per run, e.g. 300s [300s on GPUs, 60s on CPUs]")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Exit after one run")] = False,
    max_runs: Annotated[int | None, typer.Option(min=1, help="Exit after so many runs")] = None,
    idle_exit: Annotated[str, typer.Option(help="Exit when idle so long, e.g. 10m")] = "",
    grace: Annotated[
        str, typer.Option(help="Time beyond the budget for start and scoring [the budget + 5m]")
    ] = "",
    profile: Annotated[str, typer.Option(help="auto (by the device), cpu or gpu")] = "auto",
    platform: Annotated[str, typer.Option(help="Name of the board's platform, e.g. H100")] = "auto",
    python: Annotated[
        str, typer.Option(help="Interpreter that has torch [this one]", show_default=False)
    ] = sys.executable,
    template: Annotated[
        Path,
        typer.Option(
            help="Trusted template; its files but train.py replace a commit's [the one shipped]",
            show_default=False,
        ),
    ] = OWN_TEMPLATE,
    data: Annotated[Path, typer.Option(help="Prepared data")] = CACHE / "data",
    cache: Annotated[Path, typer.Option(help="Mirror and workspaces")] = CACHE / "worker",
    prepare: Annotated[bool, typer.Option(help="Prepare the data first if it is missing")] = True,
    log: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Claim runs, train each in a clean workspace, report the outcome.

    Example:  AGENTHUB_KEY=… ah-worker run --hub https://hub.example --sandbox none --device cuda:0
    """
    try:
        settings = Settings(
            *_identity(hub, key, sandbox),
            device=device,
            profile=profile,
            platform=platform,
            budget_seconds=_whole(budget),
            grace_seconds=parse_duration(grace) if grace else None,
            data=_absolute(data),
            cache=_absolute(cache),
            template=_absolute(template),
            python=python,
            max_runs=1 if once else max_runs,
            idle_exit_seconds=parse_duration(idle_exit) if idle_exit else None,
            sandbox=sandbox,
            prepare=prepare,
            log=log,
        )
        code = _work(settings)
    except Refused as error:
        code = _complain(error, 2)
    raise typer.Exit(code)


def _identity(hub: str, key: str, sandbox: str) -> tuple[str, str]:
    """URL and key: from the options, else the environment, else ah's config file."""
    from ah_cli import config

    if sandbox != "none":
        return "", ""  # Settings refuses this first.
    given = {"AGENTHUB_URL": hub, "AGENTHUB_KEY": key}
    try:
        found = config.load({**os.environ, **{name: text for name, text in given.items() if text}})
    except config.ConfigError as error:
        raise Refused(f"{error}, with --role worker; or give --hub and AGENTHUB_KEY") from error
    return found.server_url, found.api_key


def _whole(budget: str) -> int | None:
    if not budget:
        return None
    seconds = parse_duration(budget)
    if seconds != int(seconds):
        raise Refused("--budget must be whole seconds")
    return int(seconds)


def _absolute(path: Path) -> Path:
    return Path.cwd() / path.expanduser()


def _work(settings: Settings) -> int:
    from ah_cli.git import GitError
    from worker.session import work
    from worker.trainer import Fault

    try:
        return work(settings)
    except (Fault, GitError, OSError) as error:
        return _complain(error, 1)


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code
