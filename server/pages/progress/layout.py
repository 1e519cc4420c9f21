"""Where everything of a picture lies, in the units of its area; its looks are others' business.

y runs from just under the best score to just above the baseline; what is worse is counted and left
out, and so are crashes.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from server.pages.progress.series import Point, Series, Status, XAxis

#: Share of the range of y left free at both ends.
MARGIN = 0.08
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Steps of a time axis in seconds; longer ones are round numbers of days.
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
)


@dataclass(frozen=True, slots=True)
class Area:
    """The rectangle between the axes; y grows downwards."""

    left: float
    right: float
    top: float
    bottom: float
    #: Kept free at the left and right of the points.
    inset: float = 8
    x_ticks: int = 5
    y_ticks: int = 4


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A kept experiment and its place."""

    x: float
    y: float
    point: Point
    score: float
    #: By how much it was better than all before it.
    gain: float


@dataclass(frozen=True, slots=True)
class Picture:
    area: Area
    keeps: list[Mark]
    discards: list[tuple[float, float]]
    quarantined: list[tuple[float, float]]
    #: Corners of the line of the best so far, where it drops.
    steps: list[tuple[float, float]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    counts: Counter[Status]
    #: How many scores are worse than the area shows.
    hidden: int
    baseline: float | None
    best: float | None

    @property
    def line(self) -> str:
        """Path of the best so far: falling steps, on to the right edge."""
        if not self.steps:
            return ""
        (x, y), *drops = self.steps
        return f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in drops) + f"H{self.area.right}"

    @property
    def dots(self) -> str:
        """Path of the discards, each a line of no length."""
        return "".join(f"M{x} {y}h0" for x, y in self.discards)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps a range of values to a range of places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + min(max(share, 0), 1) * (self.end - self.start), 1)


def draw_progress(series: Series, area: Area, by: XAxis = XAxis.NUMBER) -> Picture:
    """Lay out the series; without any score, the picture has no marks and no ticks of y."""
    scored = [(p, p.val_bpb) for p in series.points if p.val_bpb is not None]
    believed = [(p, score) for p, score in scored if p.status is not Status.QUARANTINED]
    scores = [score for _, score in believed]
    if series.earlier_best is not None:
        scores.append(series.earlier_best)
    baseline = scores[0] if series.baseline is None and scores else series.baseline
    low, high = _range(scores, baseline)
    x, x_ticks = _x_axis(series.points, area, by)
    y = _Scale(low, high, area.bottom, area.top)
    shown = [(p, score) for p, score in scored if low <= score <= high]
    gains = list(_gains(believed, series.earlier_best))
    best = min((p_score for _, p_score, gain in gains if gain > 0), default=series.earlier_best)
    return Picture(
        area=area,
        keeps=[Mark(x(_place(p, by)), y(s), p, s, g) for p, s, g in gains if s <= high],
        discards=[(x(_place(p, by)), y(s)) for p, s in shown if p.status is Status.DISCARD],
        quarantined=[(x(_place(p, by)), y(s)) for p, s in shown if p.status is Status.QUARANTINED],
        steps=_steps(gains, series.earlier_best, x, y, by),
        x_ticks=x_ticks,
        y_ticks=_y_ticks(y, area.y_ticks) if scores else [],
        counts=Counter(p.status for p in series.points),
        hidden=sum(score > high for _, score in believed),
        baseline=baseline,
        best=best,
    )


def _range(scores: Sequence[float], baseline: float | None) -> tuple[float, float]:
    if not scores or baseline is None:
        return 0, 1
    best = min(scores)
    top = baseline if baseline > best else max(scores)
    margin = MARGIN * (top - best) or 0.001
    return best - margin, top + margin


def _gains(
    scored: Iterable[tuple[Point, float]], best: float | None
) -> Iterable[tuple[Point, float, float]]:
    """Each kept experiment with its score and how much that bettered the best before it."""
    for point, score in scored:
        if point.status is Status.KEEP:
            yield point, score, math.inf if best is None else max(best - score, 0)
            best = score if best is None else min(best, score)


def _steps(
    gains: Iterable[tuple[Point, float, float]],
    earlier_best: float | None,
    x: _Scale,
    y: _Scale,
    by: XAxis,
) -> list[tuple[float, float]]:
    start = [] if earlier_best is None else [(x.start, y(earlier_best))]
    return start + [(x(_place(p, by)), y(score)) for p, score, gain in gains if gain > 0]


def _place(point: Point, by: XAxis) -> float:
    return point.number if by is XAxis.NUMBER else point.at.timestamp()


# Axes ------------------------------------------------------------------------------------------


def _x_axis(points: Sequence[Point], area: Area, by: XAxis) -> tuple[_Scale, list[Tick]]:
    places = [_place(point, by) for point in points] or [0]
    low, high = min(places), max(places)
    scale = _Scale(low, high, area.left + area.inset, area.right - area.inset)
    if by is XAxis.NUMBER:
        return scale, [Tick(scale(n), f"{n:,.0f}") for n in ticks(low, high, area.x_ticks, 1)]
    step = _time_step((high - low) / area.x_ticks)
    seconds = [n * step for n in range(math.floor((high - low) / step) + 1)]
    return scale, [Tick(scale(low + second), _tell(second, step)) for second in seconds]


def _y_ticks(scale: _Scale, at_most: int) -> list[Tick]:
    values = ticks(scale.low, scale.high, at_most, 0)
    step = min((b - a for a, b in pairwise(values)), default=0.001)
    digits = max(2, math.ceil(-math.log10(step) - 1e-9))
    return [Tick(scale(value), f"{value:.{digits}f}") for value in values]


def ticks(low: float, high: float, at_most: int, smallest: float) -> list[float]:
    """Round numbers from `low` to `high`."""
    step = _round_step(max((high - low) / at_most, smallest, 1e-9))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))


def _time_step(rough: float) -> float:
    days = _DAY * _round_step(max(rough / _DAY, 1))
    return next((float(step) for step in _TIME_STEPS if step >= rough), days)


def _tell(seconds: float, step: float) -> str:
    """Time since the start in the unit of the axis, e.g. `6 h`."""
    units = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))
    size, unit = next((size, unit) for size, unit in units if step >= size)
    return f"{timedelta(seconds=seconds) / timedelta(seconds=size):.0f} {unit}"
