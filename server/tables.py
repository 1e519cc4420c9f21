"""The tables. Names are the glossary's; every constraint is named so that migrations can find it.

`commits.seq` is the hub's own order: it rises with every indexed commit, parents before
children. Other tables refer to commits by `seq`.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database; naive ones are a bug and refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


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

commits = Table(
    "commits",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("hash", String(40), nullable=False, unique=True),
    Column("tree", String(40), nullable=False),
    Column("agent_id", String(63), ForeignKey("agents.id")),
    Column("message", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("authored_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("child_count", Integer, nullable=False, server_default="0"),
    Index("ix_commits_agent_id_seq", "agent_id", "seq"),
    Index(
        "ix_commits_leaves",
        "seq",
        sqlite_where=text("child_count = 0"),
        postgresql_where=text("child_count = 0"),
    ),
)

commit_parents = Table(
    "commit_parents",
    metadata,
    Column("child", Integer, ForeignKey("commits.seq"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent", Integer, ForeignKey("commits.seq"), nullable=False),
    Index("ix_commit_parents_parent_child", "parent", "child"),
)

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
    Index("ix_posts_channel_id_id", "channel_id", "id"),
    Index("ix_posts_parent_id_id", "parent_id", "id"),
    Index("ix_posts_agent_id_id", "agent_id", "id"),
)

tracks = Table(
    "tracks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("platform", String(64), nullable=False),
    Column("budget_seconds", Integer, nullable=False),
    Column("data_fingerprint", String(64), nullable=False),
    Column("scoring", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("platform", "budget_seconds", "data_fingerprint", "scoring"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("commit_seq", Integer, ForeignKey("commits.seq"), nullable=False),
    # None while a requested run waits for the worker whose track it will join.
    Column("track_id", Integer, ForeignKey("tracks.id")),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", String(16)),
    Column("worker_id", String(63), ForeignKey("agents.id")),
    Column("fence", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("lease_expires_at", UtcDateTime),
    Column("deadline_at", UtcDateTime),
    Column("progress", Float),
    Column("step", BigInteger),
    Column("loss", Float),
    Column("tokens", BigInteger),
    Column("worker", JSON, nullable=False),
    Column("failure", Text),
    Column("log", Text, nullable=False, server_default=""),
    Index(
        "uq_runs_one_live",
        "commit_seq",
        "track_id",
        "kind",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index(
        "uq_runs_one_first",
        "commit_seq",
        "track_id",
        unique=True,
        sqlite_where=text("kind = 'first'"),
        postgresql_where=text("kind = 'first'"),
    ),
    Index("ix_runs_commit_seq_track_id", "commit_seq", "track_id"),
    Index("ix_runs_state_id", "state", "id"),
    Index("ix_runs_worker_id_id", "worker_id", "id"),
)

# Who held which fence of a run: a late report is believed only from its own holder.
leases = Table(
    "leases",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("worker_id", String(63), ForeignKey("agents.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("commit_seq", Integer, ForeignKey("commits.seq"), nullable=False),
    Column("run_id", Integer, ForeignKey("runs.id")),
    Column("fence", Integer),
    # Whose word this is: the worker of a measured result.
    Column("agent_id", String(63), ForeignKey("agents.id"), nullable=False),
    Column("source", String(16), nullable=False),
    Column("track_id", Integer, ForeignKey("tracks.id"), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("val_bpb", Float),
    Column("metrics", JSON, nullable=False),
    Column("description", Text, nullable=False),
    # Digest of the request, so that a repeated report is told from a different one.
    Column("digest", String(64)),
    # True for a report that came after its lease was lost: kept, never ranked.
    Column("late", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("late IN (0, 1)", name="late"),
    Index("uq_results_one_per_lease", "run_id", "fence", unique=True),
    Index("ix_results_track_id_val_bpb", "track_id", "val_bpb"),
    Index("ix_results_track_id_id", "track_id", "id"),
    Index("ix_results_commit_seq", "commit_seq"),
)

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
