"""Serving: one process, or several behind one socket, which a supervisor keeps alive.

The supervisor opens nothing of the hub. It forks the workers, so each has everything imported
from its first moment on, starts another one for each that dies, and passes on the signal to stop.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from server.app import open_app
from server.crowd import Acceptor, Crowd
from server.memory import bind_allocator
from server.settings import Settings

log = logging.getLogger("agenthub")

#: Connections that may wait to be taken: as many as Linux allows by default.
BACKLOG = 4096
#: What requests in progress are given when the hub stops; seconds.
PATIENCE_SECONDS = 3
#: A worker that has not ended so long after it was told to is killed.
_STOP_SECONDS = 15.0
#: Between two workers in the same place, when the first one lived no longer than this.
_PAUSE_SECONDS = 1.0
#: A client that takes nothing of its answer for this long is cut off; seconds.
STALL_SECONDS = 60
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HEEDED_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)


def serve(settings: Settings, sock: socket.socket, workers: int, trusted_proxies: str) -> None:
    """Answer what comes to a listening socket until a signal says stop, which is then raised.

    The directory must be prepared.
    """
    _raise_file_limit()
    _cut_off_stalled(sock)
    bind_allocator()

    if workers == 1:
        _run(open_app(settings), sock, trusted_proxies)
        return
    crowd = Crowd(workers)

    def work(place: int) -> None:
        crowd.join(place)
        _run(open_app(settings), sock, trusted_proxies, crowd)

    Supervisor(work, workers).run()


def _run(
    app: FastAPI, sock: socket.socket, trusted_proxies: str, crowd: Crowd | None = None
) -> None:
    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            if crowd is None:
                await super().startup(sockets)
                return
            await super().startup([])
            make = _count_on(crowd, self)
            self.servers = [Acceptor(sock, make, crowd)]  # type: ignore[list-item]

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Else uvicorn would wait in vain for its streams to end.
            app.state.hub.feed.close()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        # Long polls would otherwise hold a stopping hub open.
        timeout_graceful_shutdown=PATIENCE_SECONDS,
    )
    Server(config).run(sockets=[sock])


def _count_on(crowd: Crowd, server: uvicorn.Server) -> Callable[[], asyncio.Protocol]:
    """Make uvicorn's protocols as its own startup does, but such that tell when they have ended."""

    class Counted(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_lost(self, error: Exception | None) -> None:
            crowd.add(-1)
            super().connection_lost(error)

    def make() -> asyncio.Protocol:
        state, app_state = server.server_state, server.lifespan.state
        return Counted(config=server.config, server_state=state, app_state=app_state)

    return make


def _raise_file_limit() -> None:
    """Each listener holds a file open, and the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems say there is no limit and refuse to have none.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cut_off_stalled(sock: socket.socket) -> None:
    """Else the rest of an answer waits in memory for as long as a client that stalls holds on.

    Connections inherit it from the socket that they come to. Only Linux has it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_SECONDS * 1000)


# Several processes ------------------------------------------------------------------------------


class Supervisor:
    """Keeps `count` processes at work, each a fork of this one that calls `work` with its place."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self._work = work
        self._places = set(range(count))
        #: When each worker was started, and its place, by its process id.
        self._workers: dict[int, tuple[float, int]] = {}
        self._signals = Signals()
        # Only this process can write to it, so workers see its end when it dies.
        self._lifeline, self._hold = os.pipe()

    def run(self) -> None:
        # What no collection touches stays shared with the workers.
        gc.collect()
        gc.freeze()
        with self._signals:
            stop = self._keep_alive()
            self._end()
        if stop is None:
            sys.exit(STARTUP_FAILURE)
        # So this process ends as one that serves alone does.
        signal.raise_signal(stop)

    def _keep_alive(self) -> int | None:
        """Until a signal says stop, which is returned; None if the hub cannot be started."""
        began = due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                for place in self._free_places():
                    self._start(place)
            is_full = not self._free_places()
            for got in self._signals.wait(None if is_full else due - time.monotonic()):
                if got in _STOP_SIGNALS:
                    return got
            for pid, status, started in self._reap():
                now = time.monotonic()
                has_failed = now - started < _PAUSE_SECONDS
                log.error("worker process %d ended (%s)", pid, _describe(status))
                if status == STARTUP_FAILURE and now - began < _STOP_SECONDS:
                    return None
                due = now + _PAUSE_SECONDS if has_failed else now

    def _free_places(self) -> set[int]:
        return self._places - {place for _, place in self._workers.values()}

    def _start(self, place: int) -> None:
        # A signal that comes in between must not meet this process's handlers in the worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_worker(place)
        self._workers[pid] = time.monotonic(), place
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED_SIGNALS)

    def _be_worker(self, place: int) -> NoReturn:
        status = STARTUP_FAILURE
        try:
            self._signals.forget()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED_SIGNALS)
            os.close(self._hold)
            threading.Thread(target=_die_with, args=[self._lifeline], daemon=True).start()
            self._work(place)
            status = 0
        except KeyboardInterrupt:
            # The terminal tells every process of a Ctrl-C.
            status = 0
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
        except Exception:
            log.exception("a worker process failed")
        finally:
            os._exit(status)

    def _reap(self) -> list[tuple[int, int, float]]:
        """Forget the workers that have ended; return their ids, exit codes, and starts."""
        ended = [os.waitpid(pid, os.WNOHANG) for pid in self._workers]
        return [
            (pid, os.waitstatus_to_exitcode(status), self._workers.pop(pid)[0])
            for pid, status in ended
            if pid
        ]

    def _end(self) -> None:
        """Have all workers end: in order, at once after a second Ctrl-C, or by force."""
        self._tell(signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        while self._workers:
            left = until - time.monotonic()
            if left <= 0:
                log.error("killing worker processes that did not stop: %s", list(self._workers))
                self._tell(signal.SIGKILL)
            if signal.SIGINT in self._signals.wait(max(left, 0.1)):
                self._tell(signal.SIGINT)
            self._reap()

    def _tell(self, what: signal.Signals) -> None:
        for pid in self._workers:
            os.kill(pid, what)


class Signals:
    """The signals a supervisor heeds, to be waited for; elsewhere they do what they did before."""

    def __enter__(self) -> "Signals":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _heed) for number in _HEEDED_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def forget(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float | None) -> list[int]:
        """What came, or nothing after so many seconds; None waits for ever."""
        timeout = None if seconds is None else max(seconds, 0)
        readable, _, _ = select.select([self._reader], [], [], timeout)
        return list(self._reader.recv(4096)) if readable else []


def _heed(_: int, __: object) -> None:
    """Python writes to the socket only for signals that have a handler."""


def _die_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    # Whoever killed the supervisor, and it alone, wants to be rid of the hub.
    os._exit(1)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return signal.strsignal(-code) or f"signal {-code}"
