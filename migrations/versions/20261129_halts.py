"""Worker processes that stopped themselves.

Revision ID: 20261129_halts
Revises: 20261129_throttled
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_halts"
down_revision = "20261129_throttled"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "halts",
        sa.Column("worker_id", sa.String(63), nullable=False),
        sa.Column("place", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["worker_id"], ["agents.id"], name="fk_halts_worker_id"),
        sa.PrimaryKeyConstraint("worker_id", "place", name="pk_halts"),
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup from before the upgrade instead")
