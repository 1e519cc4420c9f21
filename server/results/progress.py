"""Progress of a track: its experiments in order, the best so far, and the records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, bindparam, func, literal_column, select

from server import tables, wire
from server.db import Connection
from server.prepared import Prepared, PreparedIn, Row
from server.results import tallies
from server.results.leaderboard import list_records
from server.results.rows import COUNTED, EXPERIMENT, RANKED

#: Experiments one answer holds at most, the newest.
POINTS_MAX = 10_000

R = tables.results
_TRACK = R.c.track_id == bindparam("track")
_LIMIT = bindparam("limit", type_=Integer)
# Spelled out, so that the partial index of what was kept serves it.
_KEPT = (_TRACK, R.c.status == literal_column("'keep'"), RANKED, EXPERIMENT)
_STATUSES = {status.value: status for status in wire.Status}


class Experiment(NamedTuple):
    """As a `wire.ProgressPoint`, of which pages need ten thousand at a time."""

    number: int
    result_id: int
    run_id: int | None
    commit: str
    is_linked: bool
    agent_id: str
    label: str
    source: str
    status: wire.Status
    val_bpb: float | None
    best: float | None
    is_confirmed: bool
    is_quarantined: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """As a `wire.Progress`."""

    track: wire.Track
    experiments: int
    keeps: int
    discards: int
    crashes: int
    keep_rate: float
    baseline: float | None
    best: float | None
    earlier_best: float | None
    records: list[wire.Record]
    points: list[Experiment]

    def to_wire(self) -> wire.Progress:
        fields = {name: getattr(self, name) for name in self.__slots__}
        points = [wire.ProgressPoint(**point._asdict()) for point in self.points]
        return wire.Progress(**fields | {"points": points})


def read_progress(conn: Connection, track: wire.Track, limit: int) -> Progress:
    """The newest experiments of a track, the oldest of them first, numbered from its start.

    Replicates are not experiments. The best so far is that of the ones that were kept and are
    not in quarantine.
    """
    counts = tallies.count_statuses(conn, track.id)
    total = counts.total()
    rows = _NEWEST.all(conn, track=track.id, limit=limit)
    records = list_records(conn, track.id)
    earlier = _BEST_BEFORE.scalar(conn, track=track.id, id=rows[-1][0]) if rows else None
    points = _make_points(rows, total - len(rows) + 1, earlier, records)
    return Progress(
        track=track,
        experiments=total,
        keeps=counts[wire.Status.KEEP],
        discards=counts[wire.Status.DISCARD],
        crashes=counts[wire.Status.CRASH],
        keep_rate=_keep_rate(counts),
        baseline=_FIRST_SCORE.scalar(conn, track=track.id),
        best=points[-1].best if points else None,
        earlier_best=earlier,
        records=records,
        points=points,
    )


def read_points(conn: Connection, track_id: int, numbers: dict[int, int]) -> list[Experiment]:
    """Some experiments of a track, by the ids of their results and with these numbers."""
    rows = _POINTS.all(conn, numbers, track=track_id)
    records = list_records(conn, track_id)
    return [_make_points([row], numbers[row[0]], None, records)[0] for row in rows]


def _select_points() -> Select[Any]:
    # Not all: what a run measured besides is text to be parsed.
    shown = (
        *(R.c.id, R.c.run_id, R.c.commit_seq, R.c.code, R.c.author, R.c.source, R.c.status),
        *(R.c.val_bpb, R.c.description, R.c.quarantine, R.c.released_at, R.c.created_at),
    )
    c = tables.commits
    query = select(*shown, c.c.hash, c.c.message).outerjoin(c, c.c.seq == R.c.commit_seq)
    return query.order_by(R.c.id.desc())


_NEWEST = Prepared(_select_points().where(_TRACK, R.c.late == 0, EXPERIMENT).limit(_LIMIT))
_POINTS = PreparedIn(lambda ids: _select_points().where(_TRACK, R.c.id.in_(ids)))
_BEST_BEFORE = Prepared(select(func.min(R.c.val_bpb)).where(R.c.id < bindparam("id"), *_KEPT))
_FALLS = Prepared(select(R.c.id, R.c.number, R.c.val_bpb).where(*_KEPT).order_by(R.c.id))
_FIRST_SCORE = Prepared(
    select(R.c.val_bpb)
    .where(_TRACK, RANKED, EXPERIMENT, COUNTED)
    .order_by(R.c.id)
    .limit(literal_column("1"))
)


def _keep_rate(counts: Counter[str]) -> float:
    """Keeps of the experiments that did not crash."""
    worked = counts[wire.Status.KEEP] + counts[wire.Status.DISCARD]
    return counts[wire.Status.KEEP] / worked if worked else 0.0


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
    falls: list[Fall] = []
    best = None
    for id, number, score in _FALLS.all(conn, track=track_id):
        if best is None or score < best:
            falls.append(Fall(id, number, score, None if best is None else best - score))
            best = score
    return falls


def last_gain(falls: Sequence[Fall], noise: float) -> int:
    """The experiment that last lowered the best by more than the noise of one run; 0: none."""
    level, at = None, 0
    for fall in falls:
        if level is None or level - fall.val_bpb > noise:
            level, at = fall.val_bpb, fall.number
    return at


def _make_points(
    rows: list[Row], first: int, best: float | None, records: Sequence[wire.Record]
) -> list[Experiment]:
    """Of the newest first, which are used up: ten thousand are not held beside their points."""
    confirmed = {record.commit for record in records if record.z is not None}
    points: list[Experiment] = []
    while rows:
        number, row = first + len(points), rows.pop()
        id, run, seq, code, author, source, word, score, told, doubt, released, at = row[:12]
        hash, message = row[12:]
        status, is_linked = _STATUSES[word], seq is not None
        is_quarantined = doubt is not None and released is None
        if score is not None and not is_quarantined and status is wire.Status.KEEP:
            best = score if best is None or score < best else best
        points.append(
            Experiment(
                number,
                id,
                run,
                hash if is_linked else code,
                is_linked,
                author,
                message or told,
                source,
                status,
                score,
                best,
                hash in confirmed,
                is_quarantined,
                at,
            )
        )
    return points
