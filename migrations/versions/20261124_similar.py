"""Similar experiments: a full-text index of commits, and how far it has come.

Revision ID: 20261124_similar
Revises: 20261124_results
"""

import sqlalchemy as sa
from alembic import op

revision = "20261124_similar"
down_revision = "20261124_results"
branch_labels = None
depends_on = None


def upgrade() -> None:
    watermarks = op.create_table(
        "watermarks",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("upto", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_watermarks")),
    )
    names = ("similar.commits", "similar.results")
    op.bulk_insert(watermarks, [{"name": name, "upto": 0} for name in names])
    op.create_index("ix_commits_tree_seq", "commits", ["tree", "seq"])
    if op.get_bind().dialect.name == "sqlite":
        # The hub makes the terms; this splits them at blanks and nowhere else.
        op.execute(
            "CREATE VIRTUAL TABLE experiments_fts USING fts5("
            "message, diff, results, tokenize = \"ascii tokenchars '_.-'\")"
        )
        op.execute(
            "CREATE VIRTUAL TABLE experiments_fts_vocabulary USING fts5vocab(experiments_fts, row)"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE experiments_fts_vocabulary")
        op.execute("DROP TABLE experiments_fts")
    op.drop_index("ix_commits_tree_seq", "commits")
    op.drop_table("watermarks")
