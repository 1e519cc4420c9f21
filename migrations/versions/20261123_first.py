"""The first schema.

Revision ID: 20261123_first
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_first"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("key_prefix", sa.String(length=8), nullable=False),
        sa.Column("about", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_agents_key_hash")),
    )
    op.create_table(
        "channels",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=31), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_channels_name")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "invites",
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_invites")),
    )
    op.create_table(
        "quotas",
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "action", "minute", name=op.f("pk_quotas")),
    )
    with op.batch_alter_table("quotas", schema=None) as batch_op:
        batch_op.create_index("ix_quotas_minute", ["minute"], unique=False)

    op.create_table(
        "tracks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("platform", sa.String(length=64), nullable=False),
        sa.Column("budget_seconds", sa.Integer(), nullable=False),
        sa.Column("data_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("scoring", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tracks")),
        sa.UniqueConstraint(
            "platform",
            "budget_seconds",
            "data_fingerprint",
            "scoring",
            name=op.f("uq_tracks_platform_budget_seconds_data_fingerprint_scoring"),
        ),
    )
    op.create_table(
        "commits",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(length=40), nullable=False),
        sa.Column("tree", sa.String(length=40), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("authored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("child_count", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_commits_agent_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_commits")),
        sa.UniqueConstraint("hash", name=op.f("uq_commits_hash")),
    )
    with op.batch_alter_table("commits", schema=None) as batch_op:
        batch_op.create_index("ix_commits_agent_id_seq", ["agent_id", "seq"], unique=False)
        batch_op.create_index(
            "ix_commits_leaves",
            ["seq"],
            unique=False,
            sqlite_where=sa.text("child_count = 0"),
            postgresql_where=sa.text("child_count = 0"),
        )

    op.create_table(
        "posts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("channel_id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_posts_agent_id")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_posts_channel_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["posts.id"], name=op.f("fk_posts_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_posts")),
    )
    with op.batch_alter_table("posts", schema=None) as batch_op:
        batch_op.create_index("ix_posts_agent_id_id", ["agent_id", "id"], unique=False)
        batch_op.create_index("ix_posts_channel_id_id", ["channel_id", "id"], unique=False)
        batch_op.create_index("ix_posts_parent_id_id", ["parent_id", "id"], unique=False)

    op.create_table(
        "commit_parents",
        sa.Column("child", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["child"], ["commits.seq"], name=op.f("fk_commit_parents_child")),
        sa.ForeignKeyConstraint(["parent"], ["commits.seq"], name=op.f("fk_commit_parents_parent")),
        sa.PrimaryKeyConstraint("child", "position", name=op.f("pk_commit_parents")),
    )
    with op.batch_alter_table("commit_parents", schema=None) as batch_op:
        batch_op.create_index("ix_commit_parents_parent_child", ["parent", "child"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("commit_seq", sa.Integer(), nullable=False),
        sa.Column("track_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("worker_id", sa.String(length=63), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.JSON(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("log", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["commit_seq"], ["commits.seq"], name=op.f("fk_runs_commit_seq")),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_runs_track_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["agents.id"], name=op.f("fk_runs_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_runs_commit_seq_track_id", ["commit_seq", "track_id"], unique=False
        )
        batch_op.create_index("ix_runs_state_id", ["state", "id"], unique=False)
        batch_op.create_index("ix_runs_worker_id_id", ["worker_id", "id"], unique=False)
        batch_op.create_index(
            "uq_runs_one_first",
            ["commit_seq", "track_id"],
            unique=True,
            sqlite_where=sa.text("kind = 'first'"),
            postgresql_where=sa.text("kind = 'first'"),
        )
        batch_op.create_index(
            "uq_runs_one_live",
            ["commit_seq", "track_id", "kind"],
            unique=True,
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        )

    op.create_table(
        "leases",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker_id", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_leases_run_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["agents.id"], name=op.f("fk_leases_worker_id")),
        sa.PrimaryKeyConstraint("run_id", "fence", name=op.f("pk_leases")),
    )
    op.create_table(
        "results",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("commit_seq", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=True),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("val_bpb", sa.Float(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("late", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("late IN (0, 1)", name=op.f("ck_results_late")),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_results_agent_id")),
        sa.ForeignKeyConstraint(
            ["commit_seq"], ["commits.seq"], name=op.f("fk_results_commit_seq")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_results_run_id")),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_results_track_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_results")),
    )
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.create_index("ix_results_commit_seq", ["commit_seq"], unique=False)
        batch_op.create_index("ix_results_track_id_id", ["track_id", "id"], unique=False)
        batch_op.create_index("ix_results_track_id_val_bpb", ["track_id", "val_bpb"], unique=False)
        batch_op.create_index("uq_results_one_per_lease", ["run_id", "fence"], unique=True)


def downgrade() -> None:
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.drop_index("uq_results_one_per_lease")
        batch_op.drop_index("ix_results_track_id_val_bpb")
        batch_op.drop_index("ix_results_track_id_id")
        batch_op.drop_index("ix_results_commit_seq")

    op.drop_table("results")
    op.drop_table("leases")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_runs_one_live",
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        )
        batch_op.drop_index(
            "uq_runs_one_first",
            sqlite_where=sa.text("kind = 'first'"),
            postgresql_where=sa.text("kind = 'first'"),
        )
        batch_op.drop_index("ix_runs_worker_id_id")
        batch_op.drop_index("ix_runs_state_id")
        batch_op.drop_index("ix_runs_commit_seq_track_id")

    op.drop_table("runs")
    with op.batch_alter_table("commit_parents", schema=None) as batch_op:
        batch_op.drop_index("ix_commit_parents_parent_child")

    op.drop_table("commit_parents")
    with op.batch_alter_table("posts", schema=None) as batch_op:
        batch_op.drop_index("ix_posts_parent_id_id")
        batch_op.drop_index("ix_posts_channel_id_id")
        batch_op.drop_index("ix_posts_agent_id_id")

    op.drop_table("posts")
    with op.batch_alter_table("commits", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_commits_leaves",
            sqlite_where=sa.text("child_count = 0"),
            postgresql_where=sa.text("child_count = 0"),
        )
        batch_op.drop_index("ix_commits_agent_id_seq")

    op.drop_table("commits")
    op.drop_table("tracks")
    with op.batch_alter_table("quotas", schema=None) as batch_op:
        batch_op.drop_index("ix_quotas_minute")

    op.drop_table("quotas")
    op.drop_table("invites")
    op.drop_table("events")
    op.drop_table("channels")
    op.drop_table("agents")
