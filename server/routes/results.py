"""Results, tracks, leaderboards, events: what the runs came to."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from server import agents, analysis, brief, commits, events, results, runs, wire
from server.deps import (
    Caller,
    Cursor,
    Hub,
    Limit,
    TheHub,
    check_word,
    json_body,
    parse_count,
    require_admin,
    text_body,
)
from server.feed import EventStream, parse_position

router = APIRouter(prefix="/api")


#: A results.tsv of so many bytes has more rows than are taken.
TSV_BYTES = 4 * 2**20


@router.get("/results")
def list_results(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    commit: str | None = None,
    track: str | None = None,
    status: wire.Status | None = None,
    agent: str | None = None,
    quarantined: bool | None = None,
    before: Cursor = None,
) -> list[wire.Result]:
    with hub.db.read() as conn:
        seq = commits.resolve(conn, commit).seq if commit else None
        track_id = results.get_track(conn, track).id if track else None
        return results.list_results(conn, seq, track_id, limit, before, status, agent, quarantined)


@router.post("/results", status_code=201)
def report(
    hub: TheHub, caller: Caller, body: Annotated[wire.ReportCreate, json_body(wire.ReportCreate)]
) -> wire.Result:
    """An agent's own word; it gets a track of its own kind."""
    now, limit = hub.now(), hub.settings.max_posts_per_hour
    with hub.db.write() as conn:
        agents.touch(conn, caller, now)
        result = results.report(conn, caller.id, body, now)
        agents.spend_quota(conn, caller.id, "report", limit, now)
    hub.bell.ring()
    return result


@router.post("/results/import", status_code=201)
def import_results(
    hub: TheHub,
    caller: Caller,
    text: Annotated[str, text_body(TSV_BYTES)],
    platform: str,
    budget: str | None = None,
    data: str | None = None,
) -> wire.ResultsImported:
    """autoresearch's results.tsv as the body, entered slice by slice; again it adds nothing."""
    budget_seconds = parse_count(budget, results.DEFAULT_BUDGET_SECONDS, 7 * 24 * 3600)
    now, limit = hub.now(), hub.settings.max_pushes_per_hour
    names = [check_word("platform", platform), *([check_word("data", data)] if data else [None])]
    planned = results.plan_import(names[0], budget_seconds, names[1], text)
    with hub.db.write() as conn:
        agents.touch(conn, caller, now)
        agents.spend_quota(conn, caller.id, "import", limit, now)
        track = results.open_reported(conn, names[0], budget_seconds, names[1], now)
    added: list[wire.Result] = []
    for part in planned.slices():
        with hub.db.write() as conn:
            added += results.import_slice(conn, caller.id, track, part, now)
    hub.bell.ring()
    return results.sum_import(planned, added, track)


@router.get("/results.tsv", response_class=PlainTextResponse)
def export_results(hub: TheHub, caller: Caller, track: str | None = None) -> Response:
    """A track's experiments in autoresearch's five columns; of the busiest one by default."""
    with hub.db.read() as conn:
        chosen = results.get_track(conn, track) if track else results.get_busiest(conn)
        text = results.export_tsv(conn, chosen.id)
    return Response(text, media_type="text/tab-separated-values; charset=utf-8")


@router.post("/results/{id}/release", dependencies=[Depends(require_admin)])
def release(id: wire.Number, hub: TheHub) -> wire.Result:
    """Let a quarantined result count; admin key."""
    now = hub.now()
    with hub.db.write() as conn:
        result = results.release(conn, id, now)
        runs.settle_released(conn, result, now)
    hub.bell.ring()
    return result


@router.get("/leaderboard")
def leaderboard(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    track: str | None = None,
    by: Literal["commit", "agent"] = "commit",
) -> list[wire.Leaderboard]:
    """One board per track, the busiest first, at most 50; name another one with `track`."""
    with hub.db.read() as conn:
        # Any report may open a track; a whole answer shall not grow with them.
        busiest = results.list_tracks(conn)[: wire.LIST_DEFAULT]
        shown = [results.get_track(conn, track)] if track else busiest
        return [results.leaderboard(conn, each, limit, by) for each in shown]


@router.get("/progress")
def progress(
    hub: TheHub, caller: Caller, track: str | None = None, limit: str | None = None
) -> wire.Progress:
    """The newest experiments of a track, in order; of the busiest track without one."""
    count = parse_count(limit, wire.LIST_MAX, results.POINTS_MAX)
    with hub.db.read() as conn:
        chosen = results.get_track(conn, track) if track else results.get_busiest(conn)
        return results.read_progress(conn, chosen, count).to_wire()


@router.get("/analysis")
def analyse(hub: TheHub, caller: Caller, track: str | None = None) -> wire.Analysis:
    """Trend, keep rate, what paid and what did not, failures, workers."""
    with hub.db.read() as conn:
        chosen = results.get_track(conn, track) if track else results.get_busiest(conn)
        return analysis.analyse(conn, chosen, hub.now())


@router.get("/brief", response_class=PlainTextResponse)
def write_brief(hub: TheHub, caller: Caller, track: str | None = None) -> Response:
    """The state of the research for an agent that has just woken up, as Markdown."""
    with hub.db.read() as conn:
        chosen = results.get_track(conn, track) if track else results.find_busiest(conn)
        text = brief.write_brief(conn, chosen, hub.now())
    return Response(text, media_type="text/markdown; charset=utf-8")


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
        rings = hub.bell.rings
        found = await run_in_threadpool(_list_events, hub, parse_count(after, 0, 2**62), limit)
        left = until - loop.time()
        if found or left <= 0 or await request.is_disconnected():
            return found
        await hub.bell.wait(min(left, 1.0), rings)


@router.get("/events/stream")
async def stream_events(
    request: Request, hub: TheHub, caller: Caller, after: str | None = None
) -> Response:
    """What happens, as server-sent events; `Last-Event-ID` or `after` resumes without a gap."""
    position = parse_position(request.headers.get("Last-Event-ID"), after)
    return EventStream(hub.feed, position)


def _list_events(hub: Hub, after: int, limit: int) -> list[wire.Event]:
    with hub.db.read() as conn:
        return events.list_after(conn, after, limit)
