"""Who may call the hub, and how much."""

from sqlalchemy import Column, Index, Integer, String, Table, Text

from server.schema import UtcDateTime, metadata

agents = Table(
    "agents",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("key_prefix", String(8), nullable=False),
    Column("about", Text, nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime),
    Column("disabled_at", UtcDateTime),
)

invites = Table(
    "invites",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

# What a subject (an agent, or `ip:<address>`) did in one minute; an hour's sum is its quota.
quotas = Table(
    "quotas",
    metadata,
    Column("subject", String(100), primary_key=True),
    Column("action", String(16), primary_key=True),
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("used", Integer, nullable=False),
    Index("ix_quotas_minute", "minute"),
)
