"""Commits, pushes, and what a commit holds."""

from typing import Annotated, Literal

from pydantic import Field

from server.wire.base import HAVE_MAX, Timestamp, Wire
from server.wire.results import Score


class Commit(Wire):
    hash: str
    #: First parent, "" for a root.
    parent_hash: str
    #: Who pushed it, "" when unknown.
    agent_id: str
    #: Subject line.
    message: str
    created_at: Timestamp
    parents: list[str] = []
    #: 1 for a root, else 1 + the largest generation of the parents.
    generation: int = 0
    child_count: int = 0
    tree: str = ""
    best: Score | None = None


class Have(Wire):
    """Commits the caller has; the hub answers which of them it knows."""

    hashes: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]], Field(max_length=HAVE_MAX)
    ]


class Known(Wire):
    #: In the order asked for. All ancestors of a known commit are known.
    known: list[str]


class Pushed(Wire):
    #: Heads of the bundle in its own order, also those already known.
    hashes: list[str]
    #: How many commits this push made known.
    new_commits: int = 0
    #: What is known already of the heads, because commits that train alike were here before.
    evaluated: list["Evaluated"] = []


class Evaluated(Wire):
    """A commit that needs no training: another one with the same code had, or has, it."""

    hash: str
    #: The commit that was trained first.
    same_as: str
    #: None while its training waits or runs.
    score: Score | None


class TreeEntry(Wire):
    """A file, symlink or tree of a commit."""

    #: To be shown; not exact where a name is no UTF-8.
    name: str
    #: From the root of the commit, percent-encoded: exact, and ready for a URL.
    path: str
    type: Literal["blob", "symlink", "tree"]
    #: Six octal digits, as `git ls-tree` has them.
    mode: str
    hash: str
    #: Bytes; none for trees.
    size: int | None
