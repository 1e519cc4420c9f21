"""Sanity: which scores are not believed at once, and why.

Nothing is refused or dropped for it: the result is kept in quarantine with the reason, does not
count, and an admin can release it.
"""

import math
from typing import Any

from sqlalchemy import Row, select

from server import noise, tables, wire
from server.db import Connection
from server.results.rows import RANKED
from server.results.scores import find_best_single, sigma_of
from server.results.tracks import REPORTED

#: bpb that no training of minutes reaches on text; what leaks future tokens does.
TOO_LOW = 0.5
#: Guessing each byte blindly costs 8; from here on differences and squares mean nothing.
TOO_HIGH = 100.0
#: A jump is a gain over the best of the track beyond all of these: a part of the best score,
#: multiples of the noise, and of the largest gain the track has seen.
JUMP_PART = 0.1
JUMP_SIGMAS = 10.0
JUMP_GAINS = 2.0
#: A report may differ from a measurement of the same code by the larger of these.
FAR_PART = 0.02
FAR_SIGMAS = 5.0


def find_problem(
    conn: Connection, track: Row[Any], code: str, source: wire.Source, val_bpb: float
) -> str | None:
    """Why this score must wait for a human, or None."""
    if not math.isfinite(val_bpb):
        return f"val_bpb is {val_bpb}"
    if val_bpb <= 0:
        return f"val_bpb of {val_bpb:g} is not possible"
    if val_bpb < TOO_LOW:
        return f"val_bpb of {val_bpb:g} is lower than any training of minutes reaches ({TOO_LOW})"
    if val_bpb >= TOO_HIGH:
        return f"val_bpb of {val_bpb:g} is higher than blind guessing makes it ({TOO_HIGH:g})"
    if source is wire.Source.REPORTED and (far := _find_contradiction(conn, track, code, val_bpb)):
        return far
    return _find_jump(conn, track, val_bpb)


def _find_jump(conn: Connection, track: Row[Any], val_bpb: float) -> str | None:
    best = find_best_single(conn, track.id)
    if best is None or val_bpb >= best * (1 - JUMP_PART):
        return None
    largest = _largest_gain(conn, track.id)
    if best - val_bpb <= max(JUMP_SIGMAS * sigma_of(conn, track.id), JUMP_GAINS * largest):
        return None
    return (
        f"better than the best so far ({best:.6f}) by {best - val_bpb:.6f}; "
        f"the largest gain before was {largest:.6f}"
    )


def _largest_gain(conn: Connection, track_id: int) -> float:
    """The largest step of the running best of a track, bpb."""
    r = tables.results
    kept = conn.scalars(
        select(r.c.val_bpb)
        .where(r.c.track_id == track_id, r.c.status == wire.Status.KEEP, RANKED)
        .order_by(r.c.id)
    )
    largest, best = 0.0, math.inf
    for score in kept:
        if math.isfinite(best):
            largest = max(largest, best - score)
        best = min(best, score)
    return largest


def _find_contradiction(conn: Connection, track: Row[Any], code: str, val_bpb: float) -> str | None:
    """A measurement of the same code, on such a machine and budget, that says otherwise."""
    s, t = tables.scores, tables.tracks
    measured = conn.execute(
        select(s.c.val_bpb, t)
        .join(t, t.c.id == s.c.track_id)
        .where(
            s.c.code == code,
            s.c.val_bpb.is_not(None),
            t.c.platform == track.platform,
            t.c.budget_seconds == track.budget_seconds,
            t.c.scoring != REPORTED,
        )
        .order_by(s.c.result_id.desc())
    ).all()
    if not measured or any(is_near(row.val_bpb, val_bpb, row) for row in measured):
        return None
    return f"reported as {val_bpb:.6f}, but workers measured {measured[0].val_bpb:.6f}"


def is_near(measured: float, reported: float, track: Row[Any]) -> bool:
    sigma = noise.prior_sigma(track.platform, track.budget_seconds)
    return abs(measured - reported) <= max(FAR_PART * measured, FAR_SIGMAS * sigma)
