"""Whole answers of FastAPI's, kept for as long as nothing changes: pages, boards, analyses.

Any commit of any process ends them, and so does the passing of a few seconds, as they tell ages.
Who asks for the same meanwhile waits for the one that is being made.
"""

import asyncio
import re
from asyncio import Semaphore as Turns
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.deps import Hub
from server.hot.answers import Header, Memory, tag
from server.settings import Pages

#: So old may ages be that an answer tells.
SECONDS = 5
#: Longer ones are passed on as they come.
ANSWER_BYTES = 8 * 2**20
#: Answers that are made at once, the others in the order they came. All of it is work of the
#: interpreter: more at a time would take as long in all, some of them much longer than others, and
#: each its memory.
AT_ONCE = 2
#: What an answer takes beside its body and key.
_OVERHEAD_BYTES = 1_500
#: The same for every caller; none of them is a stream, a download, or drawn by lot.
_API = re.compile(
    r"/api/(?:tracks|leaderboard|progress|analysis|brief|frontier|results|runs(?:/\d+)?|search"
    r"|git/dag|git/tree/.+|git/commits/[0-9a-f]+/similar)"
)
_PAGES = re.compile(
    r"/(?:|fragments/overview|dag(?:/.*)?|commits(?:/.*)?|compare/.+|channels(?:/.*)?|posts/.+"
    r"|agents(?:/.*)?|workers(?:/.*)?|runs/.+|tracks/.+|progress\.(?:svg|png)|leaderboard|results"
    r"|search)"
)
_DRAWN = (b"random", b"thompson")
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Whole:
    headers: list[Header]
    body: bytes
    etag: bytes

    @property
    def size(self) -> int:
        return len(self.body) + _OVERHEAD_BYTES


class WholeAnswers:
    """An ASGI middleware in front of FastAPI."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub
        self._memory: Memory[_Whole] = Memory()
        self._making: dict[Any, asyncio.Future[_Whole | None]] = {}
        # A semaphore is of one event loop, too: one for answers, one for those that may wait.
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Turns, Turns]]
        self._turns = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._may_keep(scope):
            await self._app(scope, receive, send)
            return
        version = self._version()
        key = _key(scope)
        found = self._memory.get(key, version)
        # A future is of one event loop; tests have several.
        place = asyncio.get_running_loop(), key, version
        if found is None and (making := self._making.get(place)) is not None:
            found = await asyncio.shield(making)
        if found is not None:
            await _send(found, scope, send)
            return
        whole = await self._make(place, scope, receive, send)
        if whole is not None:
            self._memory.put(key, version, whole)
            await _send(whole, scope, send)

    def _may_keep(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET":
            return False
        path, headers = scope["path"], dict(scope["headers"])
        if _API.fullmatch(path):
            return not any(word in scope["query_string"] for word in _DRAWN) and self._knows(
                headers
            )
        is_public = self._hub.settings.pages is Pages.PUBLIC
        # A page of somebody logged in has their name and their forms in it.
        return is_public and b"cookie" not in headers and bool(_PAGES.fullmatch(path))

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the caller's key is in memory; FastAPI looks up or refuses the others."""
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return False
        return self._hub.keys.find(key.strip(), self._hub.topics.read()) is not None

    def _version(self) -> Version:
        return self._hub.topics.count_moves(), int(self._hub.now().timestamp()) // SECONDS

    def _turn(self, scope: Scope) -> Turns:
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            self._turns[loop] = Turns(AT_ONCE), Turns(AT_ONCE)
        # Who asks for what is similar may have to wait until it is read.
        return self._turns[loop][scope["path"].endswith("/similar")]

    async def _make(self, place: Any, scope: Scope, receive: Receive, send: Send) -> _Whole | None:
        """None for an answer that cannot be kept, which is sent by then."""
        making = asyncio.get_running_loop().create_future()
        self._making[place] = making
        async with AsyncExitStack() as turn:
            recorder = _Recorder(send, turn)
            try:
                await turn.enter_async_context(self._turn(scope))
                # A 304 of the route's own could not be kept.
                headers = [pair for pair in scope["headers"] if pair[0] != b"if-none-match"]
                await self._app({**scope, "headers": headers}, receive, recorder.send)
            finally:
                del self._making[place]
                making.set_result(recorder.whole)
        return recorder.whole


class _Recorder:
    """Holds an answer back while it may be kept; any other goes on as it comes, and gives the turn
    up: its client may take its time."""

    def __init__(self, send: Send, turn: AsyncExitStack) -> None:
        self._on = send
        self._turn = turn
        self._start: Message | None = None
        self._body = bytearray()
        self.whole: _Whole | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        if self._start is None:
            await self._turn.aclose()
            await self._on(message)
            return
        self._body += message.get("body", b"")
        if len(self._body) > ANSWER_BYTES:
            await self._turn.aclose()
            await self._on(self._start)
            self._start = None
            await self._on({**message, "body": bytes(self._body)})
        elif not message.get("more_body", False):
            headers = list(self._start["headers"])
            body = bytes(self._body)
            etag = next((value for name, value in headers if name == b"etag"), b"")
            if not etag:
                etag = tag(body)
                headers.append((b"etag", etag))
            self.whole = _Whole(headers, body, etag)


def _key(scope: Scope) -> Any:
    """What an answer depends on: also the names of this hub, which some have in them."""
    headers = dict(scope["headers"])
    packs = b"gzip" in headers.get(b"accept-encoding", b"")
    host = headers.get(b"host", b"")
    return scope["raw_path"], scope["query_string"], packs, host, scope["scheme"]


async def _send(whole: _Whole, scope: Scope, send: Send) -> None:
    known = dict(scope["headers"]).get(b"if-none-match", b"")
    if whole.etag in known or known.strip() == b"*":
        left_out = (b"content-length", b"content-type", b"content-encoding")
        headers = [pair for pair in whole.headers if pair[0] not in left_out]
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": whole.headers})
    await send({"type": "http.response.body", "body": whole.body})
