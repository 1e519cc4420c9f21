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
    t = tables.beats
    query = select(t).where(t.c.run_id == run_id, t.c.fence == fence).order_by(t.c.slot)
    return [Beat(row.progress, row.loss, row.step) for row in conn.execute(query)]
