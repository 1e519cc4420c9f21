"""Many listeners of the live feed: how long one event takes to reach them all, and the memory.

    python -m bench.listeners --listeners 5000 --workers 2

Each listener is a connection of its own. Meanwhile another client asks for the hub's health again
and again, and the longest it waited is told too. All clients share the machine with the hub.
"""

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from ah_cli.client import HubClient
from bench.serve import serve_hub

#: Connections opened at a time.
_OPENED = 100
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fanout:
    """Milliseconds from the event's request until so many listeners had it."""

    first: float
    median: float
    last: float
    #: The longest that another request took meanwhile.
    other: float


class Crowd:
    """Listeners that note when the event looked for came."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._request = f"GET /live HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._transports: list[asyncio.Transport] = []
        self.lost = 0
        self.expect(b"event: position\n")

    def expect(self, wanted: bytes) -> None:
        self.wanted = wanted
        self.heard: list[float] = []
        self._is_known = asyncio.Event()

    def hear(self) -> None:
        self.heard.append(time.perf_counter())
        if len(self.heard) == self._count:
            self._is_known.set()

    async def open(self, count: int) -> None:
        """Connect, and return when each listener knows where it begins."""
        loop = asyncio.get_running_loop()
        self._count = count
        for start in range(0, count, _OPENED):
            made = (
                loop.create_connection(partial(_Listener, self), self._host, self._port)
                for _ in range(min(_OPENED, count - start))
            )
            for transport, _ in await asyncio.gather(*made):
                transport.write(self._request)
                self._transports.append(transport)
        await self.all_heard()

    async def all_heard(self) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._is_known.wait()

    def close(self) -> None:
        for transport in self._transports:
            transport.abort()


class _Listener(asyncio.Protocol):
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        # A line may come in two pieces.
        self._seen = self._seen[-100:] + data
        if self._crowd.wanted in self._seen:
            self._crowd.hear()
            self._seen = b""

    def connection_lost(self, _: Exception | None) -> None:
        self._crowd.lost += 1


async def measure(client: HubClient, count: int, events: int) -> list[Fanout]:
    """What each of some events took; there must be a channel `bench`, and nothing else going on."""
    crowd = Crowd(client.url)
    try:
        await crowd.open(count)
        found = [await _tell(client, crowd) for _ in range(events)]
    finally:
        crowd.close()
    if crowd.lost:
        raise RuntimeError(f"{crowd.lost} listeners were lost")
    return found


async def _tell(client: HubClient, crowd: Crowd) -> Fanout:
    crowd.expect(b'"kind":"post"')
    is_over = threading.Event()
    probing = asyncio.create_task(asyncio.to_thread(_probe, client.url, is_over))
    began = time.perf_counter()
    await asyncio.to_thread(client.create_post, "bench", "hello")
    await crowd.all_heard()
    is_over.set()
    waits = [1000 * (moment - began) for moment in crowd.heard]
    return Fanout(min(waits), statistics.median(waits), max(waits), await probing)


def _probe(url: str, is_over: threading.Event) -> float:
    longest = 0.0
    with HubClient(url) as client:
        while not is_over.wait(0.01):
            began = time.perf_counter()
            client.health()
            longest = max(longest, time.perf_counter() - began)
    return 1000 * longest


def read_memory() -> float:
    """MiB held by the hub's processes, which descend from this one; what they share counts once."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(row[0]): int(row[1]) for row in map(str.split, listed.splitlines())}
    family = [os.getpid()]
    for one in family:
        family += [pid for pid, parent in parents.items() if parent == one]
    held = 0
    for pid in family[1:]:
        with suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            held += int(rollup.split("Pss:")[1].split()[0])
    return held / 1024


async def _report(admin: HubClient, listeners: int, events: int) -> None:
    key = admin.create_agent("bench").api_key
    with HubClient(admin.url, key) as client:
        client.create_channel("bench")
        before = read_memory()
        crowd = Crowd(admin.url)
        await crowd.open(listeners)
        held = read_memory()
        crowd.close()
        print(f"memory: {before:.0f} MiB, {held:.0f} MiB with {listeners:,} listeners")
        print("ms: first, median, last listener; longest health meanwhile")
        for each in await measure(client, listeners, events):
            print(f"{each.first:8.0f} {each.median:8.0f} {each.last:8.0f} {each.other:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=5000)
    parser.add_argument("--events", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < given.listeners + 100:
        parser.error(f"only {most} files may be open at once: raise `ulimit -Hn`")
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_hub(Path(folder), "--workers", str(given.workers)) as admin,
    ):
        asyncio.run(_report(admin, given.listeners, given.events))


if __name__ == "__main__":
    main()
