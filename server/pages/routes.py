"""The human's pages: whole without scripts. Each room brings its own; packaged files are here."""

from fastapi import APIRouter, Response

from server.pages import (
    board,
    commits,
    dag,
    live,
    overview,
    people,
    pictures,
    runs,
    search,
    session,
    tracks,
)
from server.pages.frame import open_router
from server.pages.render import serve_static

#: What everyone may have, also of a private hub.
static = open_router()


@static.get("/static/{name}")
def packaged(name: str, v: str = "") -> Response:
    return serve_static(name, v)


@static.get("/static/{version}/{name}")
def packaged_module(version: str, name: str) -> Response:
    """Modules import each other by relative URLs, so here the version is part of the path."""
    return serve_static(name, version)


ROOMS = (
    overview, commits, dag, board, people, search, tracks, runs, pictures, live, session,
)  # fmt: skip
router = APIRouter()
for room in (static, *(one.router for one in ROOMS)):
    router.include_router(room)
