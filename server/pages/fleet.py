"""The workers as people watch them: state, machine, and how fast they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from server import tables, wire
from server.db import Connection

#: Workers of one strip.
SHOWN = 24


@dataclass(frozen=True, slots=True)
class Machine:
    worker: wire.WorkerStat
    #: As the worker named it: `NVIDIA H100 80GB HBM3`.
    device: str
    tokens_per_second: float | None
    #: How far the run it holds is, 0 to 1.
    progress: float | None


def list_machines(
    conn: Connection, workers: Sequence[wire.WorkerStat], now: datetime
) -> list[Machine]:
    return [_see(conn, worker, now) for worker in workers[:SHOWN]]


def _see(conn: Connection, worker: wire.WorkerStat, now: datetime) -> Machine:
    r, s = tables.runs, tables.results
    last = conn.execute(
        select(r.c.id, r.c.state, r.c.worker, r.c.progress, r.c.tokens, r.c.started_at)
        .add_columns(s.c.metrics)
        .outerjoin(s, (s.c.run_id == r.c.id) & (s.c.late == 0))
        .where(r.c.worker_id == worker.id)
        .order_by(r.c.id.desc())
        .limit(2)
    ).all()
    held = worker.run_id is not None and bool(last)
    speeds = (_speed(row, now) for row in last)
    return Machine(
        worker=worker,
        device=str(last[0].worker.get("device") or "") if last else "",
        tokens_per_second=next((speed for speed in speeds if speed), None),
        progress=last[0].progress if held else None,
    )


def _speed(row: Row[Any], now: datetime) -> float | None:
    """Of the result's own numbers, or of what the heartbeats told so far."""
    metrics = row.metrics or {}
    millions, seconds = (_positive(metrics.get(n)) for n in ("total_tokens_M", "training_seconds"))
    if millions and seconds:
        return millions * 1e6 / seconds
    if row.state != wire.RunState.RUNNING or not row.tokens or row.started_at is None:
        return None
    elapsed = (now - row.started_at).total_seconds()
    return row.tokens / elapsed if elapsed > 0 else None


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else None
