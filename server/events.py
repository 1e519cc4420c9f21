"""Events: the append-only log of what happened, and the bell that wakes those who wait for it.

An event is written in the transaction of the change it tells of, so a reader of the log never
sees one without the other.
"""

import asyncio
import threading
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from server import tables, wire
from server.db import Connection


def append(
    conn: Connection, kind: str, actor: str, subject: str, payload: dict[str, Any], now: datetime
) -> None:
    row = {
        "kind": kind,
        "actor": actor,
        "subject": subject,
        "payload": payload,
        "created_at": now,
    }
    conn.execute(insert(tables.events), row)


def list_after(conn: Connection, after: int, limit: int) -> list[wire.Event]:
    """Events with a higher id, oldest first."""
    t = tables.events
    rows = conn.execute(select(t).where(t.c.id > after).order_by(t.c.id).limit(limit))
    return [wire.Event(**row._mapping) for row in rows]


class Bell:
    """Wakes long polls after a write. Threads ring it; coroutines wait.

    A ring tells only that something changed in this process: waiters look again, and also look
    now and then without a ring, because other processes write too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            # The loop may be closing; then nobody waits there any more.
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after `seconds`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiters.add(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
