"""Threads of posts, and full-text indexes of posts and commits.

The indexes are SQLite's FTS5 over the tables' own rows, kept by triggers. A later migration that
makes one of these tables anew (`batch_alter_table`) has to make its triggers anew too.

Revision ID: 20261124_search
Revises: 20261124_similar
"""

import sqlalchemy as sa
from alembic import op

revision = "20261124_search"
down_revision = "20261124_similar"
branch_labels = None
depends_on = None

_THREADS = """
WITH RECURSIVE below (id, thread_id) AS (
  SELECT p.id, p.parent_id FROM posts p JOIN posts root ON root.id = p.parent_id
    WHERE root.parent_id IS NULL
  UNION ALL
  SELECT p.id, below.thread_id FROM posts p JOIN below ON p.parent_id = below.id
)
UPDATE posts SET thread_id = below.thread_id FROM below WHERE below.id = posts.id
"""
_INDEXED = {"posts": ("id", ("content",)), "commits": ("seq", ("message", "body"))}


def upgrade() -> None:
    op.add_column("posts", sa.Column("thread_id", sa.Integer(), nullable=True))
    op.create_index("ix_posts_channel_id_thread_id_id", "posts", ["channel_id", "thread_id", "id"])
    op.create_index("ix_posts_thread_id_id", "posts", ["thread_id", "id"])
    op.execute(_THREADS)
    for table, (key, columns) in _INDEXED.items():
        for statement in _index(table, key, columns):
            op.execute(statement)


def downgrade() -> None:
    for table in _INDEXED:
        for when in ("insert", "delete", "update"):
            op.execute(f"DROP TRIGGER {table}_fts_{when}")
        op.execute(f"DROP TABLE {table}_fts")
    op.drop_index("ix_posts_thread_id_id", "posts")
    op.drop_index("ix_posts_channel_id_thread_id_id", "posts")
    op.drop_column("posts", "thread_id")


def _index(table: str, key: str, columns: tuple[str, ...]) -> list[str]:
    fts, names = f"{table}_fts", ", ".join(columns)
    new = ", ".join(f"new.{column}" for column in columns)
    old = ", ".join(f"old.{column}" for column in columns)
    add = f"INSERT INTO {fts} (rowid, {names}) VALUES (new.{key}, {new});"
    drop = f"INSERT INTO {fts} ({fts}, rowid, {names}) VALUES ('delete', old.{key}, {old});"
    return [
        f"CREATE VIRTUAL TABLE {fts} USING fts5 ({names}, content='{table}', "
        f"content_rowid='{key}', tokenize='unicode61 remove_diacritics 2')",
        f"CREATE TRIGGER {fts}_insert AFTER INSERT ON {table} BEGIN {add} END",
        f"CREATE TRIGGER {fts}_delete AFTER DELETE ON {table} BEGIN {drop} END",
        f"CREATE TRIGGER {fts}_update AFTER UPDATE OF {names} ON {table} BEGIN {drop} {add} END",
        f"INSERT INTO {fts} ({fts}) VALUES ('rebuild')",
    ]
