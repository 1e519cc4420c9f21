"""What all pages share: routers that answer refusals in HTML, and pages that know their viewer."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from server import errors
from server.deps import Hub
from server.pages import render
from server.sessions import ANYBODY, Viewer


class PageRoute(APIRoute):
    """Answers refusals in HTML, not in the API's JSON; who must log in is led there."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except errors.HubError as error:
                if isinstance(error, errors.Unauthorized) and request.method == "GET":
                    return RedirectResponse(f"/login?next={_asked_for(request)}", 303)
                return show_refusal(request, error)
            except RequestValidationError:
                return show_refusal(request, errors.NotFound("no such page"))

        return handle_page


def open_router(**more: Any) -> APIRouter:
    return APIRouter(route_class=PageRoute, include_in_schema=False, **more)


def show_page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    hub: Hub = request.app.state.hub
    viewer, path = _viewer(request), request.url.path
    return render.show_page(template, hub.now(), status, viewer, path, **context)


def show_refusal(request: Request, error: errors.HubError) -> Response:
    hub: Hub = request.app.state.hub
    return render.show_refusal(error, hub.now(), _viewer(request), request.url.path)


def parse_id(text: str) -> int:
    """A row's id; raise NotFound for what cannot be one."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.NotFound(f"nothing has the number {text[:40]}")
    return int(text)


def _viewer(request: Request) -> Viewer:
    viewer: Viewer = getattr(request.state, "viewer", ANYBODY)
    return viewer


def _asked_for(request: Request) -> str:
    query = request.url.query
    return quote(request.url.path + (f"?{query}" if query else ""), safe="/")
