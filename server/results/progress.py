"""Progress of a track: its experiments in order, the best so far, and the records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, literal_column, select

from server import tables, wire
from server.db import Connection
from server.results import tallies
from server.results.leaderboard import list_records
from server.results.rows import COUNTED, EXPERIMENT, RANKED, is_quarantined

#: Experiments one answer holds at most, the newest.
POINTS_MAX = 10_000

R = tables.results
# Not all: what a run measured besides is text to be parsed.
_SHOWN = [R.c[name] for name in (
    "id", "run_id", "commit_seq", "code", "author", "source", "status", "val_bpb", "description",
    "quarantine", "released_at", "created_at",
)]  # fmt: skip
# Spelled out, so that the partial index of what was kept serves it.
_KEPT = (R.c.status == literal_column("'keep'"), RANKED, EXPERIMENT)


def read_progress(conn: Connection, track: wire.Track, limit: int) -> wire.Progress:
    """The newest experiments of a track, the oldest of them first, numbered from its start.

    Replicates are not experiments. The best so far is that of the ones that were kept and are
    not in quarantine.
    """
    of_track = (R.c.track_id == track.id, R.c.late == 0, EXPERIMENT)
    counts = tallies.count_statuses(conn, track.id)
    total = counts.total()
    rows = _list_newest(conn, of_track, limit)
    records = list_records(conn, track.id)
    earlier = _best_before(conn, track.id, rows[0].id) if rows else None
    points = _make_points(rows, total - len(rows) + 1, earlier, records)
    return wire.Progress(
        track=track,
        experiments=total,
        keeps=counts[wire.Status.KEEP],
        discards=counts[wire.Status.DISCARD],
        crashes=counts[wire.Status.CRASH],
        keep_rate=_keep_rate(counts),
        baseline=_first_score(conn, track.id),
        best=points[-1].best if points else None,
        earlier_best=earlier,
        records=records,
        points=points,
    )


def read_points(
    conn: Connection, track_id: int, numbers: dict[int, int]
) -> list[wire.ProgressPoint]:
    """Some experiments of a track, by the ids of their results and with these numbers."""
    rows = _list_newest(conn, (R.c.track_id == track_id, R.c.id.in_(numbers)), len(numbers))
    records = list_records(conn, track_id)
    return [_make_points([row], numbers[row.id], None, records)[0] for row in rows]


def _keep_rate(counts: Counter[str]) -> float:
    """Keeps of the experiments that did not crash."""
    worked = counts[wire.Status.KEEP] + counts[wire.Status.DISCARD]
    return counts[wire.Status.KEEP] / worked if worked else 0.0


def _list_newest(conn: Connection, of_track: Sequence[Any], limit: int) -> Sequence[Any]:
    c = tables.commits
    query = (
        select(*_SHOWN, c.c.hash, c.c.message)
        .outerjoin(c, c.c.seq == R.c.commit_seq)
        .where(*of_track)
        .order_by(R.c.id.desc())
        .limit(limit)
    )
    return conn.execute(query).all()[::-1]


def _best_before(conn: Connection, track_id: int, id: int) -> float | None:
    query = select(func.min(R.c.val_bpb)).where(R.c.track_id == track_id, R.c.id < id, *_KEPT)
    best: float | None = conn.execute(query).scalar_one()
    return best


@dataclass(frozen=True, slots=True)
class Fall:
    """An experiment that lowered the best score, or was the first."""

    result_id: int
    number: int
    val_bpb: float
    #: None for the first score.
    gain: float | None


def list_falls(conn: Connection, track_id: int) -> list[Fall]:
    """Of all experiments of a track, however many there are: few of them were kept."""
    query = select(R.c.id, R.c.number, R.c.val_bpb).where(R.c.track_id == track_id, *_KEPT)
    falls: list[Fall] = []
    for id, number, score in conn.execute(query.order_by(R.c.id)):
        best = falls[-1].val_bpb if falls else None
        if best is None or score < best:
            falls.append(Fall(id, number, score, None if best is None else best - score))
    return falls


def last_gain(falls: Sequence[Fall], noise: float) -> int:
    """The experiment that last lowered the best by more than the noise of one run; 0: none."""
    level, at = None, 0
    for fall in falls:
        if level is None or level - fall.val_bpb > noise:
            level, at = fall.val_bpb, fall.number
    return at


def _first_score(conn: Connection, track_id: int) -> float | None:
    query = select(R.c.val_bpb).where(R.c.track_id == track_id, RANKED, EXPERIMENT, COUNTED)
    return conn.execute(query.order_by(R.c.id).limit(1)).scalar_one_or_none()


def _make_points(
    rows: Sequence[Row[Any]], first: int, best: float | None, records: Sequence[wire.Record]
) -> list[wire.ProgressPoint]:
    confirmed = {record.commit for record in records if record.z is not None}
    points = []
    for number, row in enumerate(rows, first):
        doubted = is_quarantined(row)
        if row.val_bpb is not None and not doubted and row.status == wire.Status.KEEP:
            best = row.val_bpb if best is None else min(best, row.val_bpb)
        is_linked = row.commit_seq is not None
        points.append(
            wire.ProgressPoint(
                number=number,
                result_id=row.id,
                run_id=row.run_id,
                commit=row.hash if is_linked else row.code,
                is_linked=is_linked,
                agent_id=row.author,
                label=row.message or row.description,
                source=row.source,
                status=row.status,
                val_bpb=row.val_bpb,
                best=best,
                is_confirmed=row.hash in confirmed,
                is_quarantined=doubted,
                created_at=row.created_at,
            )
        )
    return points
