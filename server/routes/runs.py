"""Runs, for workers and for those who watch them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from server import agents, commits, runs, wire
from server.deps import Caller, Cursor, Hub, Limit, TheHub, Worker, json_body, parse_count

router = APIRouter(prefix="/api")

#: A waiting claim looks again this often even if nothing rang: leases pass silently.
LOOK_SECONDS = 1.0


@router.post("/runs", status_code=201, response_model=wire.Run)
async def claim(
    request: Request,
    hub: TheHub,
    worker: Worker,
    body: Annotated[wire.Claim, json_body(wire.Claim)],
    wait: str | None = None,
) -> wire.Run | Response:
    """Lease the next run; with `wait`, hold the call until there is one."""
    loop = asyncio.get_running_loop()
    until = loop.time() + parse_count(wait, 0, wire.WAIT_MAX_SECONDS)
    while True:
        rings = hub.bell.rings
        run = await run_in_threadpool(_claim, hub, worker, body)
        if run is not None:
            return run
        left = until - loop.time()
        if left <= 0:
            return Response(status_code=204, headers={"Retry-After": "5"})
        await hub.bell.wait(min(left, LOOK_SECONDS), rings)
        if await request.is_disconnected():
            return Response(status_code=204)


def _claim(hub: Hub, worker: agents.Agent, body: wire.Claim) -> wire.Run | None:
    with hub.db.read() as conn:
        if not runs.has_work(conn, body, hub.now()):
            return None
    run = hub.group.write_now(
        lambda conn: runs.claim(conn, worker, body, hub.terms, hub.now()), runs.CLAIM_COST
    )
    hub.bell.ring()
    return run


@router.post("/runs/{id}/heartbeat")
def heartbeat(
    id: wire.Number,
    hub: TheHub,
    worker: Worker,
    body: Annotated[wire.Heartbeat, json_body(wire.Heartbeat)],
) -> wire.Lease:
    return hub.group.write_now(
        lambda conn: runs.heartbeat(conn, worker, id, body, hub.terms, hub.now())
    )


@router.put("/runs/{id}/result", status_code=201)
def finish(
    id: wire.Number,
    hub: TheHub,
    worker: Worker,
    response: Response,
    body: Annotated[wire.ResultCreate, json_body(wire.ResultCreate)],
) -> wire.Result:
    finished = hub.group.write_now(
        lambda conn: runs.finish(conn, worker.id, id, body, hub.now()), runs.FINISH_COST
    )
    hub.bell.ring()
    finished.check()
    if not finished.is_new:
        response.status_code = 200
    return finished.result


@router.post("/runs/{id}/release")
def release(
    id: wire.Number,
    hub: TheHub,
    worker: Worker,
    body: Annotated[wire.Release, json_body(wire.Release)],
) -> wire.Run:
    with hub.db.write() as conn:
        run = runs.release(conn, worker.id, id, body, hub.now())
    hub.bell.ring()
    return run


@router.post("/git/commits/{hash}/runs", status_code=201)
def request_runs(
    hash: str,
    hub: TheHub,
    caller: Caller,
    body: Annotated[wire.RunRequest, json_body(wire.RunRequest)],
) -> list[wire.Run]:
    now, limit = hub.now(), hub.settings.max_pushes_per_hour
    with hub.db.write() as conn:
        commit = commits.resolve(conn, hash)
        for _ in range(body.count):
            agents.spend_quota(conn, caller.id, "run", limit, now)
        asked = runs.request(conn, caller.id, commit, body, now)
    hub.bell.ring()
    return asked


@router.get("/runs")
def list_runs(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    commit: str | None = None,
    worker: str | None = None,
    state: wire.RunState | None = None,
    before: Cursor = None,
) -> list[wire.Run]:
    with hub.db.read() as conn:
        seq = commits.resolve(conn, commit).seq if commit else None
        return runs.list_runs(conn, seq, worker, state, limit, before)


@router.get("/runs/{id}")
def get_run(id: wire.Number, hub: TheHub, caller: Caller) -> wire.Run:
    with hub.db.read() as conn:
        return runs.get_run(conn, id)


@router.get("/runs/{id}/log")
def get_log(id: wire.Number, hub: TheHub, caller: Caller) -> PlainTextResponse:
    with hub.db.read() as conn:
        log = runs.get_log(conn, id)
    return PlainTextResponse(log, headers={"X-Content-Type-Options": "nosniff"})
