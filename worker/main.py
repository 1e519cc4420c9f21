"""`ah-worker`: claims runs from a hub and trains them on this machine.

Exit codes: 0 done or drained, 1 quarantined after three faults of this machine, 2 refused; none of
these is worth a restart. 75, any other code and death by a signal are.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from worker.exits import Exit
from worker.settings import OWN_TEMPLATE, Refused, Settings, parse_duration, parse_size

app = typer.Typer(
    help="Train commits of an AgentHub on this machine and report their scores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CACHE = Path("~/.cache/agenthub")


@app.command(context_settings={"auto_envvar_prefix": "AGENTHUB_WORKER"})
def run(
    hub: Annotated[str, typer.Option(help="Hub's URL [env AGENTHUB_URL, then ah's config]")] = "",
    key: Annotated[
        str, typer.Option(help="Worker's key [env AGENTHUB_KEY, which `ps` does not show]")
    ] = "",
    sandbox: Annotated[
        str,
        typer.Option(
            help="auto (the first of these that works here), bubblewrap, podman, docker, landlock, "
            "or none: strangers' code as you, with your files and your network"
        ),
    ] = "auto",
    scoring: Annotated[
        str,
        typer.Option(
            help="inline (train.py's own word), fresh, isolated, or isolated+audit: scored and "
            "audited by processes the trained code cannot touch"
        ),
    ] = "isolated+audit",
    memory: Annotated[
        str, typer.Option(help="Of one training, e.g. 16g [4/5 of the machine's, shared by --gpus]")
    ] = "",
    gpus: Annotated[
        str, typer.Option(help="all, numbers as in 0,2, or cpu: a supervised process for each")
    ] = "",
    device: Annotated[
        str, typer.Option(help="A single process for it: auto, cpu, cuda:N or mps")
    ] = "auto",
    budget: Annotated[
        str, typer.Option(help="Training time per run, e.g. 300s [300s on GPUs, 60s on CPUs]")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Exit after one run, each process")] = False,
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
    cache_gb: Annotated[
        float, typer.Option(min=0.001, help="Largest size of the mirror; the least used goes")
    ] = 10.0,
    prepare: Annotated[bool, typer.Option(help="Prepare the data first if it is missing")] = True,
    log: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Claim runs, train each in a clean workspace, report the outcome.

    Every option is a variable too: --idle-exit is AGENTHUB_WORKER_IDLE_EXIT.

    Example:  AGENTHUB_KEY=… ah-worker run --hub https://hub.example --gpus all
    """
    try:
        settings = Settings(
            *_identity(hub, key),
            device=device,
            profile=profile,
            platform=platform,
            budget_seconds=_whole(budget),
            grace_seconds=parse_duration(grace) if grace else None,
            data=_absolute(data),
            cache=_absolute(cache),
            cache_bytes=int(cache_gb * 10**9),
            template=_absolute(template),
            python=python,
            max_runs=1 if once else max_runs,
            idle_exit_seconds=parse_duration(idle_exit) if idle_exit else None,
            sandbox=sandbox,
            scoring=scoring,
            memory_bytes=parse_size(memory) if memory else None,
            prepare=prepare,
            log=log,
        )
        code = _supervise(gpus, settings) if gpus else _work(settings)
    except Refused as error:
        code = _complain(error, Exit.REFUSED)
    raise typer.Exit(code)


@app.command(context_settings={"auto_envvar_prefix": "AGENTHUB_WORKER"})
def doctor(
    hub: Annotated[str, typer.Option(help="Hub's URL [env AGENTHUB_URL, then ah's config]")] = "",
    key: Annotated[str, typer.Option(help="Worker's key [env AGENTHUB_KEY]")] = "",
    sandbox: Annotated[str, typer.Option(help="As for run")] = "auto",
    scoring: Annotated[str, typer.Option(help="As for run")] = "isolated+audit",
    gpus: Annotated[str, typer.Option(help="As for run [the first GPU or the CPU]")] = "",
    profile: Annotated[str, typer.Option(help="As for run")] = "auto",
    platform: Annotated[str, typer.Option(help="As for run")] = "auto",
    budget: Annotated[str, typer.Option(help="As for run")] = "",
    python: Annotated[
        str, typer.Option(help="As for run [this one]", show_default=False)
    ] = sys.executable,
    template: Annotated[
        Path, typer.Option(help="As for run [the one shipped]", show_default=False)
    ] = OWN_TEMPLATE,
    data: Annotated[Path, typer.Option(help="As for run")] = CACHE / "data",
    cache: Annotated[Path, typer.Option(help="As for run")] = CACHE / "worker",
    cache_gb: Annotated[float, typer.Option(min=0.001, help="As for run")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="One list of all checks")] = False,
) -> None:
    """Check all that `run` needs on this machine and of the hub; exit 1 if something is missing.

    Example:  ah-worker doctor --gpus all
    """
    from worker.device import list_devices
    from worker.doctor import Level, examine, to_json, utc_now

    try:
        settings = Settings(
            *_identity(hub, key),
            device="auto",
            profile=profile,
            platform=platform,
            budget_seconds=_whole(budget),
            grace_seconds=None,
            data=_absolute(data),
            cache=_absolute(cache),
            cache_bytes=int(cache_gb * 10**9),
            template=_absolute(template),
            python=python,
            max_runs=None,
            idle_exit_seconds=None,
            sandbox=sandbox,
            scoring=scoring,
            memory_bytes=None,
            prepare=False,
            log="text",
        )
        checks = examine(settings, list_devices(gpus) if gpus else ["auto"], utc_now)
    except Refused as error:
        raise typer.Exit(_complain(error, Exit.REFUSED)) from error
    typer.echo(to_json(checks) if json else "\n".join(map(str, checks)))
    raise typer.Exit(int(any(check.level is Level.FAIL for check in checks)))


def _identity(hub: str, key: str) -> tuple[str, str]:
    """URL and key: from the options, else the environment, else ah's config file."""
    from ah_cli import config

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
        return _complain(error, Exit.RESTART)
    except Refused:
        raise
    except Exception:  # noqa: BLE001 - a bug must not look like a quarantine, which is code 1
        traceback.print_exc()
        return Exit.RESTART


def _supervise(gpus: str, settings: Settings) -> int:
    from worker.device import list_devices
    from worker.fleet import Fleet
    from worker.fleet_view import open_fleet_view
    from worker.sandbox.base import default_limits

    view, log = open_fleet_view(settings.log)
    devices, memory = list_devices(gpus), ""
    if len(devices) > 1 and settings.memory_bytes is None:
        # What one would get is for all of them.
        memory = f"{(default_limits().memory_bytes // len(devices)) >> 20}m"
    return Fleet(devices, log, view, memory).supervise()


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code
