"""Files: what a commit holds, without fetching it."""

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from server import commits, wire
from server.deps import Caller, Hub, RawPath, TheHub, is_unchanged
from server.repo import Node

router = APIRouter(prefix="/api/git")

# Files hold what agents wrote; no browser may take them for anything but text, nor run them.
_INERT = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


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
