"""Results that mean something: codes, scores, records, shares, quarantine.

Revision ID: 20261124_results
Revises: 20261123_first
"""

import sqlalchemy as sa
from alembic import op

revision = "20261124_results"
down_revision = "20261123_first"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _commits_and_tracks()
    _runs()
    _results()
    _scores()


def downgrade() -> None:
    raise NotImplementedError("restore the backup from before the upgrade instead")


def _commits_and_tracks() -> None:
    op.add_column("commits", sa.Column("code", sa.String(40), nullable=False, server_default=""))
    # Their trees are in git: each of them stays an experiment of its own.
    op.execute("UPDATE commits SET code = hash")
    op.create_index("ix_commits_code_seq", "commits", ["code", "seq"])
    op.add_column("tracks", sa.Column("data", sa.String(64), nullable=False, server_default=""))
    op.add_column("tracks", sa.Column("seen_seq", sa.Integer(), nullable=False, server_default="0"))
    for name in ("served", "reserve"):
        op.add_column("tracks", sa.Column(name, sa.Float(), nullable=False, server_default="0"))


def _runs() -> None:
    # Said by hand: SQLite takes a new foreign key only within its column.
    op.execute(
        "ALTER TABLE runs ADD COLUMN agent_id VARCHAR(63) "
        "CONSTRAINT fk_runs_agent_id REFERENCES agents (id)"
    )
    op.add_column("runs", sa.Column("code", sa.String(40), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("seed", sa.BigInteger(), nullable=True))
    op.execute("UPDATE runs SET code = (SELECT code FROM commits WHERE seq = runs.commit_seq)")
    op.execute("UPDATE runs SET seed = 42 WHERE kind = 'first'")
    op.execute("UPDATE runs SET seed = 1000 + id WHERE kind <> 'first' AND state <> 'finished'")
    op.execute(
        "UPDATE runs SET agent_id = (SELECT agent_id FROM commits WHERE seq = runs.commit_seq)"
    )
    op.create_index("ix_runs_code_track_id", "runs", ["code", "track_id"])
    op.drop_index("uq_runs_one_first", "runs")
    _partial("uq_runs_one_first", "runs", ["code", "track_id"], "kind = 'first'", unique=True)
    queue = ["state", "track_id", "agent_id", "kind", "id"]
    _partial("ix_runs_queue", "runs", queue, "state = 'queued'")


def _results() -> None:
    with op.batch_alter_table("results") as batch:
        batch.alter_column("commit_seq", existing_type=sa.Integer(), nullable=True)
        batch.alter_column("verdict", existing_type=sa.String(16), new_column_name="status")
        batch.add_column(sa.Column("code", sa.String(64), nullable=False, server_default=""))
        batch.add_column(sa.Column("kind", sa.String(16), nullable=True))
        batch.add_column(sa.Column("seed", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("post_id", sa.Integer(), nullable=True))
        for name in ("record_gain", "record_z", "parent_gain", "parent_z"):
            batch.add_column(sa.Column(name, sa.Float(), nullable=True))
        batch.add_column(sa.Column("quarantine", sa.Text(), nullable=True))
        batch.add_column(sa.Column("released_at", _MOMENT, nullable=True))
        batch.create_foreign_key("fk_results_post_id", "posts", ["post_id"], ["id"])
    op.execute(
        "UPDATE results SET code = (SELECT code FROM commits WHERE seq = results.commit_seq),"
        " kind = (SELECT kind FROM runs WHERE id = results.run_id),"
        " seed = (SELECT seed FROM runs WHERE id = results.run_id)"
    )
    with op.batch_alter_table("results") as batch:
        batch.alter_column("code", existing_type=sa.String(64), server_default=None)
    op.create_index("ix_results_code_track_id", "results", ["code", "track_id"])
    op.create_index("ix_results_agent_id_digest", "results", ["agent_id", "digest"])
    waiting = "quarantine IS NOT NULL AND released_at IS NULL"
    _partial("ix_results_quarantined", "results", ["id"], waiting)


def _scores() -> None:
    op.create_table(
        "changes",
        sa.Column("commit_seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(200), nullable=False),
        sa.Column("before", sa.String(100), nullable=True),
        sa.Column("after", sa.String(100), nullable=True),
        sa.ForeignKeyConstraint(["commit_seq"], ["commits.seq"], name="fk_changes_commit_seq"),
        sa.PrimaryKeyConstraint("commit_seq", "kind", name="pk_changes"),
    )
    op.create_table(
        "records",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("commit_seq", sa.Integer(), nullable=False),
        sa.Column("val_bpb", sa.Float(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("standard_error", sa.Float(), nullable=False),
        sa.Column("z", sa.Float(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name="fk_records_track_id"),
        sa.ForeignKeyConstraint(["commit_seq"], ["commits.seq"], name="fk_records_commit_seq"),
        sa.PrimaryKeyConstraint("id", name="pk_records"),
    )
    op.create_index("ix_records_track_id_id", "records", ["track_id", "id"])
    op.create_table(
        "scores",
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("commit_seq", sa.Integer(), nullable=True),
        sa.Column("agent_id", sa.String(63), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("val_bpb", sa.Float(), nullable=True),
        sa.Column("first", sa.Float(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("mean", sa.Float(), nullable=True),
        sa.Column("m2", sa.Float(), nullable=False),
        sa.Column("is_fixed_seed", sa.Boolean(), nullable=False),
        sa.Column("record_id", sa.Integer(), nullable=True),
        sa.Column("challenger", sa.Integer(), nullable=True),
        sa.Column("since", sa.Integer(), nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name="fk_scores_track_id"),
        sa.ForeignKeyConstraint(["commit_seq"], ["commits.seq"], name="fk_scores_commit_seq"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_scores_agent_id"),
        sa.ForeignKeyConstraint(["record_id"], ["records.id"], name="fk_scores_record_id"),
        sa.PrimaryKeyConstraint("track_id", "code", name="pk_scores"),
    )
    op.create_index("ix_scores_track_id_val_bpb", "scores", ["track_id", "val_bpb"])
    op.create_index("ix_scores_code", "scores", ["code"])
    _partial("ix_scores_replicated", "scores", ["track_id", "is_fixed_seed", "n", "m2"], "n >= 2")
    _partial("ix_scores_challengers", "scores", ["track_id"], "state = 'challenger'")
    _partial("ix_scores_record_id", "scores", ["record_id"], "record_id IS NOT NULL")
    op.create_table(
        "shares",
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.String(63), nullable=False),
        sa.Column("served", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name="fk_shares_track_id"),
        sa.PrimaryKeyConstraint("track_id", "agent_id", name="pk_shares"),
    )


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition
    )
