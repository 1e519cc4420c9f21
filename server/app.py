"""create_app: a hub as an ASGI application, and the one place where errors become answers."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import clone, errors, runs, similar, wire
from server.bundles import Bundles
from server.db import Database
from server.deps import Hub
from server.events import Bell
from server.feed import Feed
from server.group_commit import GroupCommit
from server.hot import HotRoom, WholeAnswers
from server.keys import Keys
from server.leader import Leader
from server.maintenance import Maintenance
from server.memory import Trimmer
from server.pages.render import show_refusal
from server.pages.routes import router as pages
from server.repo import BareRepo, Caps
from server.routes import agents, board, files, frontier, git, halts, queue, search
from server.routes import clone as clones
from server.routes import results as result_routes
from server.routes import runs as run_routes
from server.routes import similar as similar_routes
from server.scratch import Scratch
from server.sessions import Sessions
from server.settings import Settings, load_session_secret
from server.topics import Topics

log = logging.getLogger("agenthub")


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(settings: Settings, now: Callable[[], datetime] = utc_now) -> FastAPI:
    """Open the data directory (made and migrated if need be) and serve it.

    Time comes from `now`, so that tests can move it.
    """
    prepare(settings, now)
    return open_app(settings, now)


def prepare(settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
    """Make the data directory a hub's of this version: once for all processes that serve it."""
    db = Database(settings.database_url)
    db.migrate()
    with db.write() as conn:
        runs.adopt(conn, now())
    db.close()


def open_app(settings: Settings, now: Callable[[], datetime] = utc_now) -> FastAPI:
    """Serve a data directory that is prepared; several processes may."""
    db = Database(settings.database_url)
    leader = Leader(settings.leader_path)
    caps = Caps(bundle_bytes=settings.max_bundle_mb * 2**20)
    repo = BareRepo(settings.repo_path, caps)
    bundles = Bundles(repo, settings.bundles_path)
    # What a crash leaves half received was never acknowledged.
    incoming = Scratch(settings.incoming_path)
    upload_pack = clone.open_upload_pack(settings.repo_path)
    bell, sessions = Bell(db), Sessions(load_session_secret(settings.data))
    feed = Feed(db, bell)
    index = similar.Index(db, repo, leader)
    topics = Topics(db)
    group = GroupCommit(db)
    keys = Keys(db, topics, settings.admin_key)
    hub = Hub(
        settings,
        db,
        repo,
        bundles,
        incoming,
        now,
        bell,
        feed,
        upload_pack,
        sessions,
        index,
        topics,
        keys,
        group,
    )
    maintenance = Maintenance(repo, settings.pack_after, leader)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance.start()
        index.start()
        trimmer = Trimmer(repo)
        trimmer.start()
        yield
        await run_in_threadpool(trimmer.stop)
        await run_in_threadpool(index.stop)
        await run_in_threadpool(maintenance.stop)
        await run_in_threadpool(group.close)
        await run_in_threadpool(repo.close)
        leader.resign()
        bundles.close()
        incoming.close()
        topics.close()
        db.close()

    app = FastAPI(title="AgentHub", lifespan=lifespan, redirect_slashes=False)
    app.state.hub = hub
    rooms = (
        agents, git, files, clones, board, run_routes, queue, halts, result_routes, frontier,
        similar_routes, search,
    )  # fmt: skip
    for router in (*(room.router for room in rooms), pages):
        app.include_router(router)
    app.add_exception_handler(errors.HubError, _on_hub_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(HeadAsGet)
    app.add_middleware(WholeAnswers, hub=hub)
    app.add_middleware(HotRoom, hub=hub)
    return app


def _render(request: Request, error: errors.HubError) -> Response:
    if request.url.path.startswith(clones.PATH):
        return clones.show_refusal(error)
    return Response(error.to_json(), error.status, error.headers(), media_type="application/json")


async def _on_hub_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.HubError):
        raise error
    return _render(request, error)


async def _on_bad_request(request: Request, error: Exception) -> Response:
    """A path or query value of the wrong type."""
    problem = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in problem.get("loc", ()))
    return _render(request, errors.InvalidRequest(f"{where}: {problem.get('msg', 'invalid')}"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """A path or method that no route takes: JSON under /api, a page elsewhere."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal: errors.HubError = errors.InvalidRequest(str(getattr(error, "detail", "invalid")))
    if status == 404:
        refusal = errors.NotFound("no such path")
    if status == 405:
        refusal.code = wire.ErrorCode.METHOD_NOT_ALLOWED
    if request.url.path.startswith(("/api/", clones.PATH)):
        return _render(request, refusal)
    return show_refusal(refusal, request.app.state.hub.now())


async def _on_bug(request: Request, error: Exception) -> Response:
    # The traceback goes to the operator's log; the client learns nothing of our insides.
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _render(
        request, errors.HubError("internal error", "try again; the operator's log has details")
    )


class HeadAsGet:
    """Answers HEAD wherever GET works: the same headers, no body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # `is_head`: what would go on for ever may end at once.
        await self.app({**scope, "method": "GET", "is_head": True}, receive, send_head)
