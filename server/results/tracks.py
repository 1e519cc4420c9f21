"""Tracks: what makes scores comparable, and nothing else is compared.

A track is a platform, a time budget, a data fingerprint and a scoring level.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from server import errors, noise, tables, wire
from server.db import Connection
from server.prepared import Prepared
from server.results import tallies

#: Scoring level of what agents say themselves; never compared with what workers measured.
REPORTED = "reported"
#: Data of reports that do not name theirs.
UNKNOWN_DATA = "unknown"
#: The level a hub's workers should have: it needs no mention in a label.
TRUSTED = "isolated+audit"


def track_name(track: Row[Any]) -> str:
    """Exact, and good as an argument: `H100/300s/3f9a1c2e/inline`."""
    return name_track(track.platform, track.budget_seconds, track.data_fingerprint, track.scoring)


def name_track(platform: str, budget_seconds: int, data_fingerprint: str, scoring: str) -> str:
    return f"{platform}/{budget_seconds}s/{data_fingerprint[:8]}/{scoring}"


def track_label(track: Row[Any]) -> str:
    """To be read: `H100 · 300 s · climbmix`, and the scoring level where it is a lesser one."""
    data = "" if track.data_fingerprint == UNKNOWN_DATA else track.data_fingerprint[:8]
    level = "" if track.scoring == TRUSTED else track.scoring
    parts = (track.platform, f"{track.budget_seconds} s", track.data or data, level)
    return " · ".join(part for part in parts if part)


def find_track(conn: Connection, claim: wire.Claim) -> Row[Any] | None:
    return _find(conn, _key(claim))


def open_track(conn: Connection, claim: wire.Claim, now: datetime) -> Row[Any]:
    """The track of this claim, made if it is the first one; takes a better name for its data."""
    return _open(conn, _key(claim), claim.data or "", now)


def open_reported(
    conn: Connection, platform: str, budget_seconds: int, data: str | None, now: datetime
) -> Row[Any]:
    """The track of what agents report from such machines."""
    key = {
        "platform": platform,
        "budget_seconds": budget_seconds,
        "data_fingerprint": data or UNKNOWN_DATA,
        "scoring": REPORTED,
    }
    return _open(conn, key, data or "", now)


_T = tables.tracks.c
_TRACK = Prepared(select(tables.tracks).where(_T.id == bindparam("id")))
_TRACKS = Prepared(select(tables.tracks).order_by(_T.id))
_TRACK_LOCKED = Prepared(select(tables.tracks).where(_T.id == bindparam("id")).with_for_update())
_KEYS = ("platform", "budget_seconds", "data_fingerprint", "scoring")
_TRACK_OF = Prepared(select(tables.tracks).where(*(_T[key] == bindparam(key) for key in _KEYS)))


def lock_track(conn: Connection, track_id: int) -> Row[Any]:
    """Its row, which no other claim changes until the transaction ends."""
    track: Row[Any] = _TRACK_LOCKED.row(conn, id=track_id)
    return track


def get_row(conn: Connection, track_id: int) -> Row[Any]:
    track: Row[Any] = _TRACK.row(conn, id=track_id)
    return track


def list_tracks(conn: Connection) -> list[wire.Track]:
    """All tracks with their results, the busiest first."""
    counts = tallies.count_tracks(conn)
    rows = _TRACKS.rows(conn)
    return sorted(
        (_to_wire(conn, row, *counts.get(row.id, (0, 0))) for row in rows),
        key=lambda track: (-track.results, track.id),
    )


def get_track(conn: Connection, name: str) -> wire.Track:
    """By id, full name, or the start of the name; raise NotFound unless exactly one fits."""
    every = list_tracks(conn)
    exact = [track for track in every if name in (str(track.id), track.name)]
    found = exact or [track for track in every if track.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(track.name for track in every[:10]) or "there is none yet"
        problem = "no such track" if not found else "several tracks fit"
        raise errors.NotFound(f"{problem}: {name}", f"tracks: {known}")
    return found[0]


def find_busiest(conn: Connection) -> wire.Track | None:
    """The busiest track that workers measure in, or else of all."""
    every = list_tracks(conn)
    measured = [track for track in every if track.scoring != REPORTED]
    return next(iter([one for one in measured if one.results] or every), None)


def get_busiest(conn: Connection) -> wire.Track:
    """As `find_busiest`; raise NotFound when there is no track."""
    track = find_busiest(conn)
    if track is None:
        raise errors.NotFound("there is no track yet", "the first result or claim opens one")
    return track


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of one run in bpb, its degrees of freedom, the replicates behind it."""

    sigma: float
    degrees: float
    runs: int


def read_noise(track: Row[Any]) -> Noise:
    """What the replicates of a track tell, blended with what is known of such machines."""
    # All groups as one: pooling needs no more than their sums.
    degrees, squares = track.noise_degrees, track.noise_squares
    groups = [noise.Group(degrees + 1, 0.0, squares)] if degrees else []
    prior = noise.prior_sigma(track.platform, track.budget_seconds)
    sigma = noise.pooled_sigma(groups, prior)
    return Noise(sigma, noise.pooled_degrees(groups, prior), track.noise_runs)


_SUMS = ("scored", "noise_runs", "noise_squares", "noise_degrees")
_ADD_SUMS = Prepared(
    update(tables.tracks)
    .where(_T.id == bindparam("track"))
    .values({name: _T[name] + bindparam(f"add_{name}", type_=_T[name].type) for name in _SUMS})
)


def add_sums(conn: Connection, track_id: int, old: Row[Any] | None, new: Row[Any] | None) -> None:
    """Keep the sums of a track as a score of it changes."""
    before, after = _weigh(old), _weigh(new)
    if before != after:
        added = zip(_SUMS, before, after, strict=True)
        _ADD_SUMS.run(conn, track=track_id, **{f"add_{n}": now - then for n, then, now in added})


def _weigh(score: Row[Any] | None) -> tuple[int, int, float, int]:
    """One score, and its runs, squares, degrees of freedom; one without spread tells no noise."""
    if score is None:
        return 0, 0, 0.0, 0
    if score.n < 2 or score.m2 <= 0 or score.is_fixed_seed:
        return 1, 0, 0.0, 0
    return 1, score.n, score.m2, score.n - 1


def _key(claim: wire.Claim) -> dict[str, Any]:
    return claim.model_dump(include={"platform", "budget_seconds", "data_fingerprint", "scoring"})


def _find(conn: Connection, key: dict[str, Any]) -> Row[Any] | None:
    track: Row[Any] | None = _TRACK_OF.row(conn, **key)
    return track


def _open(conn: Connection, key: dict[str, Any], data: str, now: datetime) -> Row[Any]:
    t = tables.tracks
    track = _find(conn, key)
    if track is None:
        return conn.execute(insert(t).returning(t), key | {"data": data, "created_at": now}).one()
    if data and not track.data:
        conn.execute(update(t).where(t.c.id == track.id).values(data=data))
        return get_row(conn, track.id)
    return track


def _to_wire(conn: Connection, row: Row[Any], count: int, quarantined: int) -> wire.Track:
    known = read_noise(row) if row.scoring != REPORTED else None
    return wire.Track(
        id=row.id,
        name=track_name(row),
        platform=row.platform,
        budget_seconds=row.budget_seconds,
        data_fingerprint=row.data_fingerprint,
        scoring=row.scoring,
        results=count,
        label=track_label(row),
        data=row.data or None,
        noise=known.sigma if known else None,
        noise_runs=known.runs if known else 0,
        quarantined=quarantined,
    )
