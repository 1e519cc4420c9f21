"""`git clone <hub>/repo.git`: git's smart protocol over HTTP, for reading only."""

import asyncio
import logging
import threading
import zlib
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from server import clone, errors
from server.db import Database
from server.deps import Hub, TheHub, get_git_caller, unless_gone
from server.kept import kept
from server.topics import Topic

log = logging.getLogger("agenthub")

PATH = "/repo.git"
#: Lines of 50 bytes make the bulk of a request: wants, up to one for each leaf, and what the
#: client has, thousands at a time.
REQUEST_BYTES = 4 * 2**20
#: Lists of refs are some megabytes, and several times as much while one is made: one at a time, for
#: all who ask for it meanwhile.
_listing = threading.Lock()
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


async def refuse_push(request: Request) -> None:
    """Before anybody is asked for a key."""
    wanted = request.query_params.get("service"), request.url.path.rpartition("/")[2]
    if "git-receive-pack" in wanted:
        raise errors.Forbidden("this repository is read-only for git", "push with `ah push`")


router = APIRouter(
    prefix=PATH,
    dependencies=[Depends(refuse_push), Depends(get_git_caller)],
    include_in_schema=False,
)


@router.get("/info/refs")
def advertise(request: Request, hub: TheHub, service: str = "") -> Response:
    if service != "git-upload-pack":
        raise errors.NotFound("only git's smart protocol is spoken here", "use a newer git")
    if hub.upload_pack.has_v2 and _speaks_v2(request):
        body = clone.advertise()
    else:
        version = _version(hub)
        with _listing:
            body = _advertise(hub.db, version, tuple(hub.upload_pack.capabilities))
    return Response(body, headers=_NO_CACHE, media_type=f"application/x-{service}-advertisement")


@router.post("/git-upload-pack")
async def upload_pack(request: Request, hub: TheHub) -> Response:
    asked = clone.parse(await _read_body(request), _speaks_v2(request))
    return await run_in_threadpool(_answer, hub, asked)


@router.post("/git-receive-pack")
async def receive_pack() -> Response:
    raise RuntimeError("a push was not refused")


def show_refusal(error: errors.HubError) -> Response:
    """As text, which git shows to its user; a 401 makes it ask for a key and try again."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="AgentHub: any name, your API key"'
    text = f"{error.message}\n{error.hint}\n" if error.hint else f"{error.message}\n"
    return Response(text, error.status, headers, media_type="text/plain")


class PackAnswer(Response):
    """What upload-pack says, as it says it; given up when the client goes."""

    media_type = "application/x-git-upload-pack-result"

    def __init__(self, upload_pack: clone.UploadPack, asked: clone.Request) -> None:
        super().__init__(headers=_NO_CACHE)
        del self.headers["Content-Length"]
        self._upload_pack = upload_pack
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        is_started = False

        async def write(chunk: bytes) -> None:
            nonlocal is_started
            if not is_started:
                start = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **start})
                is_started = True
            async with asyncio.timeout(clone.STALL_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

        try:
            is_whole = await self._upload_pack.serve(self._asked, write)
        except TimeoutError:
            log.warning("a clone was given up: it took too long")
            is_whole = False
        if is_whole:
            await write(b"")
            await send({"type": "http.response.body", "body": b""})
        elif not is_started:
            raise errors.InvalidRequest(
                "git made nothing of this request", "the operator's log has its complaint"
            )
        # Else the answer ends in its middle, and the client sees that.


def _answer(hub: Hub, asked: clone.Request) -> Response:
    if asked.lists_refs:
        version = _version(hub)
        with _listing:
            return _result(_list_refs(hub.db, version, asked.body))
    if asked.is_empty:
        return _result(b"")
    try:
        clone.check_wants(hub.db, hub.repo, asked.wants)
    except errors.NotFound as error:
        return _result(clone.refuse(error))
    return PackAnswer(hub.upload_pack, asked)


def _result(body: bytes) -> Response:
    return Response(body, headers=_NO_CACHE, media_type=PackAnswer.media_type)


def _version(hub: Hub) -> int:
    """Another one with each push: what the refs are that are kept."""
    return hub.topics.read()[Topic.COMMITS]


@kept(len)
def _advertise(db: Database, _: int, capabilities: Sequence[bytes]) -> bytes:
    with db.read() as conn:
        return clone.advertise_v0(clone.list_frontier(conn), capabilities)


@kept(len)
def _list_refs(db: Database, _: int, request: bytes) -> bytes:
    with db.read() as conn:
        return clone.list_refs(clone.parse(request, is_v2=True), clone.list_frontier(conn))


def _speaks_v2(request: Request) -> bool:
    return "version=2" in request.headers.get("Git-Protocol", "").split(":")


async def _read_body(request: Request) -> bytes:
    """The body, inflated; never more of it than is allowed."""
    encoding = request.headers.get("Content-Encoding", "identity")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    received = 0
    try:
        async for chunk in request.stream():
            room = REQUEST_BYTES + 1 - len(body)
            body += inflater.decompress(chunk, room) if inflater else chunk
            received += len(chunk)
            if max(received, len(body)) > REQUEST_BYTES:
                raise errors.TooLarge(f"requests of git are at most {REQUEST_BYTES} bytes")
    except zlib.error as error:
        raise errors.InvalidRequest("the body is not gzip, as it says it is") from error
    if inflater and not inflater.eof:
        raise errors.InvalidRequest("the gzipped body is cut short")
    return bytes(body)
