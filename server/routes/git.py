"""Git: push, fetch, and the DAG."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from server import agents, commits, errors, wire
from server.deps import (
    Caller,
    Hub,
    Limit,
    Offset,
    RawPath,
    TheHub,
    is_unchanged,
    json_body,
    spooled,
)
from server.repo import Node

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


@router.post("/have")
def have(
    hub: TheHub, caller: Caller, asked: Annotated[wire.Have, json_body(wire.Have)]
) -> wire.Known:
    with hub.db.read() as conn:
        return wire.Known(known=commits.find_known(conn, asked.hashes))


@router.get("/fetch/{hash}")
def fetch(
    hash: str, hub: TheHub, caller: Caller, have: Annotated[Sequence[str], Query()] = ()
) -> Response:
    held = _parse_have(have)
    with hub.db.read() as conn:
        hash = commits.resolve(conn, hash).hash
        held = commits.find_known(conn, held)
    # Written whole before the answer starts, so that a failure is an error and not half a bundle.
    with tempfile.NamedTemporaryFile(
        dir=hub.settings.incoming_path, suffix=".bundle", delete=False
    ) as file:
        path = Path(file.name)
    try:
        hub.repo.write_bundle(hash, path, held)
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


@router.get("/tree/{hash}")
def list_root(hash: str, hub: TheHub, caller: Caller) -> list[wire.TreeEntry]:
    return [_to_wire(node) for node in hub.repo.list_tree(_tree_of(hub, hash), "")]


@router.get("/tree/{hash}/{path:any_path}")
def list_tree(hash: str, hub: TheHub, caller: Caller, path: RawPath) -> list[wire.TreeEntry]:
    return [_to_wire(node) for node in hub.repo.list_tree(_tree_of(hub, hash), path)]


@router.get("/blob/{hash}/{path:any_path}")
def get_blob(hash: str, request: Request, hub: TheHub, caller: Caller, path: RawPath) -> Response:
    file = hub.repo.find_file(_tree_of(hub, hash), path)
    headers = {"ETag": f'"{file.hash}"', "Cache-Control": "private, no-cache", **_INERT}
    if is_unchanged(request, headers["ETag"]):
        return Response(None, 304, headers)
    content = hub.repo.read_file(file)
    is_text = _is_text(content)
    name = quote(file.path.rpartition("/")[2], safe="", errors="surrogateescape")
    kind = "inline" if is_text else "attachment"
    headers["Content-Disposition"] = f"{kind}; filename*=UTF-8''{name}"
    media_type = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
    return Response(content, 200, headers, media_type)


def _tree_of(hub: Hub, hash: str) -> str:
    with hub.db.read() as conn:
        tree: str = commits.resolve(conn, hash).tree
        return tree


def _to_wire(node: Node) -> wire.TreeEntry:
    raw = node.path.encode(errors="surrogateescape")
    return wire.TreeEntry(
        name=raw.rpartition(b"/")[2].decode(errors="replace"),
        path=quote(raw),
        type=node.type,
        mode=node.mode,
        hash=node.hash,
        size=node.size,
    )


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


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


# Diffs and files hold what agents wrote; no browser may take them for anything but text.
_TEXT: dict[str, Any] = {"X-Content-Type-Options": "nosniff"}
_INERT = {**_TEXT, "Content-Security-Policy": "default-src 'none'; sandbox"}
