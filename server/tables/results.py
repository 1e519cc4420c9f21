"""Tracks, results, and what is summed up from them in the same transaction."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from server.schema import UtcDateTime, metadata

tracks = Table(
    "tracks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("platform", String(64), nullable=False),
    Column("budget_seconds", Integer, nullable=False),
    Column("data_fingerprint", String(64), nullable=False),
    Column("scoring", String(64), nullable=False),
    # Name of the data set, to be read; the fingerprint is what counts.
    Column("data", String(64), nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    # The queue: commits up to this seq were looked at.
    Column("seen_seq", Integer, nullable=False, server_default="0"),
    # Fair share: start of the run leased last, in runs of one agent.
    Column("served", Float, nullable=False, server_default="0"),
    # What replicates and audits may still take of the capacity, in runs.
    Column("reserve", Float, nullable=False, server_default="0"),
    # Sums over its scores that tell noise: runs, their squared deviations, degrees of freedom.
    Column("noise_runs", Integer, nullable=False, server_default="0"),
    Column("noise_squares", Float, nullable=False, server_default="0"),
    Column("noise_degrees", Integer, nullable=False, server_default="0"),
    # How many codes have a score.
    Column("scored", Integer, nullable=False, server_default="0"),
    UniqueConstraint("platform", "budget_seconds", "data_fingerprint", "scoring"),
)

# What a piece of code is worth in a track, summed up from its results in the same transaction.
scores = Table(
    "scores",
    metadata,
    Column("track_id", Integer, ForeignKey("tracks.id"), primary_key=True),
    # `commits.code`, or the hash as it was given when no commit here has it.
    Column("code", String(64), primary_key=True),
    # The first commit that was scored; None when it is unknown here.
    Column("commit_seq", Integer, ForeignKey("commits.seq")),
    Column("agent_id", String(63), ForeignKey("agents.id"), nullable=False),
    # Whose commit it is, as in `results.author`.
    Column("author", String(63), nullable=False, server_default=""),
    Column("result_id", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    # The mean where there is one, else the first score. None: it never worked.
    Column("val_bpb", Float),
    Column("first", Float),
    # Runs that count: how many, their mean, and the sum of squared deviations from it.
    Column("n", Integer, nullable=False),
    Column("mean", Float),
    Column("m2", Float, nullable=False),
    Column("is_fixed_seed", Boolean(create_constraint=False), nullable=False),
    # The record it challenges or challenged, and as which challenger of it.
    Column("record_id", Integer, ForeignKey("records.id")),
    Column("challenger", Integer),
    # The newest result when its challenge began: only runs that came later count in it.
    Column("since", Integer),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_scores_track_id_val_bpb", "track_id", "val_bpb"),
    Index("ix_scores_track_id_author_val_bpb", "track_id", "author", "val_bpb"),
    Index("ix_scores_code", "code"),
    Index(
        "ix_scores_challengers",
        "track_id",
        sqlite_where=text("state = 'challenger'"),
        postgresql_where=text("state = 'challenger'"),
    ),
    Index(
        "ix_scores_record_id",
        "record_id",
        sqlite_where=text("record_id IS NOT NULL"),
        postgresql_where=text("record_id IS NOT NULL"),
    ),
)

# The records of a track, one after the other: its baseline, then what was confirmed.
records = Table(
    "records",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("track_id", Integer, ForeignKey("tracks.id"), nullable=False),
    Column("code", String(64), nullable=False),
    Column("commit_seq", Integer, ForeignKey("commits.seq"), nullable=False),
    Column("val_bpb", Float, nullable=False),
    Column("n", Integer, nullable=False),
    Column("standard_error", Float, nullable=False),
    # None for a baseline, which beat nothing.
    Column("z", Float),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_records_track_id_id", "track_id", "id"),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    # None for a reported result of a commit that is not here.
    Column("commit_seq", Integer, ForeignKey("commits.seq")),
    # `commits.code`, or the hash as it was given when no commit here has it.
    Column("code", String(64), nullable=False),
    Column("run_id", Integer, ForeignKey("runs.id")),
    Column("fence", Integer),
    Column("kind", String(16)),
    Column("seed", BigInteger),
    # Whose word this is: the worker of a measured result, the agent of a reported one.
    Column("agent_id", String(63), ForeignKey("agents.id"), nullable=False),
    # Who pushed the commit; of one that is not here, who reported it; "" when nobody is known.
    Column("author", String(63), nullable=False, server_default=""),
    # Its place among the experiments of its track, from 1; None for what repeats or came late.
    Column("number", Integer),
    Column("post_id", Integer, ForeignKey("posts.id")),
    Column("source", String(16), nullable=False),
    Column("track_id", Integer, ForeignKey("tracks.id"), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("val_bpb", Float),
    # How much better than the track's record and than the parent, in bpb and in noise.
    Column("record_gain", Float),
    Column("record_z", Float),
    Column("parent_gain", Float),
    Column("parent_z", Float),
    # Why it is not believed; it counts again once an admin has released it.
    Column("quarantine", Text),
    Column("released_at", UtcDateTime),
    # How far its speed lies under the median of its like, as a part; None: it was not slowed down.
    Column("throttled", Float),
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
    Index("ix_results_code_track_id", "code", "track_id"),
    Index("ix_results_agent_id_digest", "agent_id", "digest"),
    Index("ix_results_author_id", "author", "id"),
    Index("ix_results_status_id", "status", "id"),
    Index("ix_results_track_id_number", "track_id", "number"),
    Index(
        "ix_results_waiting",
        "track_id",
        "status",
        "number",
        sqlite_where=text("quarantine IS NOT NULL AND released_at IS NULL"),
        postgresql_where=text("quarantine IS NOT NULL AND released_at IS NULL"),
    ),
    Index(
        "ix_results_throttled",
        "agent_id",
        sqlite_where=text("throttled IS NOT NULL"),
        postgresql_where=text("throttled IS NOT NULL"),
    ),
    Index(
        "ix_results_kept",
        "track_id",
        "id",
        sqlite_where=text("status = 'keep'"),
        postgresql_where=text("status = 'keep'"),
    ),
    Index(
        "ix_results_quarantined",
        "id",
        sqlite_where=text("quarantine IS NOT NULL AND released_at IS NULL"),
        postgresql_where=text("quarantine IS NOT NULL AND released_at IS NULL"),
    ),
)

# How many results that count there are; experiments, and what repeats one: replicates, audits.
tallies = Table(
    "tallies",
    metadata,
    Column("track_id", Integer, ForeignKey("tracks.id"), primary_key=True),
    Column("author", String(63), primary_key=True),
    Column("status", String(16), primary_key=True),
    Column("experiments", Integer, nullable=False),
    Column("repeats", Integer, nullable=False),
)

# Of how many children of a commit, as their first parent, a track has a score.
visits = Table(
    "visits",
    metadata,
    Column("track_id", Integer, ForeignKey("tracks.id"), primary_key=True),
    Column("parent", Integer, ForeignKey("commits.seq"), primary_key=True),
    Column("n", Integer, nullable=False),
)
