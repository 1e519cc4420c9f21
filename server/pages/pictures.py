"""The progress of a track as a picture to share: `/progress.svg` and `/progress.png`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from server.deps import TheHub
from server.pages import views
from server.pages.progress import XAxis, svg
from server.pages.progress.png import render_png
from server.pages.progress.theme import Theme
from server.pages.render import show_picture
from server.pages.session import MAY_SEE

#: Refuses as the API does: what asks for a picture cannot show a page.
router = APIRouter(include_in_schema=False, dependencies=[MAY_SEE])


def lay_out_progress(
    hub: TheHub,
    track: str | None = None,
    by: XAxis = XAxis.NUMBER,
    width: Annotated[int, Query(ge=svg.WIDTH_MIN, le=svg.WIDTH_MAX)] = svg.WIDTH,
    height: Annotated[int, Query(ge=svg.HEIGHT_MIN, le=svg.HEIGHT_MAX)] = svg.HEIGHT,
    theme: Theme = Theme.LIGHT,
) -> str:
    """The picture the query asks for, as XML."""
    with hub.db.read() as conn:
        series = views.see_progress(conn, track)
    return svg.render_svg(svg.lay_out(series, width, height, by), theme)


ThePicture = Annotated[str, Depends(lay_out_progress)]


@router.get("/progress.svg")
def progress_svg(request: Request, picture: ThePicture) -> Response:
    return show_picture(request, "image/svg+xml", picture, str.encode)


@router.get("/progress.png")
def progress_png(request: Request, picture: ThePicture) -> Response:
    return show_picture(request, "image/png", picture, render_png)
