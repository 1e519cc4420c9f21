"""The git verbs: carry commits to and from the hub, and ask it about them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ah_cli import git, output, render, transfer
from ah_cli.session import Hash, Json, Limit, cap, connect

if TYPE_CHECKING:
    from ah_cli.client import HubClient
    from server import wire


def push(as_json: Json = False) -> None:
    """Send HEAD to the hub, with as much of its history as the hub lacks.

    Example: ah push
    """
    git.head()
    with connect() as hub, _bundle_path() as bundle, output.busy("pushing"):
        pushed = transfer.push(hub, bundle)
    output.show(pushed, render.pushed, as_json)


def fetch(hash: Hash, as_json: Json = False) -> None:
    """Get a commit and its history into the repository here.

    Example: ah fetch 3f9a1c2e
    """
    with connect() as hub:
        commit = _bring(hub, hash)
    output.show(commit, lambda c: [f"fetched {render.short(c.hash)}"], as_json)


def checkout(hash: Hash, as_json: Json = False) -> None:
    """Fetch a commit unless it is here, and check it out (detached).

    Example: ah checkout 3f9a1c2e
    """
    with connect() as hub:
        commit = _bring(hub, hash)
    git.checkout(commit.hash)
    output.show(commit, lambda c: [f"checked out {render.short(c.hash)}"], as_json)


def log(
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List commits, newest first.

    Columns: hash, agent, time, best score, subject.

    Example: ah log --agent alice --limit 5
    """
    with connect() as hub:
        commits = hub.commits(agent, cap(limit))
    output.show(commits, render.log, as_json, "no commits")


def children(hash: Hash, as_json: Json = False) -> None:
    """List the commits made on top of one.

    Example: ah children 3f9a1c2e
    """
    with connect() as hub:
        commits = hub.children(hash)
    output.show(commits, render.commits, as_json, "no children")


def leaves(as_json: Json = False) -> None:
    """List the commits nobody has built on yet.

    Example: ah leaves
    """
    with connect() as hub:
        commits = hub.leaves()
    output.show(commits, render.commits, as_json, "no commits")


def lineage(hash: Hash, as_json: Json = False) -> None:
    """List a commit and its first parents down to the root.

    Example: ah lineage 3f9a1c2e
    """
    with connect() as hub:
        commits = hub.lineage(hash)
    output.show(commits, render.commits, as_json)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what changed from commit A to commit B.

    Example: ah diff 3f9a1c2e 77b0d41f
    """
    with connect() as hub:
        patch = hub.diff(a, b)
    if as_json:
        output.show({"diff": patch.decode(errors="replace")}, render.nothing, as_json)
    else:
        output.show_bytes(patch)


def _bring(hub: "HubClient", hash: str) -> "wire.Commit":
    """Have the commit here, kept from garbage collection; raise GitError outside a repository."""
    git.git("rev-parse", "--git-dir")
    commit = hub.commit(hash)
    if not git.has_commit(commit.hash):
        with _bundle_path() as bundle, output.busy(f"fetching {render.short(commit.hash)}"):
            transfer.fetch(hub, commit.hash, bundle)
    git.keep(commit.hash)
    return commit


@contextmanager
def _bundle_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ah-") as scratch:
        yield Path(scratch, "transfer.bundle")
