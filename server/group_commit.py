"""Group commit: small writes of many requests in one transaction, under a savepoint each.

A commit waits for the disk, so one for 64 posts costs hardly more than one for one post. A write
returns when its transaction is durable; one that raises undoes itself and nothing else.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from server.db import WAIT_SECONDS, Connection, Database, NoTurn, is_locked, refusing_failures

T = TypeVar("T")
Work = Callable[[Connection], T]

#: What a write costs is counted in posts, some 0.2 ms. So much is written in one transaction:
#: pushes wait for it.
GROUP_MAX = 128
#: The event loop itself writes groups up to this size. While it answers requests, each statement
#: of another thread waits for the interpreter, so a small group is done sooner so.
INLINE_MAX = 64
#: A disk that takes longer for a commit is waited for in the thread, seconds.
SLOW_SECONDS = 0.005
_COST_SECONDS = 0.0002


class GroupCommit:
    """The writer of one process. Its turn to write comes as that of everybody."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._guard = threading.Lock()
        self._waiting: deque[_Item] = deque()
        #: Whether somebody is about to write what waits.
        self._is_led = False
        self._is_slow = False
        self._thread = ThreadPoolExecutor(1, "group-commit")
        self._inline, self._patient = _Writing(db, busy_ms=0), _Writing(db)

    async def write(self, work: Work[T], cost: int = 1) -> T:
        """Do the work in the next group; return what it returned once that is durable.

        All others wait for it, so it must be short; `cost` tells how short, in posts. Raises what
        it raises, and Unavailable when the group could not be written.
        """
        loop = asyncio.get_running_loop()
        item = _Item(work, loop.create_future(), loop, cost)
        if self._is_first(item):
            try:
                await asyncio.sleep(0)  # What came together is written together.
            finally:
                self._lead()
        result: T = await item.done
        return result

    def write_now(self, work: Work[T], cost: int = 1) -> T:
        """As `write`, for threads."""
        item = _Item(work, Future(), None, cost)
        if self._is_first(item):
            self._hand_over()
        result: T = item.done.result()
        return result

    def close(self) -> None:
        """Write what waits, and stop."""
        self._thread.shutdown(wait=True)
        self._inline.close()
        self._patient.close()

    # Who writes ---------------------------------------------------------------------------------

    def _is_first(self, item: "_Item") -> bool:
        """Queue it; True for who has to see to it that the queue is written."""
        with self._guard:
            self._waiting.append(item)
            is_first, self._is_led = not self._is_led, True
        return is_first

    def _lead(self) -> None:
        if self._is_slow or self._cost() > INLINE_MAX or not self._write_inline():
            self._hand_over()

    def _cost(self) -> int:
        with self._guard:
            return _sum_cost(self._waiting)

    def _hand_over(self) -> None:
        try:
            self._thread.submit(self._write_waiting)
        except RuntimeError:  # Closed meanwhile; what was asked before the end is still done.
            self._write_waiting()

    def _write_inline(self) -> bool:
        """Whether all is written."""
        group = self._take()
        try:
            with self._db.turn(0):
                self._write(group, self._inline)
        except NoTurn:
            with self._guard:
                self._waiting.extendleft(reversed(group))
            return False
        return self._is_over()

    def _write_waiting(self) -> None:
        while not self._is_over():
            group = self._take()
            try:
                with refusing_failures(), self._db.turn(WAIT_SECONDS):
                    self._write(group, self._patient)
            except Exception as error:  # noqa: BLE001 - told to those who wait
                _tell(group, error)

    def _take(self) -> "list[_Item]":
        group: list[_Item] = []
        left = GROUP_MAX
        with self._guard:
            while self._waiting and left >= self._waiting[0].cost:
                group.append(self._waiting.popleft())
                left -= group[-1].cost
        return group

    def _is_over(self) -> bool:
        with self._guard:
            self._is_led = bool(self._waiting)
            return not self._is_led

    def _write(self, group: "Sequence[_Item]", writing: "_Writing") -> None:
        """Raise NoTurn if nothing was begun; all else is told to those who wait."""
        started = time.perf_counter()
        try:
            with refusing_failures():
                writing.write(group)
        except NoTurn:
            raise
        except Exception as error:  # noqa: BLE001 - told to those who wait
            _tell(group, error)
        else:
            _tell(group)
        expected = SLOW_SECONDS + _COST_SECONDS * _sum_cost(group)
        self._is_slow = time.perf_counter() - started > expected


class _Writing:
    """A connection to write groups on."""

    def __init__(self, db: Database, busy_ms: int | None = None) -> None:
        self._db = db
        self._busy_ms = busy_ms
        self._conn: Connection | None = None

    def write(self, group: "Sequence[_Item]") -> None:
        conn = self._conn or self._open()
        try:
            self._begin(conn)
            for item in group:
                item.run(conn)
            conn.commit()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.close()

    def _open(self) -> Connection:
        self._conn = self._db.engine.connect().execution_options(writes=True)
        self._conn.detach()
        if self._busy_ms is not None and self._conn.dialect.name == "sqlite":
            self._conn.connection.cursor().execute(f"PRAGMA busy_timeout = {self._busy_ms}")
        return self._conn

    def _begin(self, conn: Connection) -> None:
        try:
            conn.begin()
        except OperationalError as error:
            if self._busy_ms == 0 and is_locked(error):
                raise NoTurn from error
            raise


class _Item:
    __slots__ = ("cost", "done", "error", "loop", "value", "work")

    def __init__(
        self, work: Work[Any], done: Any, loop: asyncio.AbstractEventLoop | None, cost: int
    ) -> None:
        self.work = work
        self.done = done
        self.loop = loop
        self.cost = cost
        self.value: Any = None
        self.error: Exception | None = None

    def run(self, conn: Connection) -> None:
        """In its savepoint; raise only what spoils the transaction."""
        cursor = conn.connection.cursor()
        cursor.execute("SAVEPOINT item")
        try:
            self.value = self.work(conn)
        except OperationalError:
            # The disk's or a lock's fault: SQLite may have undone all of the transaction.
            raise
        except Exception as error:  # noqa: BLE001 - raised to who asked
            self.error = error
            cursor.execute("ROLLBACK TO SAVEPOINT item")
        cursor.execute("RELEASE SAVEPOINT item")
        cursor.close()

    def settle(self) -> None:
        if self.done.done():
            return  # Its request was given up.
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.value)


def _sum_cost(items: Iterable[_Item]) -> int:
    return sum([item.cost for item in items])


def _tell(group: Sequence[_Item], error: Exception | None = None) -> None:
    """What came of them; `error` befell them all."""
    for item in group:
        item.error = error or item.error
    for loop, items in groupby(group, lambda item: item.loop):
        _tell_in(loop, list(items))


def _tell_in(loop: asyncio.AbstractEventLoop | None, items: Sequence[_Item]) -> None:
    if loop is None or loop is asyncio._get_running_loop():
        _settle(items)
    else:
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, items)


def _settle(items: Sequence[_Item]) -> None:
    for item in items:
        item.settle()
