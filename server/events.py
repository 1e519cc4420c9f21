"""Events: the append-only log of what happened, and the bell that wakes those who wait for it.

An event is written in the transaction of the change it tells of, so a reader of the log never
sees one without the other.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, bindparam, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from server import tables, wire
from server.db import Connection, Database, Watch
from server.prepared import Prepared

log = logging.getLogger("agenthub")

#: How soon those who wait hear of what another process wrote.
POLL_SECONDS = 0.03
# The thread that polls ends when nobody waited so many times in a row.
_IDLE_POLLS = 30

_E = tables.events.c
_FIELDS = tuple(wire.Event.model_fields)
_AFTER = Prepared(
    select(*(_E[name] for name in _FIELDS))
    .where(_E.id > bindparam("after"))
    .order_by(_E.id)
    .limit(bindparam("limit", type_=Integer))
)
_APPEND = Prepared(insert(tables.events), "kind", "actor", "subject", "payload", "created_at")


def append(
    conn: Connection, kind: str, actor: str, subject: str, payload: dict[str, Any], now: datetime
) -> None:
    told = {"kind": kind, "actor": actor, "subject": subject, "payload": payload}
    _APPEND.run(conn, **told, created_at=now)


def list_after(conn: Connection, after: int, limit: int) -> list[wire.Event]:
    """Events with a higher id, oldest first."""
    rows = _AFTER.all(conn, after=after, limit=limit)
    return [wire.Event(**dict(zip(_FIELDS, row, strict=True))) for row in rows]


def find_last(conn: Connection) -> int:
    """Id of the newest event; 0 before the first one."""
    last: int | None = conn.execute(select(func.max(tables.events.c.id))).scalar_one()
    return last or 0


class Bell:
    """Wakes those who wait for something to happen. Threads ring it; coroutines wait.

    Who writes rings. What other processes write, a thread sees that polls the database while
    anybody waits, and rings when there are new events.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()
        #: How often it rang.
        self.rings = 0
        #: Of the thread; None when there is none.
        self._watch: Watch | None = None
        self._last = 0

    def ring(self) -> None:
        with self._lock:
            if self._watch is not None:
                # What this ring tells of, the thread need not tell again.
                with suppress(sqlite3.Error):
                    self._watch.moved()
            self._wake()

    async def wait(self, seconds: float, rings: int | None = None) -> None:
        """Return at the next ring, or after `seconds`.

        `rings` is the count when the caller began to look: a ring since then is not missed.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if rings is not None and rings != self.rings:
                return
            self._waiters.add(waiter)
            if self._watch is None:
                self._watch = Watch(self._db)
                threading.Thread(target=self._poll, args=[self._watch], daemon=True).start()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        self.rings += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            # The loop may be closing; then nobody waits there any more.
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_set, waiter)

    def _poll(self, watch: Watch) -> None:
        with closing(watch):
            idle = 0
            while idle < _IDLE_POLLS or not self._leave():
                try:
                    self._look(watch)
                except (SQLAlchemyError, sqlite3.Error) as error:
                    log.warning("the database cannot be watched, trying again: %s", error)
                idle = 0 if self._waiters else idle + 1
                time.sleep(POLL_SECONDS)

    def _look(self, watch: Watch) -> None:
        """Ring if there are events that nobody here rang for."""
        with self._lock:
            if not watch.moved():
                return
        with self._db.read() as conn:
            last = find_last(conn)
        with self._lock:
            # Most writes are no events, such as heartbeats; after a restore ids begin anew.
            if last != self._last:
                self._last = last
                self._wake()

    def _leave(self) -> bool:
        with self._lock:
            if not self._waiters:
                self._watch = None
            return self._watch is None


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
