"""Topics: a version for each part of what the hub holds, kept by triggers.

A later migration that makes one of these tables anew (`batch_alter_table`) has to make its
triggers anew too.

Revision ID: 20261129_topics
Revises: 20261124_beats
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_topics"
down_revision = "20261124_beats"
branch_labels = None
depends_on = None

_CHANGES = ("insert", "update", "delete")
#: Topic, table, and the columns whose updates count; all of them where none is named.
_WATCHED = (
    ("agents", "agents", ("id", "role", "key_hash", "created_at", "disabled_at")),
    ("commits", "commits", ()),
    ("commits", "commit_parents", ()),
    ("scores", "scores", ()),
    ("scores", "tracks", ("platform", "budget_seconds", "data_fingerprint", "scoring")),
    ("channels", "channels", ()),
    ("posts", "posts", ()),
)


def upgrade() -> None:
    op.create_table(
        "topics",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_topics")),
    )
    if op.get_bind().dialect.name != "sqlite":
        return
    for topic in dict.fromkeys(topic for topic, _, _ in _WATCHED):
        op.execute(f"INSERT INTO topics (name, version) VALUES ('{topic}', random())")
    for topic, table, columns in _WATCHED:
        for change in _CHANGES:
            of = f" OF {', '.join(columns)}" if change == "update" and columns else ""
            op.execute(
                f"CREATE TRIGGER {table}_topic_{change} AFTER {change.upper()}{of} ON {table} "
                f"BEGIN UPDATE topics SET version = random() WHERE name = '{topic}'; END"
            )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for _, table, _ in _WATCHED:
            for change in _CHANGES:
                op.execute(f"DROP TRIGGER {table}_topic_{change}")
    op.drop_table("topics")
