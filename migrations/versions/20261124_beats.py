"""What heartbeats told of a run on its way, for its curve.

Revision ID: 20261124_beats
Revises: 20261124_search
"""

import sqlalchemy as sa
from alembic import op

revision = "20261124_beats"
down_revision = "20261124_search"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "beats",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_beats_run_id"),
        sa.PrimaryKeyConstraint("run_id", "fence", "slot", name="pk_beats"),
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup from before the upgrade instead")
