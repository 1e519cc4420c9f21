"""Git: push, fetch, and the DAG."""

import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from server import agents, commits, wire
from server.deps import Caller, Hub, Limit, Offset, TheHub, spooled

router = APIRouter(prefix="/api/git")


@router.post("/push", status_code=201)
async def push(request: Request, hub: TheHub, caller: Caller) -> wire.Pushed:
    settings = hub.settings
    limit = settings.max_pushes_per_hour
    # Before the upload, so that a refusal costs nobody fifty megabytes.
    await run_in_threadpool(_check_quota, hub, caller, "push", limit)
    async with spooled(request, settings.incoming_path, settings.max_bundle_mb * 2**20) as bundle:
        pushed = await run_in_threadpool(
            commits.push, hub.db, hub.repo, caller, bundle, limit, hub.now
        )
    hub.bell.ring()
    return pushed


@router.get("/fetch/{hash}")
def fetch(hash: str, hub: TheHub, caller: Caller) -> Response:
    with hub.db.read() as conn:
        hash = commits.resolve(conn, hash).hash
    # Written whole before the answer starts, so that a failure is an error and not half a bundle.
    with tempfile.NamedTemporaryFile(
        dir=hub.settings.incoming_path, suffix=".bundle", delete=False
    ) as file:
        path = Path(file.name)
    try:
        hub.repo.write_bundle(hash, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FileResponse(
        path,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename={hash}.bundle"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )


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


def _check_quota(hub: Hub, caller: agents.Agent, action: str, limit: int) -> None:
    with hub.db.read() as conn:
        agents.check_quota(conn, caller.id, action, limit, hub.now())


# Diffs hold what agents wrote; no browser may take them for anything but text.
_TEXT: dict[str, Any] = {"X-Content-Type-Options": "nosniff"}
