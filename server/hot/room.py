"""The room in front of FastAPI: an ASGI middleware that answers the hot calls itself.

A read costs a key looked up in memory, a look whether anything was committed, and either bytes
from memory or one small query on the event loop's own connection; long lists are read by a worker
thread. Callers it does not know, paths and queries it does not understand go on to FastAPI.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import agents, errors, wire
from server.db import Connection
from server.deps import Hub, unless_gone
from server.hot import board, git, writes
from server.hot.answers import Answer, Header, Memory
from server.hot.calls import LOOP_ROWS, Call, NotHot, Route, Table, Write
from server.hot.large import Builder, Stream, to_chunks, version_tag
from server.topics import Versions

#: Larger bodies are compressed by a worker thread.
_PACKED_INLINE_BYTES = 32_768
_CACHING: list[Header] = [(b"cache-control", b"private, no-cache"), (b"vary", b"accept-encoding")]


class HotRoom:
    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub
        self._routes = Table()
        for calls in (git, board, writes):
            calls.add_to(self._routes)
        self._memory: Memory[Answer] = Memory()
        self._builder = Builder(hub, self._memory)
        # One event loop never waits for it; tests have several.
        self._lock = threading.Lock()
        self._conn = hub.db.open_reader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, self._closing(receive), send)
            return
        found = self._find_route(scope)
        versions = self._hub.topics.read() if found else {}
        agent = self._find_agent(scope, versions) if found else None
        if found is None or agent is None:
            await self._app(scope, receive, send)
            return
        route, path = found
        call = Call(self._hub, scope, agent, path)
        try:
            if route.write is not None:
                await self._write(route.write, call, receive, send)
            else:
                await self._read(route, call, route.held(versions), receive, send)
        except NotHot:
            await self._app(scope, receive, send)
        except errors.HubError as error:
            await _send(Answer.refuse(error), scope, send)

    def _closing(self, receive: Receive) -> Receive:
        """Before the hub closes its database, or SQLite would leave its log behind."""

        async def close() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._conn.close()
            return message

        return close

    def _find_route(self, scope: Scope) -> tuple[Route, dict[str, str]] | None:
        if scope["type"] != "http":
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        return self._routes.find(method, scope["path"])

    def _find_agent(self, scope: Scope, versions: Versions) -> agents.Agent | None:
        """Who calls; None for those whom FastAPI shall refuse."""
        scheme, _, key = _header(scope, b"authorization").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        keys, key = self._hub.keys, key.strip()
        agent = keys.find(key, versions)
        if agent is None and key:
            with self._lock, suppress(errors.Unauthorized, errors.Forbidden):
                return keys.load(self._conn, key, versions)
        return agent

    async def _write(self, write: Write, call: Call, receive: Receive, send: Send) -> None:
        try:
            call.body = await _read_body(receive)
        except ClientDisconnect:
            return
        try:
            answer = Answer.of(await write(call))
        except NotHot:
            await self._app(call.scope, _replay(call.body, receive), send)
        else:
            await _send(answer, call.scope, send)

    # Reads --------------------------------------------------------------------------------------

    async def _read(
        self, route: Route, call: Call, held: tuple[int, ...], receive: Receive, send: Send
    ) -> None:
        scope = call.scope
        # Links to further pages name the host, the same one in nearly all keys.
        host = sys.intern(_header(scope, b"host").decode("latin-1"))
        key = scope["path"], scope["query_string"], host, scope["scheme"]
        answer = self._memory.get(key, held)
        known = _header(scope, b"if-none-match")
        if answer is None and held and known and (etag := version_tag(key, held)) in known:
            # A streamed list, of which not even the beginning has to be read.
            await _send_unchanged(etag, send)
            return
        if answer is None:
            answer = self._make(route, call, key, held)
        if answer is None:
            answer = await self._builder.build(route, call, key)
        if answer is None:
            await self._stream(route, call, version_tag(key, held), receive, send)
            return
        if answer.is_worth_packing and _takes_gzip(scope):
            answer = await self._pack(answer, key, held)
        await _send(answer, scope, send)

    async def _stream(
        self, route: Route, call: Call, etag: bytes, receive: Receive, send: Send
    ) -> None:
        if etag in _header(call.scope, b"if-none-match"):
            await _send_unchanged(etag, send)
            return
        async with self._builder.streams:
            stream = await self._builder.open(route, call)
            await unless_gone(receive, _send_stream(stream, etag, call.scope, send))

    def _make(self, route: Route, call: Call, key: Any, held: Any) -> Answer | None:
        """On the event loop; None where that would take too long."""
        with self._lock, _autocommit(self._conn):
            if route.read is not None:
                answer = Answer.of(route.read(self._conn, call))
            elif route.read_all is not None:
                first = next(route.read_all(self._conn, call, LOOP_ROWS))
                if len(first) == LOOP_ROWS:
                    return None
                answer = Answer(200, b"".join(to_chunks([first])))
        if held:
            self._memory.put(key, held, answer)
        return answer

    async def _pack(self, answer: Answer, key: Any, held: Any) -> Answer:
        packed = self._memory.get((key, "gzip"), answer.etag)
        if packed is None:
            if len(answer.body) > _PACKED_INLINE_BYTES:
                packed = await run_sync(answer.pack)
            else:
                packed = answer.pack()
            if held:
                self._memory.put((key, "gzip"), answer.etag, packed)
        return packed


@contextmanager
def _autocommit(conn: Connection) -> Iterator[None]:
    """Leave no transaction behind, which would go on to see the past."""
    try:
        yield
    finally:
        if conn.in_transaction():
            conn.rollback()


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            text: bytes = value
            return text
    return b""


def _takes_gzip(scope: Scope) -> bool:
    return b"gzip" in _header(scope, b"accept-encoding")


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    headers, body = answer.headers, answer.body
    if answer.status == 200:
        if answer.is_known(_header(scope, b"if-none-match")):
            await _send_unchanged(answer.etag, send)
            return
        headers = [*headers, (b"etag", answer.etag), *_CACHING]
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_unchanged(etag: bytes, send: Send) -> None:
    headers = [(b"etag", etag), *_CACHING]
    await send({"type": "http.response.start", "status": 304, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_stream(stream: Stream, etag: bytes, scope: Scope, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"etag", etag), *_CACHING]
    if _takes_gzip(scope):
        stream.pack()
        headers.append((b"content-encoding", b"gzip"))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        else:
            await stream.send(send)
    finally:
        await stream.close()


async def _read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > wire.JSON_BODY_BYTES:
            raise errors.TooLarge(f"JSON bodies are at most {wire.JSON_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, for whoever is asked next; then what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
