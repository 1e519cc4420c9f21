"""What a route may ask for: the hub, who is calling, a JSON body, a spooled bundle."""

import asyncio
import base64
import gzip
import ipaddress
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import Receive

from server import agents, errors, wire
from server.bundles import Bundles
from server.clone import UploadPack
from server.db import Database
from server.events import Bell
from server.feed import Feed
from server.group_commit import GroupCommit
from server.keys import Keys
from server.repo import BareRepo
from server.runs import LeaseTerms
from server.scratch import Scratch
from server.sessions import Sessions
from server.settings import Settings
from server.similar import Index
from server.topics import Topics

Body = TypeVar("Body", bound=wire.Wire)

# A pushed bundle up to this size never becomes a file.
_SMALL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Hub:
    """Everything a hub process holds open."""

    settings: Settings
    db: Database
    repo: BareRepo
    bundles: Bundles
    #: Where bodies of pushes wait.
    incoming: Scratch
    now: Callable[[], datetime]
    bell: Bell
    feed: Feed
    upload_pack: UploadPack
    sessions: Sessions
    similar: Index
    topics: Topics
    keys: Keys
    group: GroupCommit

    @property
    def terms(self) -> LeaseTerms:
        return LeaseTerms(self.settings.lease_seconds, self.settings.policy)


async def get_hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(get_hub)]


# Who is calling ---------------------------------------------------------------------------------


def read_key(request: Request) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def get_key(request: Request) -> str:
    key = read_key(request)
    if key is None:
        raise errors.Unauthorized("missing authorization")
    return key


async def get_caller(hub: TheHub, key: Annotated[str, Depends(get_key)]) -> agents.Agent:
    known = hub.keys.find(key, hub.topics.read())
    return await run_in_threadpool(hub.keys.identify, key) if known is None else known


async def get_git_key(request: Request) -> str:
    """A key as git sends it: as the password of any user. Only here, for browsers keep those."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return await get_key(request)
    try:
        _, _, key = base64.b64decode(token, validate=True).decode().partition(":")
    except ValueError as error:
        raise errors.Unauthorized("the authorization header cannot be read") from error
    return key


async def get_git_caller(hub: TheHub, key: Annotated[str, Depends(get_git_key)]) -> agents.Agent:
    return await get_caller(hub, key)


Caller = Annotated[agents.Agent, Depends(get_caller)]


async def get_worker(caller: Caller) -> agents.Agent:
    if caller.role is not wire.Role.WORKER:
        raise errors.Forbidden(
            f"{caller.id} is not a worker",
            "scores come only from workers: `ah join --role worker` or `agenthub invite --role "
            "worker` makes one",
        )
    return caller


Worker = Annotated[agents.Agent, Depends(get_worker)]


async def require_admin(hub: TheHub, key: Annotated[str, Depends(get_key)]) -> None:
    if not agents.is_same_key(key, hub.settings.admin_key):
        raise errors.Unauthorized("unauthorized", "this call needs the hub's admin key")


def caller_address(request: Request) -> str:
    """The address quotas count by. An IPv6 host owns at least its whole /64."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # What a socket that listens on both families calls an IPv4 client.
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)


# Bodies -----------------------------------------------------------------------------------------


def json_body(model: type[Body]) -> Any:
    """A dependency that reads one JSON body of at most 64 KiB, whatever its content type says."""

    async def read(request: Request) -> Body:
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > wire.JSON_BODY_BYTES:
                raise errors.TooLarge(f"JSON bodies are at most {wire.JSON_BODY_BYTES} bytes")
        try:
            return model.model_validate_json(bytes(raw))
        except ValidationError as error:
            raise errors.InvalidRequest(first_problem(error)) from error

    return Depends(read)


def text_body(max_bytes: int) -> Any:
    """A dependency that reads a body of UTF-8 text."""

    async def read(request: Request) -> str:
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > max_bytes:
                raise errors.TooLarge(f"the body may have at most {max_bytes} bytes")
        try:
            return wire.printable(raw.decode())
        except ValueError as error:
            raise errors.InvalidRequest("the body is not UTF-8 text without NUL") from error

    return Depends(read)


def check_word(name: str, text: str) -> str:
    """The text if it can name a part of a track; raise InvalidRequest."""
    try:
        return TypeAdapter(wire.Word).validate_python(text)
    except ValidationError as error:
        raise errors.InvalidRequest(f"{name}: {error.errors()[0]['msg']}") from error


def first_problem(error: ValidationError) -> str:
    """What a refusal says of a body that is not as it should be."""
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"invalid json: {problem['ctx']['error']}"
    where = ".".join(str(part) for part in problem["loc"]) or "body"
    return f"{where}: {problem['msg']}"


@asynccontextmanager
async def spooled(request: Request, directory: Path, max_bytes: int) -> AsyncIterator[Path | bytes]:
    """The request's body: a small one as it is, a large one as a file that is gone afterwards.

    Raises TooLarge as soon as it is too long.
    """
    too_large = errors.TooLarge(
        f"bundle too large (max {max_bytes // 2**20} MiB)",
        "push fewer commits at once, or ask the operator for a larger --max-bundle-mb",
    )
    if int(request.headers.get("Content-Length") or 0) > max_bytes:
        raise too_large
    start, stream = bytearray(), request.stream()
    async for chunk in stream:
        start += chunk
        if len(start) > _SMALL_BYTES:
            break
    else:
        yield bytes(start)
        return
    handle, name = tempfile.mkstemp(suffix=".bundle", dir=directory)
    path = Path(name)
    try:
        received = len(start)
        with os.fdopen(handle, "wb") as file:
            file.write(start)
            async for chunk in stream:
                received += len(chunk)
                if received > max_bytes:
                    raise too_large
                file.write(chunk)
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; cancel it when the client goes."""
    tasks = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# Paths and headers ------------------------------------------------------------------------------


class AnyPath(PathConvertor):
    """`path`, but also of names with line breaks."""

    regex = "(?s:.*)"


register_url_convertor("any_path", AnyPath())


async def get_raw_path(request: Request) -> str:
    """The route's `path`; bytes in it that are no UTF-8 are kept as surrogates.

    The server's own decoded path has replacement characters for them.
    """
    parts = request.path_params.get("path", "").count("/") + 1
    whole = unquote_to_bytes(request.scope["raw_path"]).split(b"/")
    return b"/".join(whole[-parts:]).decode(errors="surrogateescape")


RawPath = Annotated[str, Depends(get_raw_path)]


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether the client has this version already."""
    tags = request.headers.get("If-None-Match", "").split(",")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in tags)


def gzipped(request: Request, body: bytes, media_type: str) -> Response:
    """The body, compressed for who takes it so."""
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
    headers["X-Content-Type-Options"] = "nosniff"
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, 5)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=media_type)


# Queries ----------------------------------------------------------------------------------------


def parse_count(text: str | None, default: int, maximum: int) -> int:
    """As the original reads numbers: nonsense, zero and negatives mean the default."""
    try:
        value = int(text or "")
    except ValueError:
        return default
    return min(value, maximum) if value > 0 else default


async def get_limit(limit: str | None = None) -> int:
    return parse_count(limit, wire.LIST_DEFAULT, wire.LIST_MAX)


async def get_offset(offset: str | None = None) -> int:
    return parse_count(offset, 0, 2**62)


#: Number of the last row of the page seen.
Cursor = wire.Number | None
Limit = Annotated[int, Depends(get_limit)]
Offset = Annotated[int, Depends(get_offset)]
