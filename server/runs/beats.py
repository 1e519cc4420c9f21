"""What heartbeats told of a run on its way, for its curve: at most one row per slot of progress."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select

from server import tables, wire
from server.db import Connection
from server.prepared import Prepared

#: Slots of one lease, so the points of one curve.
SLOTS = 200

_B = tables.beats.c
_FIND = Prepared(
    select(_B.slot).where(*(_B[name] == bindparam(name) for name in ("run_id", "fence", "slot")))
)
_ADD = Prepared(insert(tables.beats), "run_id", "fence", "slot", "step", "progress", "loss")
_CURVE = Prepared(
    select(_B.progress, _B.loss, _B.step)
    .where(_B.run_id == bindparam("run_id"), _B.fence == bindparam("fence"))
    .order_by(_B.slot)
)


@dataclass(frozen=True, slots=True)
class Beat:
    #: 0 to 1.
    progress: float
    loss: float
    step: int | None


def keep(conn: Connection, run_id: int, beat: wire.Heartbeat) -> None:
    """Keep it unless its slot is taken, or it tells no loss. The caller holds the run's row."""
    if beat.loss is None or beat.progress is None:
        return
    mine = {"run_id": run_id, "fence": beat.fence, "slot": int(beat.progress * SLOTS)}
    if _FIND.first(conn, **mine) is None:
        _ADD.run(conn, **mine, step=beat.step, progress=beat.progress, loss=beat.loss)


def list_beats(conn: Connection, run_id: int, fence: int) -> Sequence[Beat]:
    """Of one lease, in order."""
    return [Beat(*row) for row in _CURVE.all(conn, run_id=run_id, fence=fence)]
