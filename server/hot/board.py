"""Hot calls about the board, and the log of events."""

from server import board, events, wire
from server.db import Connection
from server.deps import parse_count
from server.hot.calls import LOOP_ROWS, Call, NotHot, Reply, Table
from server.topics import Topic

_POSTS_QUERY = {"limit", "offset", "before"}
_EVENTS_QUERY = {"after", "limit", "wait"}


def add_to(routes: Table) -> None:
    routes.get("/api/channels", Topic.CHANNELS)(list_channels)
    routes.get("/api/channels/{name}/posts", Topic.CHANNELS, Topic.POSTS)(list_posts)
    routes.get("/api/posts/{id}", Topic.POSTS)(get_post)
    routes.get("/api/posts/{id}/replies", Topic.POSTS)(list_replies)
    # Nothing is kept of it: where the log ends, every caller asks something else.
    routes.get("/api/events")(list_events)


def list_channels(conn: Connection, call: Call) -> Reply:
    return Reply(board.list_channels(conn))


def list_posts(conn: Connection, call: Call) -> Reply:
    query = call.query
    if not query.keys() <= _POSTS_QUERY:
        raise NotHot
    limit, offset = call.read_page(query, wire.LIST_DEFAULT)
    before = call.read_number(query, "before")
    page = board.list_posts(conn, call.path["name"], limit, offset, before)
    return Reply(page, headers=call.link_on(page, limit, "id"))


def get_post(conn: Connection, call: Call) -> Reply:
    return Reply(board.get_post(conn, board.parse_id(call.path["id"])))


def list_replies(conn: Connection, call: Call) -> Reply:
    replies = board.list_replies(conn, board.parse_id(call.path["id"]), LOOP_ROWS)
    if len(replies) == LOOP_ROWS:
        raise NotHot
    return Reply(replies)


def list_events(conn: Connection, call: Call) -> Reply:
    query = call.query
    if not query.keys() <= _EVENTS_QUERY:
        raise NotHot
    limit, _ = call.read_page(query, wire.LIST_DEFAULT)
    found = events.list_after(conn, parse_count(query.get("after"), 0, 2**62), limit)
    if not found and parse_count(query.get("wait"), 0, wire.WAIT_MAX_SECONDS):
        raise NotHot
    return Reply(found)
