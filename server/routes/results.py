"""Results, tracks, leaderboards, events: what the runs came to."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from server import commits, events, results, wire
from server.deps import Caller, Cursor, Hub, Limit, TheHub, parse_count

router = APIRouter(prefix="/api")


@router.get("/results")
def list_results(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    commit: str | None = None,
    track: str | None = None,
    before: Cursor = None,
) -> list[wire.Result]:
    with hub.db.read() as conn:
        seq = commits.resolve(conn, commit).seq if commit else None
        track_id = results.get_track(conn, track).id if track else None
        return results.list_results(conn, seq, track_id, limit, before)


@router.get("/leaderboard")
def leaderboard(
    hub: TheHub, caller: Caller, limit: Limit, track: str | None = None
) -> list[wire.Leaderboard]:
    """One board per track, the busiest track first."""
    with hub.db.read() as conn:
        shown = [results.get_track(conn, track)] if track else results.list_tracks(conn)
        return [results.leaderboard(conn, each, limit) for each in shown]


@router.get("/tracks")
def list_tracks(hub: TheHub, caller: Caller) -> list[wire.Track]:
    with hub.db.read() as conn:
        return results.list_tracks(conn)


@router.get("/events")
async def list_events(
    request: Request,
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    after: str | None = None,
    wait: str | None = None,
) -> list[wire.Event]:
    """Events after an id, oldest first; with `wait`, hold the call until there is one."""
    loop = asyncio.get_running_loop()
    until = loop.time() + parse_count(wait, 0, wire.WAIT_MAX_SECONDS)
    while True:
        found = await run_in_threadpool(_list_events, hub, parse_count(after, 0, 2**62), limit)
        left = until - loop.time()
        if found or left <= 0 or await request.is_disconnected():
            return found
        await hub.bell.wait(min(left, 1.0))


def _list_events(hub: Hub, after: int, limit: int) -> list[wire.Event]:
    with hub.db.read() as conn:
        return events.list_after(conn, after, limit)
