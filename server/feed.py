"""The feed: the event log as it grows, sent to any number of listeners of this process.

One task reads the log while somebody listens, woken by the bell. Each event is formatted once and
kept for a while; a listener is only a position in the log, so a slow one costs no memory and one
that comes back misses nothing: what is no longer kept comes from the database.
"""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server import events, wire
from server.db import Connection, Database
from server.events import Bell

log = logging.getLogger("agenthub")
T = TypeVar("T")

#: Events kept in memory, and read from the database at once.
KEPT = 1000
#: Seconds between two looks at the log when no bell rings, in case one was missed.
LOOK_SECONDS = 1.0
#: Events that come within this time of each other go out together, seconds.
GATHER_SECONDS = 0.06
#: Listeners woken at a time, so that other requests get their turn in between.
WOKEN = 100
#: Silence after which a comment is sent, so that proxies keep the connection; seconds.
HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b":\n\n"
#: A listener that takes nothing for this long is dropped; it may come back. Seconds.
STALL_SECONDS = 15.0


class Feed:
    """Events for listeners of one event loop; they end when it is closed."""

    def __init__(self, db: Database, bell: Bell) -> None:
        self._db = db
        self._bell = bell
        self._ids: list[int] = []
        self._chunks: list[bytes] = []
        #: The newest event known; listeners that are here wait.
        self._last: int | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._listeners = 0
        self._reader: asyncio.Task[None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """End all streams. Call it in the event loop."""
        self._is_closed = True
        self._bell.ring()
        for waiter in self._take_waiters():
            _wake(waiter)

    async def follow(self, after: int | None) -> AsyncGenerator[bytes, None]:
        """Server-sent events with a higher id than `after`, then those that come.

        None begins with what comes. Ends only when the feed is closed.
        """
        self._listeners += 1
        try:
            position = await self._begin(after)
            # Tells where it begins, so that a page can come back before anything happened.
            yield f"retry: 1000\nid: {position}\nevent: position\ndata: {position}\n\n".encode()
            while not self._is_closed:
                if position < (self._last or 0):
                    position, chunk = await self._read_after(position)
                    yield chunk
                elif not await self._wait():
                    yield HEARTBEAT
        finally:
            self._listeners -= 1

    async def _begin(self, after: int | None) -> int:
        if self._reader is None or self._reader.done():
            # What happened while nobody listened was not read.
            self._ids, self._chunks, self._last = [], [], None
            self._reader = asyncio.create_task(self._read())
        while self._last is None and not self._is_closed:
            await self._wait()
        if after is None:
            # Asked anew: a reader that is about to end may not have looked lately.
            return await self._ask(events.find_last)
        if self._last is None or after <= self._last:
            return after
        # Not read yet, or given out before the log was restored from a backup.
        return min(after, await self._ask(events.find_last))

    async def _wait(self) -> bool:
        """Whether something came before the heartbeat is due."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.pop(waiter, None)
        return True

    # The log ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self._listeners and not self._is_closed:
            rings = self._bell.rings
            try:
                is_new = await self._look()
            except SQLAlchemyError as error:
                log.warning("the event log cannot be read, trying again: %s", error)
                is_new = False
            if is_new:
                await self._wake_all()
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await self._bell.wait(LOOK_SECONDS, rings)

    async def _look(self) -> bool:
        if self._last is None:
            self._last = await self._ask(events.find_last)
            return True
        fresh = await self._ask(partial(events.list_after, after=self._last, limit=KEPT))
        if fresh:
            self._keep(fresh)
        return bool(fresh)

    def _keep(self, fresh: Sequence[wire.Event]) -> None:
        self._ids = [*self._ids, *(event.id for event in fresh)][-KEPT:]
        self._chunks = [*self._chunks, *map(format_event, fresh)][-KEPT:]
        self._last = fresh[-1].id

    async def _read_after(self, position: int) -> tuple[int, bytes]:
        """The next events and the id of the last of them; from memory if none is missing there."""
        if self._ids and position >= self._ids[0] - 1:
            start = bisect_right(self._ids, position)
            return self._ids[-1], b"".join(self._chunks[start:])
        found = await self._ask(partial(events.list_after, after=position, limit=KEPT))
        if not found:
            return self._last or position, b""
        return found[-1].id, b"".join(map(format_event, found))

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        def ask() -> T:
            with self._db.read() as conn:
                return question(conn)

        return await run_in_threadpool(ask)

    # Waking -------------------------------------------------------------------------------------

    def _take_waiters(self) -> list[asyncio.Future[None]]:
        waiters, self._waiters = list(self._waiters), {}
        return waiters

    async def _wake_all(self) -> None:
        waiters = self._take_waiters()
        for start in range(0, len(waiters), WOKEN):
            for waiter in waiters[start : start + WOKEN]:
                _wake(waiter)
            await asyncio.sleep(0)


def format_event(event: wire.Event) -> bytes:
    """As server-sent events have it: JSON has no line breaks, so one `data` line holds it.

    Without an `event` line, so that one handler of a browser gets every kind.
    """
    return f"id: {event.id}\ndata: {event.model_dump_json()}\n\n".encode()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# As an answer -----------------------------------------------------------------------------------


class EventStream(Response):
    """The feed as `text/event-stream`, until the client goes, stalls, or the hub stops."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, after: int | None) -> None:
        # Proxies would hold events back to fill a buffer.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._feed = feed
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        if scope.get("is_head"):
            await send({"type": "http.response.body", "body": b""})
            return
        tasks = asyncio.create_task(self._send(send)), asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._feed.follow(self._after)) as chunks:
            with suppress(TimeoutError):
                async for chunk in chunks:
                    async with asyncio.timeout(STALL_SECONDS):
                        message = {"type": "http.response.body", "body": chunk, "more_body": True}
                        await send(message)
                await send({"type": "http.response.body", "body": b""})
        # One that stalls sees its stream end in the middle.


def parse_position(*candidates: str | None) -> int | None:
    """The first that is the id of an event: `Last-Event-ID` or a query's; None when none is."""
    for text in candidates:
        if text and text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
    return None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
