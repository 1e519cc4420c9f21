"""An HTTP client that costs little: prepared requests in, statuses and times out.

For what wrk cannot do: bodies that must not repeat, and calls that follow from an answer.
"""

import asyncio
import time
from collections.abc import Callable
from statistics import quantiles
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.hub.table import Figures

#: The next request of a connection, given its last answer's status and body; None ends it.
Next = Callable[[int, int, bytes], bytes | None]


def request(
    method: str, path: str, key: str, body: bytes = b"", kind: str = "application/json"
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: hub",
        f"Authorization: Bearer {key}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(url: str, connections: int, seconds: float, following: Next) -> Figures:
    """Call for so long; `following` gets the connection's number, and status 0 at first."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(url, connections, seconds, following))


async def _drive(url: str, connections: int, seconds: float, following: Next) -> Figures:
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    open_ones = [
        (await loop.create_connection(lambda: _Connection(), where.hostname, where.port))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    for number, one in enumerate(open_ones):
        one.begin(number, following, began + seconds)
    await asyncio.gather(*(one.done for one in open_ones))
    took = max(one.ended for one in open_ones) - began
    times = [each for one in open_ones for each in one.times]
    errors = sum(one.errors for one in open_ones)
    for one in open_ones:
        one.close()
    return summarise(times, errors, took)


def summarise(times: list[float], errors: int, seconds: float) -> Figures:
    cuts = quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99 or [0] * 99
    return Figures(len(times), seconds, cuts[49] * 1000, cuts[98] * 1000, errors)


class _Connection(asyncio.Protocol):
    """One call after the other."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.errors = 0
        self.ended = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        #: Bytes of the whole answer; 0 while its head is not there.
        self._whole = 0
        self._head = 0
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own is no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, number: int, following: Next, until: float) -> None:
        self._number, self._following, self._until = number, following, until
        self._send(0, b"")

    def close(self) -> None:
        self._transport.close()

    def _send(self, status: int, body: bytes) -> None:
        now = time.perf_counter()
        told = self._following(self._number, status, body) if now < self._until else None
        if told is None:
            self._end(now)
            return
        self._sent = now
        self._transport.write(told)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._whole:
            self._read_head()
        if self._whole and len(self._buffer) >= self._whole:
            body = bytes(self._buffer[self._head : self._whole])
            del self._buffer[: self._whole]
            self._whole = 0
            self.times.append(time.perf_counter() - self._sent)
            self.errors += self._status >= 400
            self._send(self._status, body)

    def _read_head(self) -> None:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            return
        head = bytes(self._buffer[:at]).lower()
        self._status = int(head[9:12])
        self._head = at + 4
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        self._whole = self._head + int(length or 0)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.errors += 1
            self._end(time.perf_counter())

    def _end(self, now: float) -> None:
        self.ended = now
        if not self.done.done():
            self.done.set_result(None)
