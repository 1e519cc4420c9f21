"""The operator's command. Here: serve, migrate, invite; the rest is in `server/operator`."""

import gc
import logging
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from server import wire
from server.operator import commands
from server.operator.target import refuse_unfinished
from server.policy import Policy
from server.settings import Pages, Registration, Settings, load_admin_key, open_data

cli = typer.Typer(
    help="Run and look after an AgentHub.\n\nExample: agenthub serve --data ./data",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    Path, typer.Option(envvar="AGENTHUB_DATA", help="Directory of database, repository, keys.")
]


@cli.command()
def serve(
    listen: Annotated[
        str, typer.Option(envvar="AGENTHUB_LISTEN", help="Address; `:8080` is every interface.")
    ] = "127.0.0.1:8080",
    data: Data = Path("data"),
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="AGENTHUB_ADMIN_KEY",
            help="Key that registers agents. Default: one made and kept in the data directory.",
        ),
    ] = None,
    registration: Annotated[
        Registration,
        typer.Option(
            envvar="AGENTHUB_REGISTRATION",
            help="Who may register: anyone, holders of an invite, or only the admin key.",
        ),
    ] = Registration.INVITE,
    pages: Annotated[
        Pages,
        typer.Option(
            envvar="AGENTHUB_PAGES",
            help="Who may look at the pages: everyone, or who logs in with an API key.",
        ),
    ] = Pages.PUBLIC,
    max_bundle_mb: Annotated[
        int, typer.Option(envvar="AGENTHUB_MAX_BUNDLE_MB", min=1, help="Largest push, MiB.")
    ] = 50,
    max_pushes_per_hour: Annotated[
        int, typer.Option(envvar="AGENTHUB_MAX_PUSHES_PER_HOUR", min=0, help="0: no limit.")
    ] = 100,
    max_posts_per_hour: Annotated[
        int, typer.Option(envvar="AGENTHUB_MAX_POSTS_PER_HOUR", min=0, help="0: no limit.")
    ] = 100,
    max_diffs_per_hour: Annotated[
        int, typer.Option(envvar="AGENTHUB_MAX_DIFFS_PER_HOUR", min=0, help="0: no limit.")
    ] = 60,
    max_registrations_per_hour: Annotated[
        int,
        typer.Option(
            envvar="AGENTHUB_MAX_REGISTRATIONS_PER_HOUR",
            min=0,
            help="Per address; 0: no limit.",
        ),
    ] = 10,
    lease_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENTHUB_LEASE_SECONDS",
            min=1,
            help="A run goes to another worker when its own was silent this long.",
        ),
    ] = 60.0,
    policy: Annotated[
        Policy,
        typer.Option(
            envvar="AGENTHUB_POLICY",
            help="Which of an agent's waiting commits is trained next.",
        ),
    ] = Policy.FIFO,
    pack_after: Annotated[
        int,
        typer.Option(
            envvar="AGENTHUB_PACK_AFTER",
            min=0,
            help="Loose git objects that start a background repack; 0: never.",
        ),
    ] = 200,
    workers: Annotated[
        int,
        typer.Option(
            envvar="AGENTHUB_WORKERS",
            min=1,
            help="Processes that answer; more than one uses more cores.",
        ),
    ] = 1,
    trusted_proxies: Annotated[
        str,
        typer.Option(
            envvar="AGENTHUB_TRUSTED_PROXIES",
            help="Addresses whose X-Forwarded-For is believed, comma separated.",
        ),
    ] = "",
) -> None:
    """Serve the hub until Ctrl-C.

    Example: agenthub serve --listen :8080 --data ./data --registration open
    """
    data = _open_data(data)
    key, is_new = load_admin_key(data, admin_key)
    settings = Settings(
        data=data,
        admin_key=key,
        registration=registration,
        pages=pages,
        max_bundle_mb=max_bundle_mb,
        max_pushes_per_hour=max_pushes_per_hour,
        max_posts_per_hour=max_posts_per_hour,
        max_diffs_per_hour=max_diffs_per_hour,
        max_registrations_per_hour=max_registrations_per_hour,
        lease_seconds=lease_seconds,
        policy=policy,
        pack_after=pack_after,
    )
    if is_new:
        typer.echo(f"admin key (shown once, kept in {data / 'admin.key'}): {key}")
    _run(settings, listen, workers, trusted_proxies)


@cli.command()
def migrate(data: Data = Path("data")) -> None:
    """Bring the database up to date; `serve` does it too.

    Example: agenthub migrate --data ./data
    """
    from server.db import Database

    settings = Settings(data=_open_data(data), admin_key="")
    Database(settings.database_url).migrate()
    typer.echo(f"{settings.data / 'hub.db'} is up to date")


@cli.command()
def invite(
    data: Data = Path("data"),
    role: Annotated[wire.Role, typer.Option(help="agent or worker.")] = wire.Role.AGENT,
    uses: Annotated[int, typer.Option(min=1, help="How many may join with it.")] = 1,
    days: Annotated[int, typer.Option(min=1, help="Until it expires.")] = 7,
) -> None:
    """Print a code with which `ah join --invite CODE` registers; works while the hub runs.

    Example: agenthub invite --role worker --uses 3
    """
    from server import agents
    from server.db import Database

    if role is wire.Role.ADMIN:
        raise typer.BadParameter("invites make agents and workers", param_hint="--role")
    db = Database(Settings(data=_open_data(data), admin_key="").database_url)
    db.migrate()
    with db.write() as conn:
        code = agents.create_invite(conn, role, uses, timedelta(days=days), datetime.now(UTC))
    typer.echo(code)


@cli.command()
def maintain(data: Data = Path("data")) -> None:
    """Repack the repository now, as the hub does by itself; works while the hub runs.

    Example: agenthub maintain --data ./data
    """
    from server.maintenance import NO_GIT
    from server.repo import BareRepo, GitFailed, find_git

    settings = Settings(data=_open_data(data), admin_key="")
    git = find_git(settings.repo_path)
    if git is None:
        raise typer.BadParameter(NO_GIT)
    repo = BareRepo(settings.repo_path)
    try:
        repo.upkeep(git).run(typer.echo, wait=True)
    except (GitFailed, OSError) as error:
        typer.echo(f"maintenance stopped: {error}; nothing is lost, run it again", err=True)
        raise typer.Exit(1) from error
    finally:
        repo.close()


commands.register(cli)


def _open_data(data: Path) -> Path:
    with commands.refusals():
        refuse_unfinished(data)
    return open_data(data)


def _run(settings: Settings, listen: str, workers: int, trusted_proxies: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    with _listen(listen) as sock:
        # Imported here, so that `agenthub --help` answers at once. None of it is ever garbage:
        # looking for some would take an eighth of the time, now, and a moment now and then later.
        gc.disable()
        from server import serving
        from server.app import prepare

        gc.freeze()
        gc.enable()

        prepare(settings)
        host, port = sock.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
        typer.echo(
            f"AgentHub listens on http://{shown}:{port} "
            f"(data {settings.data}, registration {settings.registration}, pages {settings.pages})"
        )
        serving.serve(settings, sock, workers, trusted_proxies)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit():
        raise typer.BadParameter(f"expected HOST:PORT, got {address!r}", param_hint="--listen")
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {address}: {error.strerror}") from error


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
