"""Crowd: several processes at one socket, of which none takes all the connections.

Of those that wait at a socket the first to wake takes a whole burst, and its clients come again on
the same connections: one core works, and the others look on. So the processes of a hub tell each
other how many they have, and who has more than another one gives way for a moment.
"""

import asyncio
import mmap
import socket
from collections.abc import Callable

#: As long as another process may need to wake; then whoever is there takes the connection.
_MOMENT_SECONDS = 0.002
#: After a failure to take one, as when no file is left.
_PAUSE_SECONDS = 0.5


class Crowd:
    """Counts in memory that forks share; made before them."""

    def __init__(self, processes: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 8 * processes)).cast("q")
        self._place = 0

    def join(self, place: int) -> None:
        """Be the process of this place, whose last one may have died with connections."""
        self._place = place
        self._counts[place] = 0

    def add(self, number: int) -> None:
        self._counts[self._place] += number

    @property
    def own(self) -> int:
        return self._counts[self._place]

    @property
    def fewest(self) -> int:
        return min(self._counts)


class Acceptor:
    """Takes connections of a listening socket, in place of asyncio's server.

    `make` makes a protocol for each, which calls `crowd.add(-1)` when its connection is lost.
    """

    def __init__(
        self, sock: socket.socket, make: Callable[[], asyncio.Protocol], crowd: Crowd
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._make = make
        self._crowd = crowd
        self._loop = asyncio.get_running_loop()
        self._taking: set[asyncio.Task[object]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._has_given_way = False
        self._loop.add_reader(sock, self._take)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._resuming is not None:
            self._resuming.cancel()

    async def wait_closed(self) -> None:
        """There is nothing to wait for: uvicorn ends the connections itself."""

    def _take(self) -> None:
        """One connection; the loop comes again while there are more, and so do other processes."""
        if not self._has_given_way and self._crowd.own > self._crowd.fewest:
            self._has_given_way = True
            self._rest(_MOMENT_SECONDS)
            return
        self._has_given_way = False
        try:
            conn, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._rest(_PAUSE_SECONDS)
            return
        conn.setblocking(False)
        self._crowd.add(1)
        task = self._loop.create_task(self._connect(conn))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _connect(self, conn: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, conn)
        except OSError:
            # Gone before it was here.
            self._crowd.add(-1)
            conn.close()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._resuming = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._take)
