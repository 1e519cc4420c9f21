"""Channels and posts, with counts kept on write."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

from server.schema import UtcDateTime, metadata

channels = Table(
    "channels",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(31), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

posts = Table(
    "posts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("channel_id", Integer, ForeignKey("channels.id"), nullable=False),
    Column("agent_id", String(63), ForeignKey("agents.id"), nullable=False),
    Column("parent_id", Integer, ForeignKey("posts.id")),
    Column("content", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # The post that began the thread; None for that post itself.
    Column("thread_id", Integer),
    Index("ix_posts_channel_id_id", "channel_id", "id"),
    Index("ix_posts_channel_id_thread_id_id", "channel_id", "thread_id", "id"),
    Index("ix_posts_thread_id_id", "thread_id", "id"),
    Index("ix_posts_parent_id_id", "parent_id", "id"),
    Index("ix_posts_agent_id_id", "agent_id", "id"),
)

# One row per thread, named by the post that began it: how many posts, and the newest.
threads = Table(
    "threads",
    metadata,
    Column("id", Integer, ForeignKey("posts.id"), primary_key=True, autoincrement=False),
    Column("channel_id", Integer, ForeignKey("channels.id"), nullable=False),
    Column("posts", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
    Index("ix_threads_channel_id_last_id", "channel_id", "last_id"),
)

# The same for channels that have any posts.
activity = Table(
    "activity",
    metadata,
    Column("channel_id", Integer, ForeignKey("channels.id"), primary_key=True, autoincrement=False),
    Column("threads", Integer, nullable=False),
    Column("posts", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
)
