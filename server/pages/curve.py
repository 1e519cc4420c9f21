"""The loss of a run over its progress, as its heartbeats told it."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.pages.progress.layout import Tick, ticks
from server.runs import Beat

WIDTH, HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 34


@dataclass(frozen=True, slots=True)
class Curve:
    """In the units of a frame of WIDTH by HEIGHT."""

    line: str
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    last: tuple[float, float]
    beats: int


def draw_curve(beats: Sequence[Beat]) -> Curve | None:
    """None with fewer than two losses."""
    if len(beats) < 2:
        return None
    losses = [beat.loss for beat in beats]
    margin = 0.06 * (max(losses) - min(losses)) or max(abs(losses[0]), 1.0) * 0.01
    low, high = min(losses) - margin, max(losses) + margin
    span = high - low

    def x(progress: float) -> float:
        return round(_LEFT + progress * (WIDTH - _LEFT - _RIGHT), 1)

    def y(loss: float) -> float:
        return round(_TOP + (high - loss) / span * (HEIGHT - _TOP - _BOTTOM), 1)

    places = [(x(beat.progress), y(beat.loss)) for beat in beats]
    return Curve(
        line="M" + "L".join(f"{at_x} {at_y}" for at_x, at_y in places),
        y_ticks=[Tick(y(value), f"{value:.4g}") for value in ticks(low, high, 4, 0)],
        x_ticks=[Tick(x(part / 4), f"{part * 25} %") for part in range(5)],
        last=places[-1],
        beats=len(beats),
    )
