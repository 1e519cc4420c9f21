"""Counts and orders that are kept as results come, so that no page reads a whole history.

Revision ID: 20261129_tallies
Revises: 20261129_halts
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_tallies"
down_revision = "20261129_halts"
branch_labels = None
depends_on = None

_AUTHOR = (
    "CASE WHEN commit_seq IS NULL THEN agent_id ELSE "
    "coalesce((SELECT agent_id FROM commits WHERE seq = {table}.commit_seq), '') END"
)
_IS_EXPERIMENT = "(kind IS NULL OR kind NOT IN ('replicate', 'audit'))"
_IS_COUNTED = "late = 0 AND (quarantine IS NULL OR released_at IS NOT NULL)"
_NUMBERS = f"""
UPDATE results SET number = n.number FROM (
  SELECT id, row_number() OVER (PARTITION BY track_id ORDER BY id) AS number
  FROM results WHERE late = 0 AND {_IS_EXPERIMENT}
) AS n WHERE n.id = results.id
"""
_TALLIES = f"""
INSERT INTO tallies (track_id, author, status, experiments, repeats)
SELECT track_id, author, status, count(CASE WHEN {_IS_EXPERIMENT} THEN 1 END),
  count(CASE WHEN NOT {_IS_EXPERIMENT} THEN 1 END)
FROM results WHERE {_IS_COUNTED} GROUP BY track_id, author, status
"""
_INDEXES = (
    ("results", ("author", "id")),
    ("results", ("status", "id")),
    ("results", ("track_id", "number")),
    ("scores", ("track_id", "author", "val_bpb")),
    ("runs", ("worker_id", "started_at")),
    ("runs", ("finished_at", "worker_id")),
)
_WAITS = "quarantine IS NOT NULL AND released_at IS NULL"
_PARTIAL = (
    ("ix_results_kept", ("track_id", "id"), "status = 'keep'"),
    ("ix_results_throttled", ("agent_id",), "throttled IS NOT NULL"),
    ("ix_results_waiting", ("track_id", "status", "number"), _WAITS),
)


def upgrade() -> None:
    for table in ("results", "scores"):
        column = sa.Column("author", sa.String(length=63), nullable=False, server_default="")
        op.add_column(table, column)
        op.execute(f"UPDATE {table} SET author = {_AUTHOR.format(table=table)}")
    op.add_column("results", sa.Column("number", sa.Integer(), nullable=True))
    op.execute(_NUMBERS)
    op.create_table(
        "tallies",
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=63), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("experiments", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_tallies_track_id")),
        sa.PrimaryKeyConstraint("track_id", "author", "status", name=op.f("pk_tallies")),
    )
    op.execute(_TALLIES)
    _threads()
    _noise()
    for table, columns in _INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
    for name, columns, where in _PARTIAL:
        op.create_index(
            name,
            "results",
            list(columns),
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )


def _threads() -> None:
    numbers = ("posts", "last_id")
    op.create_table(
        "threads",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channel_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in numbers),
        sa.ForeignKeyConstraint(["id"], ["posts.id"], name=op.f("fk_threads_id")),
        _of_channel("threads"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threads")),
    )
    op.create_table(
        "activity",
        sa.Column("channel_id", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("threads", *numbers)),
        _of_channel("activity"),
        sa.PrimaryKeyConstraint("channel_id", name=op.f("pk_activity")),
    )
    op.execute(
        "INSERT INTO threads (id, channel_id, posts, last_id) SELECT coalesce(thread_id, id), "
        "channel_id, count(*), max(id) FROM posts GROUP BY coalesce(thread_id, id), channel_id"
    )
    op.execute(
        "INSERT INTO activity (channel_id, threads, posts, last_id) SELECT channel_id, "
        "count(CASE WHEN thread_id IS NULL THEN 1 END), count(*), max(id) FROM posts "
        "GROUP BY channel_id"
    )
    op.create_index("ix_threads_channel_id_last_id", "threads", ["channel_id", "last_id"])


def _noise() -> None:
    kinds = {"runs": sa.Integer(), "squares": sa.Float(), "degrees": sa.Integer()}
    for name, kind in kinds.items():
        column = sa.Column(f"noise_{name}", kind, nullable=False, server_default="0")
        op.add_column("tracks", column)
    op.execute(
        "UPDATE tracks SET noise_runs = s.runs, noise_squares = s.squares, "
        "noise_degrees = s.degrees FROM (SELECT track_id, sum(n) AS runs, sum(m2) AS squares, "
        "sum(n - 1) AS degrees FROM scores WHERE n >= 2 AND m2 > 0 AND NOT is_fixed_seed "
        "GROUP BY track_id) AS s WHERE s.track_id = tracks.id"
    )
    op.drop_index("ix_scores_replicated", "scores")


def _of_channel(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_channel_id")
    return sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=name)


def downgrade() -> None:
    is_some = sa.text("n >= 2")
    op.create_index(
        "ix_scores_replicated",
        "scores",
        ["track_id", "is_fixed_seed", "n", "m2"],
        sqlite_where=is_some,
        postgresql_where=is_some,
    )
    for name, _, _ in _PARTIAL:
        op.drop_index(name, "results")
    for table, columns in _INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
    for table in ("tallies", "activity", "threads"):
        op.drop_table(table)
    op.drop_column("results", "number")
    for name in ("noise_runs", "noise_squares", "noise_degrees"):
        op.drop_column("tracks", name)
    for table in ("results", "scores"):
        op.drop_column(table, "author")
