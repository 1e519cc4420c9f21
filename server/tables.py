"""The tables. Names are the glossary's; every constraint is named so that migrations can find it.

`commits.seq` is the hub's own order: it rises with every indexed commit, parents before
children. Other tables refer to commits by `seq`.
"""

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
    # Equal for commits that train alike; the hash itself where it was not known yet.
    Column("code", String(40), nullable=False, server_default=""),
    Column("agent_id", String(63), ForeignKey("agents.id")),
    Column("message", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("authored_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("child_count", Integer, nullable=False, server_default="0"),
    Index("ix_commits_agent_id_seq", "agent_id", "seq"),
    Index("ix_commits_code_seq", "code", "seq"),
    Index("ix_commits_tree_seq", "tree", "seq"),
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

# What a commit's diff to its first parent touches: settings and parts of train.py, other files.
changes = Table(
    "changes",
    metadata,
    Column("commit_seq", Integer, ForeignKey("commits.seq"), primary_key=True),
    Column("kind", String(200), primary_key=True),
    Column("before", String(100)),
    Column("after", String(100)),
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

# How much of a track's capacity an agent used: the end of its last run, in runs. The agent ""
# stands for commits of nobody known.
shares = Table(
    "shares",
    metadata,
    Column("track_id", Integer, ForeignKey("tracks.id"), primary_key=True),
    Column("agent_id", String(63), primary_key=True),
    Column("served", Float, nullable=False),
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


def is_table(name: str | None, kind: str, _: object = None) -> bool:
    """Whether Alembic shall compare it: not SQLite's full-text indexes and what is inside them."""
    return kind != "table" or "_fts" not in (name or "")
