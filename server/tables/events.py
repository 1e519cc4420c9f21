"""What happened, and who has seen how much of it."""

from sqlalchemy import JSON, BigInteger, Column, Integer, String, Table

from server.schema import UtcDateTime, metadata

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("actor", String(63), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# How far something that reads beside the requests has come: a `seq` or an `id`.
watermarks = Table(
    "watermarks",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("upto", Integer, nullable=False),
)

# A new random version with every change of a part of the above; triggers write it.
topics = Table(
    "topics",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("version", BigInteger, nullable=False),
)
