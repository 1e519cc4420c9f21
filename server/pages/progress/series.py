"""What a picture of progress is drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    #: A score that is not believed: shown, never part of the best so far.
    QUARANTINED = "quarantined"


class XAxis(StrEnum):
    NUMBER = "number"
    TIME = "time"


@dataclass(slots=True)
class Point:
    """One experiment; not frozen, which would take three times as long to make."""

    #: Its place among the experiments of the track, from 1.
    number: int
    at: datetime
    val_bpb: float | None
    status: Status
    #: Subject of the commit or description of the run.
    label: str
    #: Hash, "" when the hub does not have the commit.
    commit: str = ""
    is_confirmed: bool = False
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Experiments of one track, the oldest first."""

    #: Name of the track as people read it, e.g. `H100 · 300 s · climbmix`.
    title: str
    points: Sequence[Point]
    #: How many experiments the track has, when these are only its last ones.
    total: int
    #: The first score of the track; the first of these when None.
    baseline: float | None = None
    #: The best score before these.
    earlier_best: float | None = None
