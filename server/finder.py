"""Finding things by what is in them: commits, posts, agents, channels.

Posts and commits have full-text indexes, kept by triggers in the transaction of each change, so
what is acknowledged is found. All words must be there, by their beginnings; "some words" in quotes
must stand together. The newest come first.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Row, bindparam, func, literal_column, select, table, text

from server import errors, tables, wire
from server.board import get_channel_names
from server.commits import list_numbered
from server.db import Connection
from server.prepared import Prepared
from server.shown import END

QUERY_CHARS_MAX = 200
_WORDS_MAX = 16
_WORD = re.compile(r'"([^"]*)"?|([^\s"]+)')
#: Shorter starts of hashes are not looked for in posts.
_HASH_CHARS_MIN = 7


def check_query(query: str) -> str:
    """The query without blanks around it; raise InvalidRequest for what cannot be one."""
    query = query.strip()
    if not query:
        raise errors.InvalidRequest("q is empty", "say what to look for: ?q=learning+rate")
    if len(query) > QUERY_CHARS_MAX or "\0" in query:
        raise errors.InvalidRequest(f"q is text of at most {QUERY_CHARS_MAX} characters")
    return query


def find(conn: Connection, query: str, kinds: Sequence[wire.Kind], limit: int) -> wire.Found:
    """Up to `limit` of each kind."""
    found: dict[str, Any] = {}
    if wire.Kind.COMMITS in kinds:
        found["commits"] = list_numbered(conn, find_commits(conn, query, limit))
    if wire.Kind.POSTS in kinds:
        found["posts"] = _list_posts(conn, find_posts(conn, query, limit))
    if wire.Kind.AGENTS in kinds:
        found["agents"] = [
            wire.Agent(**row._mapping) for row in _named(conn, tables.agents, "id", query, limit)
        ]
    if wire.Kind.CHANNELS in kinds:
        rows = _named(conn, tables.channels, "name", query, limit)
        found["channels"] = [wire.Channel(**row._mapping) for row in rows]
    return wire.Found(**found)


def find_commits(conn: Connection, query: str, limit: int, before: int | None = None) -> list[int]:
    """Numbers (`seq`) of commits: by the start of the hash, then by their messages."""
    hash, seq = tables.commits.c.hash, tables.commits.c.seq
    by_hash: list[int] = []
    prefix = query.lower()
    if wire.HASH_PREFIX.fullmatch(prefix) and before is None:
        starting = select(seq).where(hash >= prefix, hash < prefix + "g").order_by(hash)
        by_hash = list(conn.scalars(starting.limit(limit)))
    by_text = _match(conn, "commits_fts", _expression(query), limit, before)
    return list(dict.fromkeys([*by_hash, *by_text]))[:limit]


def find_posts(conn: Connection, query: str, limit: int, before: int | None = None) -> list[int]:
    """Numbers of posts: `#12` itself, or those whose text matches."""
    number = query.removeprefix("#")
    if query.startswith("#") and number.isascii() and number.isdigit() and len(number) < 19:
        t = tables.posts.c
        return list(conn.scalars(select(t.id).where(t.id == int(number))))
    return _match(conn, "posts_fts", _expression(query), limit, before)


def list_mentions(conn: Connection, hash: str, limit: int) -> list[int]:
    """Numbers of the posts that name a commit by its hash or the start of it, newest first."""
    lengths = range(_HASH_CHARS_MIN, len(hash) + 1)
    return _match(conn, "posts_fts", " OR ".join(f'"{hash[:n]}"' for n in lengths), limit, None)


def find_any(conn: Connection, words: Sequence[str], limit: int) -> list[int]:
    """Numbers of the posts that have one of these words, newest first."""
    return _match(conn, "posts_fts", " OR ".join(f'"{word}"' for word in words), limit, None)


def _match(
    conn: Connection, index: str, expression: str, limit: int, before: int | None
) -> list[int]:
    if not expression:
        return []
    matched = _MATCHED[index].all(
        conn, expression=expression, before=END if before is None else before, limit=limit
    )
    return [row[0] for row in matched]


def _matching(index: str) -> Prepared:
    rowid: Any = literal_column("rowid")
    return Prepared(
        select(rowid)
        .select_from(table(index))
        .where(text(f"{index} MATCH :expression"), rowid < bindparam("before"))
        .order_by(rowid.desc())
        .limit(bindparam("limit", type_=Integer))
    )


_MATCHED = {index: _matching(index) for index in ("commits_fts", "posts_fts")}


def _expression(query: str) -> str:
    """FTS5's own language, in which everything quoted is a word and nothing else."""
    words = []
    for found in list(_WORD.finditer(query))[:_WORDS_MAX]:
        phrase, word = found.groups()
        if any(char.isalnum() for char in phrase or word or ""):
            words.append(f'"{word}" *' if word else f'"{phrase}"')
    return " AND ".join(words)


def _named(conn: Connection, of: Any, column: str, query: str, limit: int) -> Sequence[Row[Any]]:
    """Rows whose name has the query in it, those that begin with it first."""
    name, wanted = func.lower(of.c[column]), query.lower().lstrip("@#")
    at = func.instr(name, wanted)
    return conn.execute(select(of).where(at > 0).order_by(at, name).limit(limit)).all()


def _list_posts(conn: Connection, ids: Sequence[int]) -> list[wire.FoundPost]:
    t = tables.posts
    names = get_channel_names(conn)
    rows = conn.execute(select(t).where(t.c.id.in_(ids)).order_by(t.c.id.desc()))
    return [wire.FoundPost(**row._mapping, channel=names[row.channel_id]) for row in rows]
