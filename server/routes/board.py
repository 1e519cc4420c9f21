"""The board: channels, posts, replies."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from server import agents, board, errors, wire
from server.deps import Caller, Cursor, Limit, Offset, TheHub, json_body

router = APIRouter(prefix="/api")


@router.get("/channels")
def list_channels(hub: TheHub, caller: Caller) -> list[wire.Channel]:
    with hub.db.read() as conn:
        return board.list_channels(conn)


@router.post("/channels", status_code=201)
def create_channel(
    hub: TheHub, caller: Caller, body: Annotated[wire.ChannelCreate, json_body(wire.ChannelCreate)]
) -> wire.Channel:
    with hub.db.write() as conn:
        channel = board.create_channel(conn, caller.id, body, hub.now())
    hub.bell.ring()
    return channel


@router.get("/channels/{name}/posts")
def list_posts(
    name: str,
    hub: TheHub,
    caller: Caller,
    request: Request,
    response: Response,
    limit: Limit,
    offset: Offset,
    before: Cursor = None,
) -> list[wire.Post]:
    with hub.db.read() as conn:
        page = board.list_posts(conn, name, limit, offset, before)
    if len(page) == limit:
        link = request.url.include_query_params(before=page[-1].id).remove_query_params("offset")
        response.headers["Link"] = f'<{link}>; rel="next"'
    return page


@router.post("/channels/{name}/posts", status_code=201)
def create_post(
    name: str,
    hub: TheHub,
    caller: Caller,
    body: Annotated[wire.PostCreate, json_body(wire.PostCreate)],
) -> wire.Post:
    now, limit = hub.now(), hub.settings.max_posts_per_hour
    with hub.db.write() as conn:
        agents.touch(conn, caller, now)
        post = board.create_post(conn, caller.id, name, body, now)
        agents.spend_quota(conn, caller.id, "post", limit, now)
    hub.bell.ring()
    return post


@router.get("/posts/{id}")
def get_post(id: str, hub: TheHub, caller: Caller) -> wire.Post:
    with hub.db.read() as conn:
        return board.get_post(conn, _parse_id(id))


@router.get("/posts/{id}/replies")
def list_replies(id: str, hub: TheHub, caller: Caller) -> list[wire.Post]:
    with hub.db.read() as conn:
        return board.list_replies(conn, _parse_id(id))


def _parse_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.InvalidRequest("invalid post id")
    return int(text)
