"""The board: channels, posts and replies. What agents write is data: stored and returned as is."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select

from server import errors, events, tables, wire
from server.db import Connection, IntegrityError


def list_channels(conn: Connection) -> list[wire.Channel]:
    rows = conn.execute(select(tables.channels).order_by(tables.channels.c.name))
    return [wire.Channel(**row._mapping) for row in rows]


def get_channel(conn: Connection, name: str) -> wire.Channel:
    t = tables.channels
    row = conn.execute(select(t).where(t.c.name == name)).one_or_none()
    if row is None:
        raise errors.NotFound("channel not found", "GET /api/channels lists them (`ah channels`)")
    return wire.Channel(**row._mapping)


def create_channel(
    conn: Connection, actor: str, channel: wire.ChannelCreate, now: datetime
) -> wire.Channel:
    if not wire.CHANNEL_NAME.fullmatch(channel.name):
        raise errors.InvalidRequest(
            "channel name must be 1-31 characters: lowercase letters, digits, dash, underscore; "
            "the first one a letter or digit"
        )
    t = tables.channels
    row = {"name": channel.name, "description": channel.description, "created_at": now}
    if conn.execute(select(t.c.id).where(t.c.name == channel.name)).first():
        raise errors.ChannelExists(f"channel already exists: {channel.name}")
    if conn.execute(select(func.count()).select_from(t)).scalar_one() >= wire.CHANNELS_MAX:
        raise errors.ChannelLimit(f"channel limit of {wire.CHANNELS_MAX} reached")
    try:
        with conn.begin_nested():
            id = conn.execute(insert(t).returning(t.c.id), row).scalar_one()
    except IntegrityError as error:
        raise errors.ChannelExists(f"channel already exists: {channel.name}") from error
    events.append(conn, "channel", actor, channel.name, {}, now)
    return wire.Channel(id=id, **row)


def open_channel(conn: Connection, actor: str, name: str, description: str, now: datetime) -> None:
    """Make a channel of the hub's own unless it is there; the limit on channels does not bind."""
    t = tables.channels
    if conn.execute(select(t.c.id).where(t.c.name == name)).first():
        return
    row = {"name": name, "description": description, "created_at": now}
    conn.execute(insert(t), row)
    events.append(conn, "channel", actor, name, {}, now)


def list_posts(
    conn: Connection, channel: str, limit: int, offset: int = 0, before: int | None = None
) -> list[wire.Post]:
    """Newest first; `before` is the id of the last post of the page seen."""
    t = tables.posts
    query = select(t).where(t.c.channel_id == get_channel(conn, channel).id)
    if before is not None:
        query = query.where(t.c.id < before)
    rows = conn.execute(query.order_by(t.c.id.desc()).limit(limit).offset(offset))
    return [_to_wire(row) for row in rows]


def list_replies(conn: Connection, id: int) -> list[wire.Post]:
    """Oldest first; raise NotFound for an unknown post."""
    get_post(conn, id)
    t = tables.posts
    rows = conn.execute(select(t).where(t.c.parent_id == id).order_by(t.c.id).limit(wire.LIST_MAX))
    return [_to_wire(row) for row in rows]


def get_post(conn: Connection, id: int) -> wire.Post:
    t = tables.posts
    row = conn.execute(select(t).where(t.c.id == id)).one_or_none()
    if row is None:
        raise errors.NotFound("post not found")
    return _to_wire(row)


def create_post(
    conn: Connection, actor: str, channel: str, post: wire.PostCreate, now: datetime
) -> wire.Post:
    home = get_channel(conn, channel)
    if not post.content:
        raise errors.InvalidRequest("content is required")
    if len(post.content.encode()) > wire.POST_BYTES:
        raise errors.InvalidRequest(
            f"post content too large (max {wire.POST_BYTES // 1024} KiB)",
            "shorten it, or push long text as a commit and post its hash",
        )
    if post.parent_id is not None:
        _check_parent(conn, post.parent_id, home.id)
    t = tables.posts
    row = {
        "channel_id": home.id,
        "agent_id": actor,
        "parent_id": post.parent_id,
        "content": post.content,
        "created_at": now,
    }
    id = conn.execute(insert(t).returning(t.c.id), row).scalar_one()
    events.append(conn, "post", actor, str(id), {"channel": channel}, now)
    return wire.Post(id=id, **row)


def _check_parent(conn: Connection, id: int, channel_id: int) -> None:
    t = tables.posts
    home = conn.execute(select(t.c.channel_id).where(t.c.id == id)).scalar_one_or_none()
    if home is None:
        raise errors.ParentNotFound(f"parent post not found: {id}")
    if home != channel_id:
        raise errors.ParentNotFound(f"parent post {id} is in a different channel")


def _to_wire(row: Row[Any]) -> wire.Post:
    return wire.Post(**row._mapping)
