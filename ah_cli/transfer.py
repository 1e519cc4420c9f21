"""Commits to and from the hub: each side sends what the other lacks, or all when that fails."""

from pathlib import Path
from typing import TYPE_CHECKING

from ah_cli import git
from ah_cli.failures import Refusal

if TYPE_CHECKING:
    from ah_cli.client import HubClient
    from server import wire

#: The first question about a history decides nearly always; if not, they grow.
_FIRST_QUESTION = 32
_GROWTH = 4


def push(hub: "HubClient", bundle: Path, cwd: Path | None = None) -> "wire.Pushed":
    """Send what the hub lacks of HEAD, which may be nothing; `bundle` is the file to use."""
    from ah_cli.client import ApiError
    from server import wire

    head = git.head(cwd)
    boundary = _find_boundary(hub, cwd)
    if head in boundary:
        return wire.Pushed(hashes=[head])
    git.bundle_head(bundle, boundary, cwd)
    try:
        return hub.push(bundle)
    except ApiError as error:
        if error.code == wire.ErrorCode.MISSING_PREREQUISITE and boundary:
            # It forgot what it knew a moment ago: restored from a backup, perhaps.
            git.bundle_head(bundle, cwd=cwd)
            return hub.push(bundle)
        if error.code == wire.ErrorCode.INVALID_BUNDLE and git.is_shallow(cwd):
            raise Refusal(
                f"this clone is shallow, and the hub lacks what it leaves out: {error.message}",
                "get the whole history with `git fetch --unshallow`, then run `ah push` again",
            ) from error
        raise


def fetch(hub: "HubClient", hash: str, bundle: Path, cwd: Path | None = None) -> None:
    """Bring a commit and what is lacking of its ancestry; `bundle` is the file to use."""
    have = git.list_have(cwd)
    hub.fetch(hash, bundle, have)
    try:
        git.unbundle(bundle, cwd)
    except git.GitError:
        if not have:
            raise
        # Something is here without all of its ancestry, as in a shallow clone.
        hub.fetch(hash, bundle)
        git.unbundle(bundle, cwd)


def _find_boundary(hub: "HubClient", cwd: Path | None) -> set[str]:
    """Where the part of HEAD's history begins that the hub knows; empty if it knows nothing."""
    from ah_cli.client import ApiError
    from server import wire

    history = git.read_history(cwd)
    known: set[str] = set()
    unknown: set[str] = set()
    size = _FIRST_QUESTION
    while unsure := [commit for commit in history if commit not in known and commit not in unknown]:
        asked = _sample(unsure, min(size, wire.HAVE_MAX))
        try:
            answer = set(hub.list_known(asked))
        except ApiError as error:
            if error.status in (404, 405):
                return set()  # The original hub takes no such question.
            raise
        known |= answer
        unknown.update(commit for commit in asked if commit not in answer)
        _conclude(history, known, unknown)
        size *= _GROWTH
    heads = set(list(history)[:1])
    parents = {
        parent for commit, found in history.items() if commit not in known for parent in found
    }
    return (heads | parents) & known


def _sample(commits: list[str], size: int) -> list[str]:
    """The first of them, some in between, and the last, which no other one descends from."""
    if len(commits) <= size:
        return commits
    half = size // 2
    step = (len(commits) - half) / half
    return [*commits[:half], *(commits[-1 - int(n * step)] for n in range(half))]


def _conclude(history: dict[str, list[str]], known: set[str], unknown: set[str]) -> None:
    """Of what is known all ancestors are, and of what is unknown all descendants."""
    for commit, parents in history.items():
        if commit in known:
            known.update(parents)
    for commit, parents in reversed(history.items()):
        if not unknown.isdisjoint(parents):
            unknown.add(commit)
