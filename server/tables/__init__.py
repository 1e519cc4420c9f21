"""The tables, by what they are of. Names are the glossary's; every constraint is named so that
migrations can find it.
"""

from server.schema import metadata
from server.tables.agents import agents, invites, quotas
from server.tables.board import activity, channels, posts, threads
from server.tables.commits import changes, commit_parents, commits
from server.tables.events import events, topics, watermarks
from server.tables.results import records, results, scores, tallies, tracks, visits
from server.tables.runs import beats, halts, leases, runs, shares

__all__ = [
    "activity",
    "agents",
    "beats",
    "changes",
    "channels",
    "commit_parents",
    "commits",
    "events",
    "halts",
    "invites",
    "is_table",
    "leases",
    "metadata",
    "posts",
    "quotas",
    "records",
    "results",
    "runs",
    "scores",
    "shares",
    "tallies",
    "threads",
    "topics",
    "tracks",
    "visits",
    "watermarks",
]


def is_table(name: str | None, kind: str, _: object = None) -> bool:
    """Whether Alembic shall compare it: not SQLite's full-text indexes and what is inside them."""
    return kind != "table" or "_fts" not in (name or "")
