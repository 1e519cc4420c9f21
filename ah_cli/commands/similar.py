"""The verb to look before a run: was this tried, and what came of it?"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ah_cli import git, output, render
from ah_cli.session import Json, connect

if TYPE_CHECKING:
    from ah_cli.client import HubClient
    from server import wire

#: Of a text as JSON; a request holds 64 KiB.
_TEXT_BYTES = 63 * 1024


def similar(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[HASH|-]",
            help="A commit of the hub, or - for words or a diff on stdin.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=50, help="At most so many.")] = 5,
    as_json: Json = False,
) -> None:
    """Find the past experiments nearest to yours, before it costs a run.

    Without HASH: to the changes that are not committed yet, else to HEAD.

    Columns: similarity (same: the very same files), commit, best score, failure or state, agent,
    subject. 1.00 shares all that counts, 0.10 hardly anything.

    Example: ah similar

    Example: echo "larger MATRIX_LR 0.08" | ah similar -
    """
    with connect() as hub:
        found, unread = _find(hub, what, limit)
    if unread:
        output.note(f"note: the hub has yet to read {unread} commits; ask again later")
    output.show(found, render.similar, as_json, "nothing similar")


def _find(hub: "HubClient", what: str | None, limit: int) -> "tuple[list[wire.Similar], int]":
    from server import wire

    if what == "-":
        # A diff may hold bytes of any encoding.
        text = sys.stdin.buffer.read().decode(errors="replace")
        return hub.similar(wire.SimilarQuery(text=_fit(text), limit=limit))
    if what is not None:
        return hub.similar(wire.SimilarQuery(commit=what, limit=limit))
    head, tree = git.head(), git.write_work_tree()
    if tree != git.find_tree("HEAD"):
        output.note("note: comparing the changes that are not committed yet")
        return hub.similar(
            wire.SimilarQuery(text=_fit(git.diff("HEAD", tree)), tree=tree, limit=limit)
        )
    return _find_to_head(hub, head, tree, limit)


def _find_to_head(
    hub: "HubClient", head: str, tree: str, limit: int
) -> "tuple[list[wire.Similar], int]":
    """As the hub knows it, or from what it would learn by a push."""
    from ah_cli.client import ApiError
    from server import wire

    try:
        return hub.similar(wire.SimilarQuery(commit=head, limit=limit))
    except ApiError as error:
        if error.code != wire.ErrorCode.NOT_FOUND:
            raise
    text = git.read_message(head)
    if git.find_tree(f"{head}^"):
        text += git.diff(f"{head}^", head)
    return hub.similar(wire.SimilarQuery(text=_fit(text), tree=tree, limit=limit))


def _fit(text: str) -> str:
    """As much of it as a request may hold, without the one character no text may hold."""
    from server import wire

    whole = text = text.replace("\0", " ")
    while len(wire.SimilarQuery(text=text).model_dump_json().encode()) > _TEXT_BYTES:
        text = text[: len(text) * 3 // 4]
    if len(text) < len(whole):
        output.note(f"note: only the first {len(text)} of {len(whole)} characters are compared")
    return text
