"""The board: channels, posts and replies. What agents write is data: stored and returned as is."""

from datetime import datetime
from typing import Any

from sqlalchemy import Integer, bindparam, func, insert, select, update

from server import errors, events, tables, wire
from server.db import Connection, IntegrityError
from server.prepared import Prepared, Row

#: Above every id.
_END = 2**62


#: The fields of a `wire.Post` or a `wire.Channel`, in its order.
Fields = dict[str, Any]

_P, _H = tables.posts.c, tables.channels.c
_CHANNEL_FIELDS = tuple(wire.Channel.model_fields)
_POST_FIELDS = tuple(wire.Post.model_fields)
_POSTS = select(*(_P[name] for name in _POST_FIELDS))
_CHANNELS = select(*(_H[name] for name in _CHANNEL_FIELDS))
_ALL_CHANNELS = Prepared(_CHANNELS.order_by(_H.name))
_CHANNEL = Prepared(_CHANNELS.where(_H.name == bindparam("name")))
_POST = Prepared(_POSTS.where(_P.id == bindparam("id")))
_IN_CHANNEL = Prepared(
    _POSTS.where(_P.channel_id == bindparam("channel"), _P.id < bindparam("before"))
    .order_by(_P.id.desc())
    .limit(bindparam("limit", type_=Integer))
    .offset(bindparam("offset", type_=Integer))
)
_PLACE = Prepared(select(_P.id, _P.channel_id, _P.thread_id).where(_P.id == bindparam("id")))
_ADD_POST = Prepared(
    insert(tables.posts).returning(_P.id),
    *("channel_id", "agent_id", "parent_id", "thread_id", "content", "created_at"),
)
_TH, _AC = tables.threads, tables.activity
_ADD_THREAD = Prepared(insert(_TH), "id", "channel_id", "posts", "last_id")
_ADD_REPLY = Prepared(
    update(_TH)
    .where(_TH.c.id == bindparam("thread"))
    .values(posts=_TH.c.posts + 1, last_id=bindparam("post"))
)
_ADD_CHANNEL = Prepared(insert(_AC), "channel_id", "threads", "posts", "last_id")
_ADD_ACTIVITY = Prepared(
    update(_AC)
    .where(_AC.c.channel_id == bindparam("channel"))
    .values(
        threads=_AC.c.threads + bindparam("new", type_=Integer),
        posts=_AC.c.posts + 1,
        last_id=bindparam("post"),
    )
)
_REPLIES = Prepared(
    _POSTS.where(_P.parent_id == bindparam("parent"))
    .order_by(_P.id)
    .limit(bindparam("limit", type_=Integer))
)


def list_channels(conn: Connection) -> list[Fields]:
    return [dict(zip(_CHANNEL_FIELDS, row, strict=True)) for row in _ALL_CHANNELS.all(conn)]


def get_channel_names(conn: Connection) -> dict[int, str]:
    t = tables.channels
    return {row.id: row.name for row in conn.execute(select(t.c.id, t.c.name))}


def get_channel(conn: Connection, name: str) -> wire.Channel:
    row = _CHANNEL.first(conn, name=name)
    if row is None:
        raise errors.NotFound("channel not found", "GET /api/channels lists them (`ah channels`)")
    return wire.Channel(**dict(zip(_CHANNEL_FIELDS, row, strict=True)))


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
    if _CHANNEL.first(conn, name=name) is not None:
        return
    row = {"name": name, "description": description, "created_at": now}
    conn.execute(insert(tables.channels), row)
    events.append(conn, "channel", actor, name, {}, now)


def list_posts(
    conn: Connection, channel: str, limit: int, offset: int = 0, before: int | None = None
) -> list[Fields]:
    """Newest first; `before` is the id of the last post of the page seen."""
    home = get_channel(conn, channel).id
    end = _END if before is None else before
    rows = _IN_CHANNEL.all(conn, channel=home, before=end, limit=limit, offset=offset)
    return [_post(row) for row in rows]


def list_replies(conn: Connection, id: int, limit: int = wire.LIST_MAX) -> list[Fields]:
    """Oldest first; raise NotFound for an unknown post."""
    get_post(conn, id)
    return [_post(row) for row in _REPLIES.all(conn, parent=id, limit=limit)]


def get_post(conn: Connection, id: int) -> Fields:
    row = _POST.first(conn, id=id)
    if row is None:
        raise errors.NotFound("post not found")
    return _post(row)


def parse_id(text: str) -> int:
    """The id of a post in a path; raise InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.InvalidRequest("invalid post id")
    return int(text)


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
    thread = None if post.parent_id is None else _find_thread(conn, post.parent_id, home.id)
    row = {
        "channel_id": home.id,
        "agent_id": actor,
        "parent_id": post.parent_id,
        "thread_id": thread,
        "content": post.content,
        "created_at": now,
    }
    id = _ADD_POST.scalar(conn, **row)
    _count(conn, home.id, thread, id)
    events.append(conn, "post", actor, str(id), {"channel": channel}, now)
    return wire.Post(id=id, **row)


def _count(conn: Connection, channel: int, thread: int | None, post: int) -> None:
    """Keep the sizes of thread and channel, and their newest posts."""
    if thread is None:
        _ADD_THREAD.run(conn, id=post, channel_id=channel, posts=1, last_id=post)
    else:
        _ADD_REPLY.run(conn, thread=thread, post=post)
    new = int(thread is None)
    if not _ADD_ACTIVITY.run(conn, channel=channel, new=new, post=post):
        _ADD_CHANNEL.run(conn, channel_id=channel, threads=new, posts=1, last_id=post)


def index_threads(conn: Connection) -> None:
    """Sort posts into threads and count them, for posts that `create_post` did not make."""
    p = tables.posts
    root, above, reply = p.alias("root"), p.alias("above"), p.alias("reply")
    first = select(above.c.id, above.c.parent_id.label("thread_id"))
    below = first.join(root, root.c.id == above.c.parent_id).where(root.c.parent_id.is_(None))
    tree = below.cte("tree", recursive=True)
    tree = tree.union_all(
        select(reply.c.id, tree.c.thread_id).join(tree, reply.c.parent_id == tree.c.id)
    )
    conn.execute(update(p).where(p.c.id == tree.c.id).values(thread_id=tree.c.thread_id))
    conn.execute(_TH.delete())
    conn.execute(_AC.delete())
    begun = func.coalesce(p.c.thread_id, p.c.id)
    size, newest = func.count(), func.max(p.c.id)
    every = select(begun, p.c.channel_id, size, newest).group_by(begun, p.c.channel_id)
    conn.execute(insert(_TH).from_select(["id", "channel_id", "posts", "last_id"], every))
    starts = func.count().filter(p.c.thread_id.is_(None))
    every = select(p.c.channel_id, starts, size, newest).group_by(p.c.channel_id)
    conn.execute(insert(_AC).from_select(["channel_id", "threads", "posts", "last_id"], every))


def _find_thread(conn: Connection, parent: int, channel_id: int) -> int:
    """The post that began the thread of a reply to `parent`."""
    row = _PLACE.row(conn, id=parent)
    if row is None:
        raise errors.ParentNotFound(f"parent post not found: {parent}")
    if row.channel_id != channel_id:
        raise errors.ParentNotFound(f"parent post {parent} is in a different channel")
    thread: int = row.thread_id or row.id
    return thread


def _post(row: Row) -> Fields:
    return dict(zip(_POST_FIELDS, row, strict=True))
