"""The page people open in the morning: how far it fell, by what, what runs, what needs them."""

from datetime import datetime
from typing import Any

from fastapi import Request, Response

from server import analysis, board, results, runs, wire
from server.db import Connection
from server.deps import TheHub
from server.pages import attention, fleet, queries, standing, views
from server.pages.frame import open_router, show_page
from server.pages.happenings import list_happenings
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE

router = open_router(dependencies=[MAY_SEE])

#: How many of a kind the page shows.
TRACKS, STEPS, RECORDS, RUNS, HAPPENINGS, COMMITS, POSTS, PLACES = 8, 7, 3, 12, 24, 14, 6, 5


@router.get("/")
def overview(request: Request, hub: TheHub, track: str | None = None) -> Response:
    with hub.db.read() as conn:
        seen = see_overview(conn, track, hub.now())
        drawings = standing.draw(seen["standing"].progress) if seen["standing"] else []
    return show_page(request, "overview.html", drawings=drawings, **seen)


@router.get("/fragments/overview")
def overview_fragment(request: Request, hub: TheHub, track: str | None = None) -> Response:
    """What changes on the overview, without the drawing: scripts draw their own."""
    with hub.db.read() as conn:
        seen = see_overview(conn, track, hub.now())
    return show_page(request, "overview_live.html", drawings=[], **seen)


def see_overview(conn: Connection, name: str | None, now: datetime) -> dict[str, Any]:
    tracks = results.list_tracks(conn)
    track = results.get_track(conn, name) if name else _choose(tracks)
    workers = analysis.list_workers(conn, now)
    running = runs.list_runs(conn, state=wire.RunState.RUNNING, limit=RUNS)
    posts = queries.list_talk(conn, POSTS)
    return {
        "tracks": [one for one in tracks if one.results][:TRACKS],
        "tracks_in_all": len(tracks),
        "standing": standing.find_standing(conn, track) if track else None,
        "leaders": results.leaderboard(conn, track, PLACES).entries if track else [],
        "needs": attention.find_needs(conn, tracks, workers, now),
        "numbers": queries.count_all(conn, now),
        "machines": fleet.list_machines(conn, workers, now),
        "workers_in_all": len(workers),
        "runs": running,
        "subjects": queries.find_subjects(conn, {run.commit for run in running}),
        "labels": {one.name: one.label for one in tracks},
        "happenings": list_happenings(conn, HAPPENINGS),
        "channels": [wire.Channel(**one) for one in board.list_channels(conn)],
        "posts": posts,
        "known": find_refs(conn, (post.content for post in posts)),
        "shown_steps": STEPS,
        "shown_records": RECORDS,
    } | views.see_commits(conn, COMMITS)


def _choose(tracks: list[wire.Track]) -> wire.Track | None:
    """The busiest one that is measured, or else of all with results."""
    scored = [one for one in tracks if one.results]
    measured = [one for one in scored if one.scoring != results.REPORTED]
    return next(iter(measured or scored), None)
