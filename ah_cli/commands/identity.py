"""The verbs about oneself: join a hub, who am I, start a repository."""

import os
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ah_cli import config, git, output, render
from ah_cli.failures import Refusal
from ah_cli.session import Json, connect

if TYPE_CHECKING:
    from server import wire

#: The roles one may join in, of wire.Role, without loading it.
Role = Literal["agent", "worker"]
Profile = Literal["auto", "cpu", "gpu"]


def join(
    name: Annotated[str, typer.Option(metavar="ID", help="Your name there.", show_default=False)],
    url: Annotated[
        str | None, typer.Argument(metavar="URL", envvar="AGENTHUB_URL", show_default=False)
    ] = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="The same.")] = None,
    admin_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="AGENTHUB_ADMIN_KEY", help="The hub's.")
    ] = None,
    invite: Annotated[str | None, typer.Option(metavar="CODE", help="From the operator.")] = None,
    role: Annotated[
        Role, typer.Option(help="A worker needs the admin key or an invite.")
    ] = "agent",
    as_json: Json = False,
) -> None:
    """Register with a hub and remember it; prints the API key once.

    Example: ah join http://localhost:8080 --name alice --invite CODE
    """
    address = _address(server or url)
    registered = _register(address, name, admin_key, invite, role)
    replaced = _stored_agent()
    path = config.save(config.Config(address, registered.api_key, registered.id))
    lines = [
        f'joined {address} as "{registered.id}"',
        f"api key: {registered.api_key}",
        f"config saved to {path}",
    ]
    output.show(registered, lambda _: lines, as_json)
    if replaced and replaced != registered.id:
        output.note(f"note: this replaced {replaced}; AGENTHUB_CONFIG=FILE keeps several")
    if os.environ.get("AGENTHUB_KEY"):
        output.note("note: AGENTHUB_KEY is set and wins over this file")


def whoami(as_json: Json = False) -> None:
    """Show the name and role the hub knows you by.

    Example: ah whoami
    """
    with connect() as hub:
        output.show(hub.whoami(), lambda me: [f"{me.id}  {me.role}  {hub.url}"], as_json)


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    profile: Annotated[
        Profile, typer.Option(help="What `python train.py` trains there; auto: gpu where CUDA is.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Make a repository with the baseline training code; it trains without any hub, too.

    Example: ah init research

    Example: ah init --profile cpu laptop
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise Refusal(f"{directory} exists and is not an empty directory", "name another one")
    git.init(directory)
    _copy(resources.files("train_template"), directory)
    project = directory / "pyproject.toml"
    chosen = re.sub(r'(?m)^profile = "\w+"', f'profile = "{profile}"', project.read_text("utf-8"))
    project.write_text(chosen, "utf-8")
    hash = git.commit_all("baseline", directory, "agenthub")
    # What training in the template's own folder has left there is ignored by its .gitignore.
    git.git("clean", "-fdXq", cwd=directory)
    made = {"hash": hash, "directory": str(directory)}
    output.show(made, lambda _: [f"{render.short(hash)}  {directory}"], as_json)
    output.note(f"next: cd {directory}; read program.md; python prepare.py; python train.py")
    output.note("then: edit train.py, commit, ah push")


def _register(
    address: str, name: str, admin_key: str | None, invite: str | None, role: Role
) -> "wire.Registered":
    from ah_cli.client import HubClient
    from server import wire

    if admin_key and not invite:
        with HubClient(address, admin_key) as hub:
            return hub.create_agent(name, wire.Role(role))
    if role != "agent" and not invite:
        raise typer.BadParameter("this role needs --admin-key or --invite", param_hint="--role")
    with HubClient(address) as hub:
        return hub.register(name, invite)


def _address(url: str | None) -> str:
    if not url:
        raise typer.BadParameter("where is the hub? ah join URL --name ID", param_hint="URL")
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _stored_agent() -> str:
    try:
        return config.load({"AGENTHUB_CONFIG": str(config.config_path())}).agent_id
    except config.ConfigError:
        return ""


def _copy(folder: Traversable, target: Path) -> None:
    """Copy the template's files; its other folders are only caches."""
    target.mkdir(exist_ok=True)
    for entry in folder.iterdir():
        if entry.name == "programs":
            _copy(entry, target / entry.name)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            (target / entry.name).write_bytes(entry.read_bytes())
