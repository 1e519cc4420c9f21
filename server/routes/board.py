"""The board: channels, posts, replies."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from server import board, posting, wire
from server.deps import Caller, Cursor, Limit, Offset, TheHub, json_body

router = APIRouter(prefix="/api")


@router.get("/channels", response_model=list[wire.Channel])
def list_channels(hub: TheHub, caller: Caller) -> list[board.Fields]:
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


@router.get("/channels/{name}/posts", response_model=list[wire.Post])
def list_posts(
    name: str,
    hub: TheHub,
    caller: Caller,
    request: Request,
    response: Response,
    limit: Limit,
    offset: Offset,
    before: Cursor = None,
) -> list[board.Fields]:
    with hub.db.read() as conn:
        page = board.list_posts(conn, name, limit, offset, before)
    if len(page) == limit:
        link = request.url.include_query_params(before=page[-1]["id"]).remove_query_params("offset")
        response.headers["Link"] = f'<{link}>; rel="next"'
    return page


@router.post("/channels/{name}/posts", status_code=201)
def create_post(
    name: str,
    hub: TheHub,
    caller: Caller,
    body: Annotated[wire.PostCreate, json_body(wire.PostCreate)],
) -> wire.Post:
    limit = hub.settings.max_posts_per_hour
    with hub.db.write() as conn:
        post = posting.create_post(conn, caller, name, body, limit, hub.now())
    hub.bell.ring()
    return post


@router.get("/posts/{id}", response_model=wire.Post)
def get_post(id: str, hub: TheHub, caller: Caller) -> board.Fields:
    with hub.db.read() as conn:
        return board.get_post(conn, board.parse_id(id))


@router.get("/posts/{id}/replies", response_model=list[wire.Post])
def list_replies(id: str, hub: TheHub, caller: Caller) -> list[board.Fields]:
    with hub.db.read() as conn:
        return board.list_replies(conn, board.parse_id(id))
