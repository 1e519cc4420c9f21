"""Halts: worker processes that stopped themselves after faults of their machine, and why.

A halt stands until the same place, such as one GPU of one machine, works again.
"""

from datetime import datetime

from sqlalchemy import delete, func, insert, select

from server import errors, events, tables, wire
from server.db import Connection

#: Of one worker: more GPUs than that have no key in common.
PLACES_MAX = 256

H = tables.halts


def report(conn: Connection, worker_id: str, halt: wire.HaltReport, now: datetime) -> None:
    """Note that a place stopped, or without a reason that it works again."""
    conn.execute(delete(H).where(H.c.worker_id == worker_id, H.c.place == halt.place))
    if halt.reason is None:
        return
    count = select(func.count()).where(H.c.worker_id == worker_id)
    if conn.execute(count).scalar_one() >= PLACES_MAX:
        raise errors.InvalidRequest(f"{worker_id} has {PLACES_MAX} halted places already")
    told = {"place": halt.place, "reason": halt.reason}
    conn.execute(insert(H), {"worker_id": worker_id, "created_at": now, **told})
    events.append(conn, "agent", worker_id, worker_id, {"halted": told}, now)


def is_halted(conn: Connection, worker_id: str, place: str) -> bool:
    mine = (H.c.worker_id == worker_id, H.c.place == place)
    return conn.execute(select(H.c.place).where(*mine)).first() is not None


def list_halts(
    conn: Connection, worker_id: str | None = None, limit: int = wire.LIST_DEFAULT
) -> list[wire.Halt]:
    """Newest first."""
    query = select(H)
    if worker_id is not None:
        query = query.where(H.c.worker_id == worker_id)
    rows = conn.execute(query.order_by(H.c.created_at.desc()).limit(limit))
    return [wire.Halt(**row._mapping) for row in rows]
