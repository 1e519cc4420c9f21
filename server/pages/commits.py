"""The pages of commits: list, one commit with its diff, its trees and files, and two compared."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from server import commits, errors, results, runs
from server.db import Connection
from server.deps import Hub, RawPath, TheHub
from server.finder import list_mentions
from server.kept import kept
from server.pages import code, queries, views
from server.pages.diff import Diff, colour_diff, parse_diff, weigh_diff
from server.pages.frame import open_router, show_page
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE
from server.repo import BareRepo, Node

router = open_router(dependencies=[MAY_SEE])

NEIGHBOURS = 12
MENTIONS = 10
#: How much of a file is shown.
FILE_BYTES_MAX = 512 * 1024
FILE_LINES_MAX = 5_000


@router.get("/commits")
def commit_list(request: Request, hub: TheHub, before: str | None = None) -> Response:
    with hub.db.read() as conn:
        seen = views.see_commits(conn, views.MANY, before)
    return show_page(request, "commits.html", is_latest=before is None, **seen)


@router.get("/commits/{hash}")
def commit(
    hash: str, request: Request, hub: TheHub, view: str = "", file: str | None = None
) -> Response:
    with hub.db.read() as conn:
        seen = see_commit(conn, hash)
    # Outside the snapshot: a diff may take its time.
    parents = seen["parents"]
    diff = see_diff(hub.repo, parents[0].hash, seen["commit"].hash, file) if parents else None
    return show_page(request, "commit.html", diff=diff, is_split=view == "split", file=file, **seen)


def see_commit(conn: Connection, prefix: str) -> dict[str, Any]:
    """What there is to tell of a commit, except its diff."""
    row = commits.resolve(conn, prefix)
    parents = queries.list_parents(conn, row.seq)
    children = queries.list_children(conn, row.seq, NEIGHBOURS)
    scored = results.list_results(conn, row.seq)
    mentions = queries.list_numbered_posts(conn, list_mentions(conn, row.hash, MENTIONS))
    texts = [row.message, row.body, *(result.description for result in scored)]
    return {
        "commit": row,
        "parents": parents,
        "children": children,
        "scores": results.best_scores(conn, [row.seq, *(c.seq for c in (*parents, *children))]),
        "results": scored,
        "runs": runs.list_runs(conn, commit_seq=row.seq),
        "mentions": mentions,
        "known": find_refs(conn, [*texts, *(post.content[:4_000] for post in mentions)]),
    }


# Compared ---------------------------------------------------------------------------------------


@router.get("/compare")
def compare_form(request: Request, a: str = "", b: str = "") -> Response:
    a, b = a.strip().lower(), b.strip().lower()
    if a and b:
        return RedirectResponse(f"/compare/{quote(a, safe='')}/{quote(b, safe='')}", 303)
    return show_page(request, "compare.html", a=a, b=b, sides=[], diff=None)


@router.get("/compare/{a}/{b}")
def compare(
    a: str, b: str, request: Request, hub: TheHub, view: str = "", file: str | None = None
) -> Response:
    with hub.db.read() as conn:
        sides = [commits.resolve(conn, one) for one in (a, b)]
        scores = results.best_scores(conn, [side.seq for side in sides])
    diff = see_diff(hub.repo, sides[0].hash, sides[1].hash, file)
    return show_page(
        request,
        "compare.html",
        a=sides[0].hash,
        b=sides[1].hash,
        sides=sides,
        scores=scores,
        diff=diff,
        is_split=view == "split",
        file=file,
    )


@kept(weigh_diff)
def see_diff(repo: BareRepo, a: str, b: str, only: str | None = None) -> Diff:
    """Kept, because commits never change and anyone may ask for this again and again."""
    diff = parse_diff(repo.diff(a, b), only)
    colour_diff(diff, _reader(repo, a), _reader(repo, b))
    return diff


def _reader(repo: BareRepo, hash: str) -> Callable[[str], str | None]:
    tree = repo.read_commit(hash).tree

    def read(path: str) -> str | None:
        try:
            file = repo.find_file(tree, path)
        except errors.HubError:
            return None
        if file.size is None or file.size > code.CHARS_MAX:
            return None
        return repo.read_file(file).decode(errors="replace")

    return read


# Trees and files --------------------------------------------------------------------------------


@router.get("/commits/{hash}/tree")
def root(hash: str, request: Request, hub: TheHub) -> Response:
    return _show_tree(request, hub, hash, "")


@router.get("/commits/{hash}/tree/{path:any_path}")
def tree(hash: str, request: Request, hub: TheHub, path: RawPath) -> Response:
    return _show_tree(request, hub, hash, path)


def _show_tree(request: Request, hub: Hub, hash: str, path: str) -> Response:
    with hub.db.read() as conn:
        commit = commits.resolve(conn, hash)
    nodes = hub.repo.list_tree(commit.tree, path)
    # Folders first, as people look for them.
    entries = [_entry(node) for node in sorted(nodes, key=lambda node: node.type != "tree")]
    trail = _trail(path)
    return show_page(request, "tree.html", commit=commit, trail=trail, entries=entries)


@router.get("/commits/{hash}/blob/{path:any_path}")
def blob(hash: str, request: Request, hub: TheHub, path: RawPath) -> Response:
    with hub.db.read() as conn:
        commit = commits.resolve(conn, hash)
    file = hub.repo.find_file(commit.tree, path)
    lines = None if (file.size or 0) > FILE_BYTES_MAX else _lines(hub.repo, file)
    return show_page(
        request,
        "blob.html",
        commit=commit,
        trail=_trail(path),
        file=_entry(file),
        rows=None if lines is None else code.number_lines(lines[:FILE_LINES_MAX]),
        count=0 if lines is None else len(lines),
        more=0 if lines is None else max(len(lines) - FILE_LINES_MAX, 0),
    )


def _lines(repo: BareRepo, file: Node) -> code.Lines | None:
    """The lines of a file, to be coloured; None when it is not text."""
    content = repo.read_file(file)
    if b"\0" in content:
        return None
    text = content.decode(errors="replace")
    return code.colour(text.removesuffix("\n"), code.language_of(file.path))


def _entry(node: Node) -> dict[str, Any]:
    raw = node.path.encode(errors="surrogateescape")
    name = raw.rpartition(b"/")[2].decode(errors="replace")
    kind = "tree" if node.type == "tree" else "blob"
    return {"name": name, "path": quote(raw), "kind": kind, "type": node.type, "size": node.size}


def _trail(path: str) -> list[tuple[str, str]]:
    """Each folder on the way with its path, percent-encoded, and last the thing itself."""
    parts = [part for part in path.encode(errors="surrogateescape").split(b"/") if part]
    ways = [quote(b"/".join(parts[: at + 1])) for at in range(len(parts))]
    return [(part.decode(errors="replace"), way) for part, way in zip(parts, ways, strict=True)]
