"""Runs, who held them, and what the machines said."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from server.schema import UtcDateTime, metadata

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
    # Whose share of the capacity it uses; None for the hub's own replicates and audits.
    Column("agent_id", String(63), ForeignKey("agents.id")),
    Column("code", String(40), nullable=False, server_default=""),
    Column("seed", BigInteger),
    # The run that was throttled, of which this is the repetition.
    Column("rerun_of", Integer),
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
        "code",
        "track_id",
        unique=True,
        sqlite_where=text("kind = 'first'"),
        postgresql_where=text("kind = 'first'"),
    ),
    Index("ix_runs_commit_seq_track_id", "commit_seq", "track_id"),
    Index("ix_runs_code_track_id", "code", "track_id"),
    Index("ix_runs_state_id", "state", "id"),
    Index(
        "ix_runs_queue",
        # The same in all of it, but SQLite's planner prefers an index with more columns fixed.
        "state",
        "track_id",
        "agent_id",
        "kind",
        "id",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index("ix_runs_worker_id_id", "worker_id", "id"),
    Index("ix_runs_worker_id_started_at", "worker_id", "started_at"),
    Index("ix_runs_finished_at_worker_id", "finished_at", "worker_id"),
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

# Worker processes that stopped themselves, by what they call their place: `host cuda:1`.
halts = Table(
    "halts",
    metadata,
    Column("worker_id", String(63), ForeignKey("agents.id"), primary_key=True),
    Column("place", String(100), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# What heartbeats told of a run on its way: one row per lease and slot of its progress.
beats = Table(
    "beats",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("progress", Float, nullable=False),
    Column("step", BigInteger),
    Column("loss", Float, nullable=False),
)

# How much of a track's capacity an agent used: the end of its last run, in runs. The agent ""
# stands for commits of nobody known.
shares = Table(
    "shares",
    metadata,
    Column("track_id", Integer, ForeignKey("tracks.id"), primary_key=True),
    Column("agent_id", String(63), primary_key=True),
    Column("served", Float, nullable=False),
)
