"""Lists of any length: read in pages by a worker thread, kept whole, or streamed if too large."""

import asyncio
import itertools
import json
import logging
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.types import Send

from server import wire
from server.deps import Hub
from server.hot.answers import GZIP_FORMAT, GZIP_LEVEL, Answer, Memory, tag, to_json
from server.hot.calls import Call, Fields, Route

log = logging.getLogger("agenthub")

#: Rows read at once; the threads of a process take turns after some milliseconds.
PAGE = 500
#: Lists of more bytes than that are sent as they are read, and not kept.
WHOLE_BYTES = 23 * 2**19
#: A client that takes nothing of a stream for this long is given up; seconds.
STALL_SECONDS = 15.0
#: Threads that may read or wait for large lists, and streams under way.
_THREADS = 8
_STREAMS = 32
#: Lists known to be too large, of which nobody tries to keep the whole again.
_HUGE_KEPT = 1_000

#: Answers of another hub's version may have other fields under the same versions of the topics.
_SHAPE = json.dumps(wire.Commit.model_json_schema()).encode()


class Stream:
    """A list on its way: chunks of JSON, to be closed in the end."""

    def __init__(self, chunks: Iterable[bytes], source: Generator[bytes, None, None]) -> None:
        self._chunks = iter(chunks)
        self._source = source
        self._packer: Any = None
        self._reading: asyncio.Future[bytes | None] | None = None

    def pack(self) -> None:
        """Compress what follows."""
        self._packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT)
        self._chunks = self._packed(self._chunks)

    def _packed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield self._packer.compress(chunk)
        yield self._packer.flush()

    async def send(self, send: Send) -> None:
        try:
            while (chunk := await self._next()) is not None:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("a client took nothing for %s s and was given up", STALL_SECONDS)

    async def _next(self) -> bytes | None:
        self._reading = asyncio.ensure_future(run_sync(next, self._chunks, None))
        # Its thread goes on whoever is cancelled, and what it reads cannot be closed meanwhile.
        return await asyncio.shield(self._reading)

    async def close(self) -> None:
        """End the snapshot that it is read in."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await run_sync(self._source.close)


def version_tag(key: tuple[Any, ...], held: tuple[int, ...]) -> bytes:
    """The ETag of a list that nobody has whole: of the versions it is made of."""
    return tag(_SHAPE, repr((key[0], key[1], held)).encode())


class Builder:
    """Makes the answers: one at a time, and once for all who asked before it began."""

    def __init__(self, hub: Hub, memory: Memory[Answer]) -> None:
        self._hub = hub
        self._memory = memory
        self._turn = threading.Lock()
        self._moments = itertools.count(1)
        self._threads = CapacityLimiter(_THREADS)
        self.streams = CapacityLimiter(_STREAMS)
        self._huge: dict[Any, None] = {}

    async def build(self, route: Route, call: Call, key: Any) -> Answer | None:
        """The whole answer; None if it is too large."""
        asked = next(self._moments)
        if key in self._huge:
            return None
        return await run_sync(self._build, route, call, key, asked, limiter=self._threads)

    async def open(self, route: Route, call: Call) -> Stream:
        """In `streams`, which bounds how many there are."""
        return await run_sync(self._open, route, call)

    def _build(self, route: Route, call: Call, key: Any, asked: int) -> Answer | None:
        with self._turn:
            if key in self._huge:
                return None
            newest = self._memory.get_newest(key)
            if newest is not None and newest.made > asked:
                return newest
            made = next(self._moments)
            # Before the snapshot, which is as new or newer.
            held = route.held(self._hub.topics.read())
            parts, size = [], 0
            for chunk in self._read(route, call):
                parts.append(chunk)
                size += len(chunk)
                if size > WHOLE_BYTES:
                    self._note_huge(key)
                    return None
            answer = Answer(200, b"".join(parts))
            answer.made = made
            self._memory.put(key, held, answer)
            return answer

    def _open(self, route: Route, call: Call) -> Stream:
        source = self._read(route, call)
        # What is to be refused is, before anything was sent.
        return Stream(itertools.chain([next(source)], source), source)

    def _read(self, route: Route, call: Call) -> Generator[bytes, None, None]:
        if route.read_all is None:
            raise TypeError("not a list")
        # One snapshot: a list of several could miss what moved between its pages.
        with self._hub.db.read() as conn:
            yield from to_chunks(route.read_all(conn, call, PAGE))

    def _note_huge(self, key: Any) -> None:
        if len(self._huge) >= _HUGE_KEPT:
            self._huge.clear()
        self._huge[key] = None


def to_chunks(pages: Iterable[list[Fields]]) -> Iterator[bytes]:
    """One JSON array of all pages."""
    lead = b"["
    for page in pages:
        if page:
            yield lead + to_json(page)[1:-1]
            lead = b","
    yield b"[]" if lead == b"[" else b"]"
