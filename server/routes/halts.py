"""Halts, told by workers and shown to whoever looks after them."""

from typing import Annotated

from fastapi import APIRouter, Response

from server import agents, halts, wire
from server.deps import Caller, Limit, TheHub, Worker, json_body

router = APIRouter(prefix="/api")


@router.put("/halts", status_code=204)
def report_halt(
    hub: TheHub, worker: Worker, body: Annotated[wire.HaltReport, json_body(wire.HaltReport)]
) -> Response:
    """A process of this worker stopped for a reason, or without one works again."""
    if body.reason is None:
        with hub.db.read() as conn:
            if not halts.is_halted(conn, worker.id, body.place):
                return Response(status_code=204)
    now = hub.now()
    with hub.db.write() as conn:
        agents.touch(conn, worker, now)
        halts.report(conn, worker.id, body, now)
    hub.bell.ring()
    return Response(status_code=204)


@router.get("/halts")
def list_halts(
    hub: TheHub, caller: Caller, limit: Limit, worker: str | None = None
) -> list[wire.Halt]:
    with hub.db.read() as conn:
        return halts.list_halts(conn, worker, limit)
