"""A track's page, its experiments for scripts, the leaderboard, and every result, filtered."""

from typing import Any, Literal

import orjson
from fastapi import Request, Response

from server import analysis, results, wire
from server.db import Connection
from server.deps import TheHub, gzipped
from server.pages import queries, standing
from server.pages.frame import open_router, parse_id, show_page
from server.pages.session import MAY_SEE

router = open_router(dependencies=[MAY_SEE])

#: Places of a leaderboard, results of one page, quarantined ones on the page of a track.
PLACES, RESULTS, DOUBTED = 100, 100, 20
_STATUSES = [status.value for status in wire.Status]


@router.get("/tracks/{id}")
def track(id: str, request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        chosen = results.get_track(conn, str(parse_id(id)))
        found = standing.find_standing(conn, chosen)
        seen: dict[str, Any] = {
            "standing": found,
            "drawings": standing.draw(found.progress),
            "analysis": analysis.analyse(conn, chosen, hub.now()),
            "leaders": results.leaderboard(conn, chosen, 10).entries,
            "agents": results.leaderboard(conn, chosen, 10, "agent").agents,
            "doubted": results.list_results(
                conn, track_id=chosen.id, limit=DOUBTED, is_quarantined=True
            ),
            "labels": {chosen.name: chosen.label},
        }
    return show_page(request, "track.html", **seen)


@router.get("/tracks/{id}/progress.json")
def progress(id: str, request: Request, hub: TheHub) -> Response:
    """The experiments of a track in columns."""
    with hub.db.read() as conn:
        chosen = results.get_track(conn, str(parse_id(id)))
        columns = standing.to_columns(results.read_progress(conn, chosen, results.POINTS_MAX))
    body = orjson.dumps(columns)
    return gzipped(request, body, "application/json")


@router.get("/leaderboard")
def leaderboard(
    request: Request,
    hub: TheHub,
    track: str | None = None,
    by: Literal["commit", "agent"] = "commit",
) -> Response:
    with hub.db.read() as conn:
        tracks = results.list_tracks(conn)
        chosen = results.get_track(conn, track) if track else results.find_busiest(conn)
        board = results.leaderboard(conn, chosen, PLACES, by) if chosen else None
    return show_page(request, "leaderboard.html", tracks=tracks, track=chosen, board=board, by=by)


@router.get("/results")
def result_list(
    request: Request,
    hub: TheHub,
    track: str = "",
    status: str = "",
    agent: str = "",
    quarantined: str = "",
    before: str = "",
) -> Response:
    """Filters that name nothing there is find nothing; empty ones, as forms send them, are none."""
    with hub.db.read() as conn:
        tracks = results.list_tracks(conn)
        chosen = results.get_track(conn, track) if track else None
        found = results.list_results(
            conn,
            track_id=chosen.id if chosen else None,
            limit=RESULTS,
            before=parse_id(before) if before else None,
            status=wire.Status(status) if status in _STATUSES else None,
            agent=agent or None,
            is_quarantined={"1": True, "0": False}.get(quarantined),
        )
        seen = _describe(conn, found, tracks)
    filters = {"track": str(chosen.id) if chosen else "", "status": status, "agent": agent}
    filters["quarantined"] = quarantined
    return show_page(
        request,
        "results.html",
        tracks=tracks,
        filters={name: value for name, value in filters.items() if value},
        statuses=_STATUSES,
        is_latest=not before,
        older=found[-1].id if len(found) == RESULTS else None,
        **seen,
    )


def _describe(
    conn: Connection, found: list[wire.Result], tracks: list[wire.Track]
) -> dict[str, Any]:
    linked = {result.commit for result in found if result.is_linked}
    return {
        "results": found,
        "subjects": queries.find_subjects(conn, linked),
        "labels": {track.name: track.label for track in tracks},
    }
