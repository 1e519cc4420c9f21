"""Tallies: how many results of each status every author has in a track, kept as they come.

Only what counts is in them: no late results, and none that wait in quarantine.
"""

from collections import Counter
from functools import cache
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, select, text

from server import tables, wire
from server.db import Connection, insert_into
from server.prepared import Prepared
from server.results import visits

_REPEATS = (wire.RunKind.REPLICATE, wire.RunKind.AUDIT)
R, T = tables.results, tables.tallies
#: No result that came late does.
_WAITING = and_(R.c.quarantine.is_not(None), R.c.released_at.is_(None))
_LAST_NUMBER = Prepared(select(func.max(R.c.number)).where(R.c.track_id == bindparam("track")))


def is_experiment(kind: str | None) -> bool:
    """Replicates and audits repeat, they do not try."""
    return kind not in _REPEATS


def add(
    conn: Connection, track_id: int, author: str, status: str, kind: str | None, by: int = 1
) -> None:
    """Count a result that counts from now on; with `by` -1 one that no longer does."""
    counts = {"experiments": 0, "repeats": 0}
    counts["experiments" if is_experiment(kind) else "repeats"] = by
    key = {"track_id": track_id, "author": author, "status": status}
    _adding(conn.dialect.name).run(conn, **key, **counts)


@cache
def _adding(dialect: str) -> Prepared:
    adding = insert_into(dialect, T)
    added = {name: T.c[name] + adding.excluded[name] for name in ("experiments", "repeats")}
    key = ("track_id", "author", "status")
    return Prepared(adding.on_conflict_do_update(index_elements=key, set_=added), *key, *added)


def next_number(conn: Connection, track_id: int) -> int:
    """Of the next experiment in a track."""
    return (_LAST_NUMBER.scalar(conn, track=track_id) or 0) + 1


def count_statuses(conn: Connection, track_id: int) -> Counter[str]:
    """Experiments by status, those in quarantine included."""
    counts: Counter[str] = Counter()
    for status, number in [
        *_STATUSES.all(conn, track=track_id),
        *_DOUBTED.all(conn, track=track_id),
    ]:
        counts[status] += number
    return counts


def count_tracks(conn: Connection) -> dict[int, tuple[int, int]]:
    """Of each track with any: all its results, and how many of them wait in quarantine."""
    known: dict[int, int] = dict(_OF_TRACKS.all(conn))
    doubted: dict[int, int] = dict(_DOUBTED_OF_TRACKS.all(conn))
    return {
        track: (known.get(track, 0) + doubted.get(track, 0), doubted.get(track, 0))
        for track in known.keys() | doubted.keys()
    }


_STATUSES = Prepared(
    select(T.c.status, func.sum(T.c.experiments))
    .where(T.c.track_id == bindparam("track"))
    .group_by(T.c.status)
)
_DOUBTED = Prepared(
    select(R.c.status, func.count())
    .where(_WAITING, R.c.track_id == bindparam("track"), R.c.number.is_not(None))
    .group_by(R.c.status)
)
_OF_TRACKS = Prepared(
    select(T.c.track_id, func.sum(T.c.experiments + T.c.repeats)).group_by(T.c.track_id)
)
_DOUBTED_OF_TRACKS = Prepared(
    select(R.c.track_id, func.count()).where(_WAITING).group_by(R.c.track_id)
)


def list_authors(conn: Connection, track_id: int) -> list[Row[Any]]:
    """Each author's experiments, by status and in all."""
    counts = [
        func.coalesce(func.sum(T.c.experiments).filter(T.c.status == status), 0).label(status.value)
        for status in wire.Status
    ]
    query = select(T.c.author, func.sum(T.c.experiments).label("experiments"), *counts)
    query = query.where(T.c.track_id == track_id).group_by(T.c.author)
    return list(conn.execute(query.having(func.sum(T.c.experiments) > 0)))


# What a result has of its own ---------------------------------------------------------------------

_AUTHOR = (
    "CASE WHEN commit_seq IS NULL THEN agent_id ELSE "
    "coalesce((SELECT agent_id FROM commits WHERE seq = {table}.commit_seq), '') END"
)
_IS_EXPERIMENT = "(kind IS NULL OR kind NOT IN ('replicate', 'audit'))"
# The same as `tracks.add_sums`; noise is of scores that tell it.
_SUMS = """
UPDATE tracks SET noise_runs = coalesce(s.runs, 0), noise_squares = coalesce(s.squares, 0.0),
  noise_degrees = coalesce(s.degrees, 0),
  scored = (SELECT count(*) FROM scores WHERE track_id = tracks.id)
FROM tracks AS t LEFT JOIN (
  SELECT track_id, sum(n) AS runs, sum(m2) AS squares, sum(n - 1) AS degrees FROM scores
  WHERE n >= 2 AND m2 > 0 AND NOT is_fixed_seed GROUP BY track_id
) AS s ON s.track_id = t.id WHERE t.id = tracks.id
"""


def recount(conn: Connection) -> None:
    """Make all that is kept anew from results and scores, as for rows written by hand."""
    for table in ("results", "scores"):
        conn.execute(text(f"UPDATE {table} SET author = {_AUTHOR.format(table=table)}"))  # noqa: S608
    conn.execute(
        text(
            "UPDATE results SET number = n.number FROM (SELECT id, row_number() OVER "  # noqa: S608
            "(PARTITION BY track_id ORDER BY id) AS number FROM results "
            f"WHERE late = 0 AND {_IS_EXPERIMENT}) AS n WHERE n.id = results.id"
        )
    )
    conn.execute(text(_SUMS))
    visits.recount(conn)
    conn.execute(T.delete())
    conn.execute(
        text(
            "INSERT INTO tallies (track_id, author, status, experiments, repeats) "  # noqa: S608
            f"SELECT track_id, author, status, count(CASE WHEN {_IS_EXPERIMENT} THEN 1 END), "
            f"count(CASE WHEN NOT {_IS_EXPERIMENT} THEN 1 END) FROM results WHERE late = 0 "
            "AND (quarantine IS NULL OR released_at IS NOT NULL) GROUP BY track_id, author, status"
        )
    )
