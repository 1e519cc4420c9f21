"""create_app: a hub as an ASGI application, and the one place where errors become answers."""

import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import clone, errors, wire
from server.bundles import Bundles
from server.db import Database
from server.deps import Hub
from server.events import Bell
from server.maintenance import Maintenance
from server.pages.render import show_refusal
from server.pages.routes import router as pages
from server.repo import BareRepo, Caps
from server.routes import agents, board, files, git, results, runs
from server.routes import clone as clones
from server.settings import Settings

log = logging.getLogger("agenthub")


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(settings: Settings, now: Callable[[], datetime] = utc_now) -> FastAPI:
    """Open the data directory (made and migrated if need be) and serve it.

    Time comes from `now`, so that tests can move it.
    """
    db = Database(settings.database_url)
    db.migrate()
    # What a crash left half received was never acknowledged.
    shutil.rmtree(settings.incoming_path, ignore_errors=True)
    settings.incoming_path.mkdir()
    caps = Caps(bundle_bytes=settings.max_bundle_mb * 2**20)
    repo = BareRepo(settings.repo_path, caps)
    bundles = Bundles(repo, settings.bundles_path)
    upload_pack = clone.open_upload_pack(settings.repo_path)
    hub = Hub(settings, db, repo, bundles, now, Bell(), upload_pack)
    maintenance = Maintenance(repo, settings.pack_after)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance.start()
        yield
        await run_in_threadpool(maintenance.stop)
        hub.bundles.close()
        db.close()

    app = FastAPI(title="AgentHub", lifespan=lifespan, redirect_slashes=False)
    app.state.hub = hub
    rooms = (agents, git, files, clones, board, runs, results)
    for router in (*(room.router for room in rooms), pages):
        app.include_router(router)
    app.add_exception_handler(errors.HubError, _on_hub_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(HeadAsGet)
    return app


def _render(request: Request, error: errors.HubError) -> Response:
    if request.url.path.startswith(clones.PATH):
        return clones.show_refusal(error)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = error.body().model_dump_json(exclude_none=True)
    return Response(body, error.status, headers, media_type="application/json")


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

        await self.app({**scope, "method": "GET"}, receive, send_head)
