"""Git: push, fetch, and the DAG."""

from collections.abc import Sequence
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from server import agents, commits, errors, wire
from server.bundles import Bundle, Bundles, find_same
from server.deps import (
    Caller,
    Hub,
    Limit,
    Offset,
    TheHub,
    json_body,
    spooled,
)
from server.repo import Plan

router = APIRouter(prefix="/api/git")

# Pushes at work; more wait here, where they take no thread that others need.
_PUSHING = CapacityLimiter(8)


@router.post("/push", status_code=201)
async def push(request: Request, hub: TheHub, caller: Caller) -> wire.Pushed:
    settings = hub.settings
    limit = settings.max_pushes_per_hour
    # Before the upload, so that a refusal costs nobody fifty megabytes.
    await run_in_threadpool(_check_quota, hub, caller, "push", limit)
    spool = spooled(request, settings.incoming_path, settings.max_bundle_mb * 2**20)
    async with spool as bundle, _PUSHING:
        pushed = await run_in_threadpool(
            commits.push, hub.db, hub.repo, caller, bundle, limit, hub.now
        )
    hub.bell.ring()
    return pushed


@router.post("/have")
def have(
    hub: TheHub, caller: Caller, asked: Annotated[wire.Have, json_body(wire.Have)]
) -> wire.Known:
    with hub.db.read() as conn:
        return wire.Known(known=commits.find_known(conn, asked.hashes))


@router.get("/fetch/{hash}")
async def fetch(
    hash: str,
    hub: TheHub,
    caller: Caller,
    request: Request,
    have: Annotated[Sequence[str], Query()] = (),
) -> Response:
    plan = await run_in_threadpool(_plan, hub, hash, have)
    if same := find_same(plan, request.headers.get("If-None-Match", "")):
        return Response(status_code=304, headers={"ETag": same})
    # Written whole before the answer starts, so that a failure is an error and not half a bundle.
    return BundleResponse(hub.bundles, await hub.bundles.open(plan), plan.tip)


@router.get("/commits")
def list_commits(
    hub: TheHub,
    caller: Caller,
    request: Request,
    response: Response,
    limit: Limit,
    offset: Offset,
    agent: str | None = None,
    before: str | None = None,
) -> list[wire.Commit]:
    with hub.db.read() as conn:
        page = commits.list_commits(conn, agent, limit, offset, before)
    if len(page) == limit:
        link = request.url.include_query_params(before=page[-1].hash).remove_query_params("offset")
        response.headers["Link"] = f'<{link}>; rel="next"'
    return page


@router.get("/commits/{hash}")
def get_commit(hash: str, hub: TheHub, caller: Caller) -> wire.Commit:
    with hub.db.read() as conn:
        return commits.get_commit(conn, hash)


@router.get("/commits/{hash}/children")
def list_children(hash: str, hub: TheHub, caller: Caller) -> list[wire.Commit]:
    with hub.db.read() as conn:
        return commits.list_children(conn, hash)


@router.get("/commits/{hash}/lineage")
def list_lineage(hash: str, hub: TheHub, caller: Caller) -> list[wire.Commit]:
    with hub.db.read() as conn:
        return commits.list_lineage(conn, hash)


@router.get("/leaves")
def list_leaves(hub: TheHub, caller: Caller) -> list[wire.Commit]:
    with hub.db.read() as conn:
        return commits.list_leaves(conn)


@router.get("/diff/{a}/{b}")
def diff(a: str, b: str, hub: TheHub, caller: Caller) -> Response:
    limit = hub.settings.max_diffs_per_hour
    with hub.db.read() as conn:
        first, second = commits.resolve(conn, a).hash, commits.resolve(conn, b).hash
    _check_quota(hub, caller, "diff", limit)
    text = hub.repo.diff(first, second)
    with hub.db.write() as conn:
        agents.spend_quota(conn, caller.id, "diff", limit, hub.now())
    return Response(text, media_type="text/plain; charset=utf-8", headers=_TEXT)


class BundleResponse(FileResponse):
    """Sends a bundle and gives it back, however the sending ends."""

    def __init__(self, bundles: Bundles, bundle: Bundle, tip: str) -> None:
        super().__init__(
            bundle.path,
            media_type="application/octet-stream",
            headers={
                "Content-Disposition": f"attachment; filename={tip}.bundle",
                "ETag": bundle.etag,
            },
        )
        self._bundles, self._bundle = bundles, bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._bundles.release(self._bundle)


def _plan(hub: Hub, hash: str, have: Sequence[str]) -> Plan:
    held = _parse_have(have)
    with hub.db.read() as conn:
        tip = commits.resolve(conn, hash).hash
        held = commits.find_known(conn, held)
    return hub.bundles.plan(tip, held)


def _parse_have(have: Sequence[str]) -> list[str]:
    hashes = [word for words in have for word in words.split(",") if word]
    if len(hashes) > wire.FETCH_HAVE_MAX:
        raise errors.InvalidRequest(f"have names more than {wire.FETCH_HAVE_MAX} commits")
    if not all(map(wire.HASH.fullmatch, hashes)):
        raise errors.InvalidHash("have: invalid hash", "each is 40 lowercase hexadecimal digits")
    return hashes


def _check_quota(hub: Hub, caller: agents.Agent, action: str, limit: int) -> None:
    with hub.db.read() as conn:
        agents.check_quota(conn, caller.id, action, limit, hub.now())


# Diffs hold what agents wrote; no browser may take them for anything but text.
_TEXT: dict[str, Any] = {"X-Content-Type-Options": "nosniff"}
