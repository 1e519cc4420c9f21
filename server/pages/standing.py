"""Where a track stands: its best score and what that is worth, its gain, its steps, its picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server import analysis, results, wire
from server.db import Connection
from server.pages import queries
from server.pages.progress import Area, Picture, Series, draw_progress
from server.pages.progress.labels import Label, place_labels

#: Experiments in the drawing of a page; scripts fetch more.
PLOTTED = 2_000
#: Steps that are looked up.
STEPS_MAX = 60
#: The drawing for wide pages and the one for phones: width and height of their frames.
WIDE, NARROW = (1000, 400), (420, 300)
_LABEL_SIZE = 12.5


@dataclass(frozen=True, slots=True)
class Step:
    """An experiment that lowered the best score."""

    point: results.Experiment
    val_bpb: float
    gain: float
    #: Of all that was gained.
    share: float


@dataclass(frozen=True, slots=True)
class Drawing:
    picture: Picture
    labels: list[Label]
    width: int
    height: int
    radius: float


@dataclass(frozen=True, slots=True)
class Standing:
    track: wire.Track
    progress: results.Progress
    best: wire.LeaderboardEntry | None
    record: wire.Record | None
    trend: wire.Trend
    since_gain: int
    recent_keep_rate: float
    #: The largest gains first.
    steps: list[Step]
    #: How many steps there are in all.
    steps_in_all: int

    @property
    def gain(self) -> float | None:
        """How much better the best is than the first score, bpb."""
        first = self.progress.baseline
        return None if self.best is None or first is None else first - self.best.val_bpb

    @property
    def confirmed(self) -> list[wire.Record]:
        """Records beyond the baseline, the newest first."""
        return [record for record in self.progress.records if record.z is not None][::-1]

    @property
    def version(self) -> str:
        """Changes whenever the picture does."""
        points = self.progress.points
        last = points[-1].result_id if points else 0
        return f"{last}-{len(self.progress.records)}-{self.track.quarantined}-{self.progress.best}"


def find_standing(conn: Connection, track: wire.Track) -> Standing:
    progress = results.read_progress(conn, track, PLOTTED)
    falls = results.list_falls(conn, track.id)
    since = progress.experiments - results.last_gain(falls, track.noise or 0.0)
    return Standing(
        track=track,
        progress=progress,
        best=next(iter(results.leaderboard(conn, track, 1).entries), None),
        record=results.find_standing(conn, track.id),
        trend=analysis.name_trend(progress.experiments, since),
        since_gain=since,
        recent_keep_rate=analysis.find_keep_rate(progress.points[-analysis.WINDOW :]),
        steps=_find_steps(conn, track.id, falls),
        steps_in_all=max(len(falls) - 1, 0),
    )


def _find_steps(conn: Connection, track_id: int, falls: Sequence[results.Fall]) -> list[Step]:
    """The largest first; the first score is not among them, it gained nothing."""
    gains = sorted((fall for fall in falls if fall.gain), key=lambda fall: -(fall.gain or 0))
    total = sum(fall.gain or 0 for fall in gains)
    shown = results.read_points(conn, track_id, {f.result_id: f.number for f in gains[:STEPS_MAX]})
    points = {point.result_id: point for point in shown}
    return [
        Step(points[fall.result_id], fall.val_bpb, fall.gain or 0, (fall.gain or 0) / total)
        for fall in gains[:STEPS_MAX]
    ]


# The drawing --------------------------------------------------------------------------------------


def draw(progress: results.Progress) -> list[Drawing]:
    """The wide one with labels, the narrow one without; none before the first score."""
    if progress.best is None:
        return []
    series = queries.to_series(progress)
    return [_draw(series, *WIDE, has_labels=True), _draw(series, *NARROW, has_labels=False)]


def _draw(series: Series, width: int, height: int, *, has_labels: bool) -> Drawing:
    area = Area(56, width - 12, 14, height - 40, inset=10, x_ticks=width // 110, y_ticks=5)
    picture = draw_progress(series, area)
    count = len(series.points)
    radius = 5 if count <= 60 else 4.4 if count <= 300 else 3.6
    bounds = (area.left, width - 4.0, 2.0, area.bottom - 2)
    labels = place_labels(picture, radius, _LABEL_SIZE, bounds) if has_labels else []
    return Drawing(picture, labels, width, height, radius)


def to_columns(progress: results.Progress) -> dict[str, Any]:
    """The experiments as scripts draw them: one list per column, texts cut short."""
    points = progress.points
    return {
        "track": {"id": progress.track.id, "label": progress.track.label},
        "experiments": progress.experiments,
        "baseline": progress.baseline,
        "best": progress.best,
        "records": [_to_record(record) for record in progress.records],
        "number": [point.number for point in points],
        "time": [int(point.created_at.timestamp()) for point in points],
        "score": [point.val_bpb for point in points],
        # k, d, c; q for a score that is not believed.
        "status": "".join("q" if one.is_quarantined else one.status[0] for one in points),
        "source": "".join(point.source[0] for point in points),
        "confirmed": [at for at, point in enumerate(points) if point.is_confirmed],
        "run": [point.run_id for point in points],
        "commit": [point.commit if point.is_linked else "" for point in points],
        "agent": [point.agent_id for point in points],
        "label": [queries.to_label(point.label) for point in points],
    }


def _to_record(record: wire.Record) -> dict[str, Any]:
    fields = {"commit", "val_bpb", "n", "standard_error", "z"}
    return record.model_dump(include=fields) | {"time": int(record.created_at.timestamp())}
