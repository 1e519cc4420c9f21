"""What several pages show, gathered in one consistent snapshot of the database."""

from typing import Any

from server import commits, errors, results, wire
from server.db import Connection
from server.pages import queries
from server.pages.graph import draw_graph
from server.pages.progress import Series

#: Results in a picture of its own.
PICTURED = 10_000
#: Commits on a page of the list.
MANY = 100

Context = dict[str, Any]


def see_commits(conn: Connection, limit: int, before: str | None = None) -> Context:
    page = [wire.Commit(**one) for one in commits.list_commits(conn, None, limit, before=before)]
    older = page[-1].hash if len(page) == limit else None
    return {"commits": page, "graph": draw_graph(page), "older": older}


def see_progress(conn: Connection, name: str | None) -> Series:
    """The progress of a track, of the busiest one by default; raise NotFound without results."""
    if name is not None:
        return queries.see_progress(conn, results.get_track(conn, name), PICTURED)
    busiest = results.find_busiest(conn)
    if busiest is None:
        raise errors.NotFound("no results yet", "a picture is drawn once a worker has reported")
    return queries.see_progress(conn, busiest, PICTURED)
