"""Runs that their machine slowed down, and their repetitions.

Revision ID: 20261129_throttled
Revises: 20261129_topics
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_throttled"
down_revision = "20261129_topics"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("results", sa.Column("throttled", sa.Float(), nullable=True))
    op.add_column("runs", sa.Column("rerun_of", sa.Integer(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup from before the upgrade instead")
