"""The DAG.

`commits.seq` is the hub's own order: it rises with every indexed commit, parents before children.
Other tables refer to commits by `seq`."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, text

from server.schema import UtcDateTime, metadata

commits = Table(
    "commits",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("hash", String(40), nullable=False, unique=True),
    Column("tree", String(40), nullable=False),
    # Equal for commits that train alike; the hash itself where it was not known yet.
    Column("code", String(40), nullable=False, server_default=""),
    Column("agent_id", String(63), ForeignKey("agents.id")),
    Column("message", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("authored_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("child_count", Integer, nullable=False, server_default="0"),
    Index("ix_commits_agent_id_seq", "agent_id", "seq"),
    Index("ix_commits_code_seq", "code", "seq"),
    Index("ix_commits_tree_seq", "tree", "seq"),
    Index(
        "ix_commits_leaves",
        "seq",
        sqlite_where=text("child_count = 0"),
        postgresql_where=text("child_count = 0"),
    ),
)

commit_parents = Table(
    "commit_parents",
    metadata,
    Column("child", Integer, ForeignKey("commits.seq"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent", Integer, ForeignKey("commits.seq"), nullable=False),
    Index("ix_commit_parents_parent_child", "parent", "child"),
)

# What a commit's diff to its first parent touches: settings and parts of train.py, other files.
changes = Table(
    "changes",
    metadata,
    Column("commit_seq", Integer, ForeignKey("commits.seq"), primary_key=True),
    Column("kind", String(200), primary_key=True),
    Column("before", String(100)),
    Column("after", String(100)),
)
