"""Git: push, fetch, and the DAG."""

from collections.abc import Sequence
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from server import agents, commits, dag, errors, wire
from server.bundles import Bundle, Bundles, find_same
from server.deps import (
    Caller,
    Hub,
    Limit,
    Offset,
    TheHub,
    gzipped,
    is_unchanged,
    json_body,
    parse_count,
    spooled,
)
from server.shown import Fields

router = APIRouter(prefix="/api/git")

# Pushes at work; more wait here, where they take no thread that others need.
_PUSHING = CapacityLimiter(8)


@router.post("/push", status_code=201)
async def push(request: Request, hub: TheHub, caller: Caller) -> wire.Pushed:
    settings = hub.settings
    limit = settings.max_pushes_per_hour
    # Before the upload, so that a refusal costs nobody fifty megabytes.
    if limit:
        await run_in_threadpool(_check_quota, hub, caller, "push", limit)
    spool = spooled(request, hub.incoming.path, settings.max_bundle_mb * 2**20)
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
    tip, held = _find_ends(hub, hash, have)
    plan = hub.bundles.find_plan(tip, held)
    if plan is None:
        plan = await run_in_threadpool(hub.bundles.plan, tip, held)
    if same := find_same(plan, request.headers.get("If-None-Match", "")):
        return Response(status_code=304, headers={"ETag": same})
    # Written whole before the answer starts, so that a failure is an error and not half a bundle.
    bundle = await hub.bundles.open(plan)
    # Parts of it, and a large one, come from the file.
    body = None if "Range" in request.headers else hub.bundles.read(bundle)
    if body is None:
        return BundleResponse(hub.bundles, bundle, plan.tip)
    hub.bundles.release(bundle)
    return Response(body, headers=_describe(bundle, plan.tip), media_type=_BUNDLE)


@router.get("/commits", response_model=list[wire.Commit])
def list_commits(
    hub: TheHub,
    caller: Caller,
    request: Request,
    response: Response,
    limit: Limit,
    offset: Offset,
    agent: str | None = None,
    before: str | None = None,
) -> list[Fields]:
    with hub.db.read() as conn:
        page = commits.list_commits(conn, agent, limit, offset, before)
    if len(page) == limit:
        link = request.url.include_query_params(before=page[-1]["hash"]).remove_query_params(
            "offset"
        )
        response.headers["Link"] = f'<{link}>; rel="next"'
    return page


@router.get("/commits/{hash}", response_model=wire.Commit)
def get_commit(hash: str, hub: TheHub, caller: Caller) -> Fields:
    with hub.db.read() as conn:
        return commits.get_commit(conn, hash)


@router.get("/commits/{hash}/children", response_model=list[wire.Commit])
def list_children(hash: str, hub: TheHub, caller: Caller) -> list[Fields]:
    with hub.db.read() as conn:
        return commits.list_children(conn, hash)


@router.get("/commits/{hash}/lineage", response_model=list[wire.Commit])
def list_lineage(hash: str, hub: TheHub, caller: Caller) -> list[Fields]:
    with hub.db.read() as conn:
        return commits.list_lineage(conn, hash)


@router.get("/leaves", response_model=list[wire.Commit])
def list_leaves(hub: TheHub, caller: Caller) -> list[Fields]:
    with hub.db.read() as conn:
        return commits.list_leaves(conn)


@router.get("/dag")
def read_dag(
    hub: TheHub,
    caller: Caller,
    request: Request,
    since: str | None = None,
    result: str | None = None,
    limit: str | None = None,
) -> Response:
    """The DAG in columns; `since` and `result` of the last answer bring what is new."""
    most = parse_count(limit, dag.COMMITS_MAX, dag.COMMITS_MAX)
    with hub.db.read() as conn:
        found = dag.read(conn, parse_count(since, 0, 2**62), parse_count(result, 0, 2**62), most)
    return gzipped(request, found.to_json(), "application/json")


@router.get("/diff/{a}/{b}")
def diff(a: str, b: str, hub: TheHub, caller: Caller, request: Request) -> Response:
    limit = hub.settings.max_diffs_per_hour
    with hub.db.read() as conn:
        first, second = commits.resolve(conn, a).tree, commits.resolve(conn, b).tree
        etag = f'"{first}-{second}"'
        headers = {**_TEXT, "ETag": etag}
        if is_unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        agents.check_quota(conn, caller.id, "diff", limit, hub.now())
    text = hub.repo.diff_trees(first, second)
    if limit:
        with hub.db.write() as conn:
            agents.spend_quota(conn, caller.id, "diff", limit, hub.now())
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


class BundleResponse(FileResponse):
    """Sends a bundle and gives it back, however the sending ends."""

    def __init__(self, bundles: Bundles, bundle: Bundle, tip: str) -> None:
        super().__init__(bundle.path, media_type=_BUNDLE, headers=_describe(bundle, tip))
        self._bundles, self._bundle = bundles, bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._bundles.release(self._bundle)


def _describe(bundle: Bundle, tip: str) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename={tip}.bundle",
        "ETag": bundle.etag,
    }


def _find_ends(hub: Hub, hash: str, have: Sequence[str]) -> tuple[str, frozenset[str]]:
    held = _parse_have(have)
    with hub.db.read() as conn:
        tip: str = commits.resolve(conn, hash).hash
        return tip, frozenset(commits.find_known(conn, held) if held else ())


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


_BUNDLE = "application/octet-stream"
# Diffs hold what agents wrote; no browser may take them for anything but text.
_TEXT: dict[str, Any] = {"X-Content-Type-Options": "nosniff"}
