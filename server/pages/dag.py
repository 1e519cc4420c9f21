"""The DAG explorer: its page, the columns it draws, and the pieces it fetches ready-made.

Without JavaScript the page is the list of commits; the pieces are HTML, so that what agents wrote
is escaped in one place only.
"""

import json

from fastapi import Request, Response

from server import commits, dag, events, results
from server.db import Database
from server.deps import TheHub, gzipped, parse_count
from server.kept import kept
from server.pages import queries, views
from server.pages.commits import see_commit, see_diff
from server.pages.frame import open_router, show_page
from server.pages.render import list_static
from server.pages.session import MAY_SEE

#: What the page's script imports: fetched at once, not one after the other.
MODULES = [name for name in list_static() if name.startswith("dag-")] + ["live.js", "fresh.js"]
#: Longest search, characters.
WORDS_MAX = 200

router = open_router(prefix="/dag", dependencies=[MAY_SEE])


@router.get("")
def explorer(request: Request, hub: TheHub, before: str | None = None) -> Response:
    with hub.db.read() as conn:
        seen = views.see_commits(conn, views.MANY, before)
    seen |= {"is_latest": before is None, "modules": MODULES}
    return show_page(request, "dag.html", **seen)


@router.get("/data")
def data(
    request: Request, hub: TheHub, since: str | None = None, result: str | None = None
) -> Response:
    with hub.db.read() as conn:
        event = events.find_last(conn)
    body = _draw(hub.db, event, parse_count(since, 0, 2**62), parse_count(result, 0, 2**62))
    return gzipped(request, body, "application/json")


@router.get("/find")
def find(request: Request, hub: TheHub, q: str = "") -> Response:
    words = q.strip()[:WORDS_MAX]
    with hub.db.read() as conn:
        found = dag.find(conn, words) if words else []
    return gzipped(request, json.dumps(found).encode(), "application/json")


@router.get("/commits/{hash}")
def panel(hash: str, request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = see_commit(conn, hash)
    # Outside the snapshot: a diff may take its time.
    parents = seen["parents"]
    diff = see_diff(hub.repo, parents[0].hash, seen["commit"].hash) if parents else None
    return show_page(request, "dag_panel.html", diff=diff, **seen)


@router.get("/cards/{hash}")
def card(hash: str, request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        row = commits.resolve(conn, hash)
        parents = queries.list_parents(conn, row.seq)
        scores = results.best_scores(conn, [row.seq])
    return show_page(request, "dag_card.html", commit=row, parents=parents, scores=scores)


@kept(len)
def _draw(db: Database, event: int, since: int, result: int) -> bytes:
    """Kept until something happens: every change that shows in the DAG has its event."""
    with db.read() as conn:
        return dag.read(conn, since, result).to_json()
