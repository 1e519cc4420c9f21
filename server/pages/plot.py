"""The progress of a track as a drawing: grey discards, green keeps, the line of the best so far.

x is the number of the experiment, crashes counted and left out; y runs from just under the best
score to just above the first one, and worse scores are left out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Row

from server import wire

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 50, WIDTH - 12, 12, HEIGHT - 34
#: Share of the range of y left free at both ends.
MARGIN = 0.08


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Keep:
    """A score that was the best of its track when it came."""

    x: float
    y: float
    score: float
    number: int
    run_id: int | None
    commit: str
    message: str


@dataclass(frozen=True, slots=True)
class Plot:
    keeps: list[Keep]
    #: Path of dots, each a line of no length.
    discards: str
    line: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    #: How many scores are worse than the frame shows.
    hidden: int


@dataclass(frozen=True, slots=True)
class _Frame:
    first: int
    last: int
    low: float
    high: float

    def x(self, number: int) -> float:
        share = (number - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(LEFT + 8 + share * (RIGHT - LEFT - 16), 1)

    def y(self, score: float) -> float:
        share = (self.high - score) / (self.high - self.low)
        return round(TOP + min(max(share, 0), 1) * (BOTTOM - TOP), 1)


def draw_plot(
    rows: Sequence[Row[Any]], baseline: float, earlier_best: float | None, first: int
) -> Plot:
    """Draw results, the oldest first; the first of them is experiment `first` of its track.

    `baseline` is the first score of the track, `earlier_best` the best before these results.
    """
    scored = [(n, row) for n, row in enumerate(rows, first) if row.val_bpb is not None]
    scores = [row.val_bpb for _, row in scored]
    if earlier_best is not None:
        scores.append(earlier_best)
    frame = _Frame(first, first + len(rows) - 1, *_range(scores, baseline))
    shown = [(n, row) for n, row in scored if row.val_bpb <= frame.high]
    keeps = [(n, row) for n, row in shown if row.verdict == wire.Verdict.KEEP]
    discards = [(n, row) for n, row in shown if row.verdict != wire.Verdict.KEEP]
    return Plot(
        keeps=[_keep(frame, n, row) for n, row in keeps],
        discards="".join(f"M{frame.x(n)} {frame.y(row.val_bpb)}h0" for n, row in discards),
        line=_line(frame, ((n, row.val_bpb) for n, row in scored), earlier_best),
        x_ticks=[Tick(frame.x(round(n)), f"{n:.0f}") for n in _ticks(first, frame.last, 5, 1)],
        y_ticks=_y_ticks(frame),
        hidden=len(scored) - len(shown),
    )


def _range(scores: Sequence[float], baseline: float) -> tuple[float, float]:
    best = min(scores)
    top = baseline if baseline > best else max(scores)
    margin = MARGIN * (top - best) or 0.001
    return best - margin, top + margin


def _keep(frame: _Frame, number: int, row: Row[Any]) -> Keep:
    x, y = frame.x(number), frame.y(row.val_bpb)
    return Keep(x, y, row.val_bpb, number, row.run_id, row.hash, row.message)


def _line(frame: _Frame, scores: Iterable[tuple[int, float]], best: float | None) -> str:
    """The best so far as steps, from the left edge if there was one before."""
    path = "" if best is None else f"M{LEFT} {frame.y(best)}"
    for number, score in scores:
        if best is None:
            path = f"M{frame.x(number)} {frame.y(score)}"
        elif score < best:
            path += f"H{frame.x(number)}V{frame.y(score)}"
        best = score if best is None else min(best, score)
    return f"{path}H{RIGHT}"


def _y_ticks(frame: _Frame) -> list[Tick]:
    values = _ticks(frame.low, frame.high, 4, 0)
    step = min((b - a for a, b in pairwise(values)), default=0.001)
    digits = max(2, math.ceil(-math.log10(step) - 1e-9))
    return [Tick(frame.y(value), f"{value:.{digits}f}") for value in values]


def _ticks(low: float, high: float, at_most: int, smallest: float) -> list[float]:
    """Round numbers from `low` to `high`."""
    rough = max((high - low) / at_most, smallest, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
