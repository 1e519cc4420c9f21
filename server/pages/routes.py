"""The human's pages: public, read only, whole without scripts. Refusals are pages too."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from server import errors
from server.deps import Hub, TheHub
from server.pages import views
from server.pages.render import serve_static, show_page, show_refusal


class PageRoute(APIRoute):
    """Answers refusals in HTML, not in the API's JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            hub: Hub = request.app.state.hub
            try:
                return await handle(request)
            except errors.HubError as error:
                return show_refusal(error, hub.now())
            except RequestValidationError:
                return show_refusal(errors.NotFound("no such page"), hub.now())

        return handle_page


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
def overview(hub: TheHub) -> Response:
    now = hub.now()
    with hub.db.read() as conn:
        seen = views.see_overview(conn, now)
    return show_page("overview.html", now, **seen)


@router.get("/commits")
def commit_list(hub: TheHub, before: str | None = None) -> Response:
    with hub.db.read() as conn:
        seen = views.see_commits(conn, views.MANY, before)
    return show_page("commits.html", hub.now(), is_latest=before is None, **seen)


@router.get("/commits/{hash}")
def commit(hash: str, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = views.see_commit(conn, hash)
    # Outside the snapshot: a diff may take its time.
    parents = seen["parents"]
    diff = views.see_diff(hub.repo, parents[0].hash, seen["commit"].hash) if parents else None
    return show_page("commit.html", hub.now(), diff=diff, **seen)


@router.get("/channels/{name}")
def channel(name: str, hub: TheHub, before: str | None = None) -> Response:
    with hub.db.read() as conn:
        seen = views.see_channel(conn, name, None if before is None else _parse_id(before))
    return show_page("channel.html", hub.now(), **seen)


@router.get("/agents/{id}")
def agent(id: str, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = views.see_agent(conn, id)
    return show_page("agent.html", hub.now(), **seen)


@router.get("/runs/{id}")
def run(id: str, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = views.see_run(conn, _parse_id(id))
    return show_page("run.html", hub.now(), **seen)


@router.get("/tracks/{id}")
def track(id: str, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = views.see_track(conn, _parse_id(id))
    return show_page("track.html", hub.now(), **seen)


@router.get("/static/{name}")
def static(name: str, v: str = "") -> Response:
    return serve_static(name, v)


def _parse_id(text: str) -> int:
    """A row's id; raise NotFound for what cannot be one."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.NotFound(f"nothing has the number {text[:40]}")
    return int(text)
