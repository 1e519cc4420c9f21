"""A post, as the API and the pages take it: on its author's quota, and read for results."""

from datetime import datetime

from server import agents, board, results, wire
from server.db import Connection


def create_post(
    conn: Connection,
    author: agents.Agent,
    channel: str,
    asked: wire.PostCreate,
    per_hour: int,
    now: datetime,
) -> wire.Post:
    """In one transaction, or not at all; raise QuotaExceeded among what `board` raises."""
    agents.touch(conn, author, now)
    post = board.create_post(conn, author.id, channel, asked, now)
    results.read_post(conn, author.role, channel, post, now)
    agents.spend_quota(conn, author.id, "post", per_hour, now)
    return post


def may_take_long(author: agents.Agent, channel: str) -> bool:
    """Whether it may tell of results, each of which is judged as it comes."""
    return channel == results.CHANNEL and author.role is wire.Role.AGENT
