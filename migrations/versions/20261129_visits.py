"""Visits, and how many scores a track has: kept as they come, so that no claim counts them.

Revision ID: 20261129_visits
Revises: 20261129_tallies
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_visits"
down_revision = "20261129_tallies"
branch_labels = None
depends_on = None


def upgrade() -> None:
    scored = sa.Column("scored", sa.Integer(), nullable=False, server_default="0")
    op.add_column("tracks", scored)
    op.execute(
        "UPDATE tracks SET scored = (SELECT count(*) FROM scores WHERE track_id = tracks.id)"
    )
    op.create_table(
        "visits",
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["commits.seq"], name=op.f("fk_visits_parent")),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_visits_track_id")),
        sa.PrimaryKeyConstraint("track_id", "parent", name=op.f("pk_visits")),
    )
    op.execute(
        "INSERT INTO visits (track_id, parent, n) SELECT s.track_id, p.parent, count(*) "
        "FROM scores AS s JOIN commits AS c ON c.code = s.code JOIN commit_parents AS p "
        "ON p.child = c.seq AND p.position = 0 GROUP BY s.track_id, p.parent"
    )


def downgrade() -> None:
    op.drop_table("visits")
    op.drop_column("tracks", "scored")
