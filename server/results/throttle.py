"""Throttle: which measured run was slowed down, by heat or by neighbours on its machine.

How fast a training is depends on its model first, so a run is compared with others of the same
code, and while there are few of those with runs of its size: as many parameters, as many tokens a
step. Those may be slower by design, hence the rerun: it tells the machine from the code. What is
throttled counts nevertheless: else a code could leave out unlucky seeds by being slow on purpose.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from sqlalchemy import Row, bindparam, select

from server import tables, wire
from server.db import Connection
from server.prepared import Prepared

#: A run is throttled when it is slower than the median by more than this part of it,
UNDER = 0.03
#: and by more than so many of the usual deviations of its kind, so that on machines where speeds
#: scatter nothing is marked that is usual there.
DEVIATIONS = 3.0
#: Of one code, or of one size, so many others make a median.
SAME_CODE_MIN = 3
SAME_SIZE_MIN = 5
#: The newest results of a track that are looked at.
_LOOKED_AT = 200
#: How far `total_tokens_M`, which has one decimal, may be from the truth.
_ROUNDED = 0.05

R = tables.results
_DONE = (
    select(R.c.metrics)
    .where(R.c.track_id == bindparam("track"), R.c.late == 0, R.c.outcome == wire.Outcome.OK)
    .order_by(R.c.id.desc())
    .limit(_LOOKED_AT)
)
_NEWEST = Prepared(_DONE)
_OF_CODE = Prepared(_DONE.where(R.c.code == bindparam("code")))


def find_throttle(
    conn: Connection, track: Row[Any], code: str, metrics: Mapping[str, Any]
) -> float | None:
    """How far it lies under the median, as a part of that; None when it is not throttled."""
    speed = _speed(metrics)
    if speed is None:
        return None
    others = _list_speeds(one for (one,) in _OF_CODE.all(conn, track=track.id, code=code))
    if len(others) < SAME_CODE_MIN:
        told = _NEWEST.all(conn, track=track.id)
        others = _list_speeds(one for (one,) in told if _is_alike(one, metrics))
        if len(others) < SAME_SIZE_MIN:
            return None
    return judge(speed, others)


def judge(speed: float, others: list[float]) -> float | None:
    middle = median(others)
    # 1.4826: of a normal distribution it is the standard deviation.
    usual = 1.4826 * median(abs(other - middle) for other in others)
    under = 1 - speed / middle
    return under if under > UNDER and middle - speed > DEVIATIONS * usual else None


def _list_speeds(told: Iterable[Mapping[str, Any]]) -> list[float]:
    return [speed for metrics in told if (speed := _speed(metrics)) is not None]


def _speed(metrics: Mapping[str, Any]) -> float | None:
    """Steps a second: what is compared has as many tokens in each, and those are told rounded."""
    steps, seconds = (_positive(metrics.get(name)) for name in ("num_steps", "training_seconds"))
    return steps / seconds if steps and seconds else None


def _is_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs have as many parameters, and as many tokens a step for all that is told."""
    sizes = _size(one), _size(other)
    if sizes[0] is None or sizes[1] is None or sizes[0][0] != sizes[1][0]:
        return False
    (_, millions, steps), (_, other_millions, other_steps) = sizes[0], sizes[1]
    ratio = (millions / steps) / (other_millions / other_steps)
    return abs(ratio - 1) <= 0.001 + _ROUNDED / millions + _ROUNDED / other_millions


def _size(metrics: Mapping[str, Any]) -> tuple[float, float, float] | None:
    names = ("num_params_M", "total_tokens_M", "num_steps")
    params, millions, steps = (_positive(metrics.get(name)) for name in names)
    return (params, millions, steps) if params and millions and steps else None


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < math.inf else None
