"""Many who listen to the live feed: how long until the last one has an event."""

import asyncio
import resource
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.hub import client
from bench.hub.directory import AGENT_KEY, CHANNELS
from bench.hub.table import Figures

_ROUNDS = 5
_CONNECTED_AT_ONCE = 100
_LIMIT_SECONDS = 60.0


def raise_open_files() -> int:
    """Let this process and those it starts have as many open files as allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Listeners:
    """Open streams; a context manager."""

    def __init__(self, url: str, count: int) -> None:
        self._where = urlsplit(url)
        self._count = count
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._open: list[_Listener] = []

    def __enter__(self) -> "Listeners":
        self._runner.run(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            one.close()
        self._runner.close()

    def fan_out(self) -> Figures:
        """Each listener's wait for a post, from before it is posted; the last one is `seconds`."""
        return self._runner.run(self._fan_out())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, self._count, _CONNECTED_AT_ONCE):
            opening = [
                loop.create_connection(_Listener, self._where.hostname, self._where.port)
                for _ in range(min(_CONNECTED_AT_ONCE, self._count - start))
            ]
            made = [protocol for _, protocol in await asyncio.gather(*opening)]
            async with asyncio.timeout(_LIMIT_SECONDS):
                await asyncio.gather(*(one.ready for one in made))
            self._open += made

    async def _fan_out(self) -> Figures:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        last, missed = 0.0, 0
        for number in range(_ROUNDS):
            waits = [one.expect() for one in self._open]
            began = time.perf_counter()
            _, poster = await loop.create_connection(
                _Poster, self._where.hostname, self._where.port
            )
            poster.post(number)
            done, pending = await asyncio.wait(waits, timeout=_LIMIT_SECONDS)
            missed += len(pending)
            took = [each.result() - began for each in done]
            times += took
            last = max([last, *took])
            await asyncio.sleep(0.5)
        return client.summarise(times, missed, last)


class _Listener(asyncio.Protocol):
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[float] = loop.create_future()
        self._waiter: asyncio.Future[float] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        transport.write(client.request("GET", "/api/events/stream", AGENT_KEY))

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            if b"event: position" in data:
                self.ready.set_result(0.0)
        elif b'"kind":"post"' in data and not self._waiter.done():
            self._waiter.set_result(time.perf_counter())

    def expect(self) -> asyncio.Future[float]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def close(self) -> None:
        self._transport.abort()


class _Poster(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def post(self, number: int) -> None:
        body = b'{"content": "for all to hear, %d"}' % number
        path = f"/api/channels/{CHANNELS[0]}/posts"
        self._transport.write(client.request("POST", path, AGENT_KEY, body))

    def data_received(self, _: bytes) -> None:
        self._transport.close()
