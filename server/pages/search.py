"""The page of a search over everything."""

from typing import Any

from fastapi import Request, Response

from server import errors, finder, wire
from server.commits import list_numbered
from server.deps import TheHub
from server.pages import queries
from server.pages.frame import open_router, parse_id, show_page
from server.pages.refs import Refs, find_refs
from server.pages.session import MAY_SEE

router = open_router(dependencies=[MAY_SEE])

#: Of each kind, and of one kind alone.
FEW, MANY = 10, 50


@router.get("/search")
def search(
    request: Request, hub: TheHub, q: str = "", kind: str = "", before: str | None = None
) -> Response:
    only = kind if kind in (wire.Kind.COMMITS, wire.Kind.POSTS) else None
    cursor = None if before is None or only is None else parse_id(before)
    limit = MANY if only else FEW
    try:
        query = finder.check_query(q)
    except errors.InvalidRequest as refusal:
        said = refusal.message if q.strip() else None
        return _show(request, q=q, only=only, refusal=said, known=Refs())
    with hub.db.read() as conn:
        seqs = [] if only == wire.Kind.POSTS else finder.find_commits(conn, query, limit, cursor)
        ids = [] if only == wire.Kind.COMMITS else finder.find_posts(conn, query, limit, cursor)
        posts = queries.list_numbered_posts(conn, ids)
        found = {
            "commits": list_numbered(conn, seqs),
            "posts": posts,
            "names": finder.find(conn, query, [] if only else _NAMED, FEW),
            "more_commits": seqs[-1] if len(seqs) == limit else None,
            "more_posts": ids[-1] if len(ids) == limit else None,
            "known": find_refs(conn, (post.content[:4_000] for post in posts)),
        }
    return _show(request, q=query, only=only, **found)


_NAMED = (wire.Kind.AGENTS, wire.Kind.CHANNELS)
_NOTHING: dict[str, Any] = {
    "commits": [],
    "posts": [],
    "names": wire.Found(),
    "more_commits": None,
    "more_posts": None,
    "refusal": None,
}


def _show(request: Request, **found: Any) -> Response:
    return show_page(request, "search.html", **(_NOTHING | found))
