"""What keeps a page live: the feed of events, for whoever may see the pages."""

from fastapi import APIRouter, Request, Response

from server.deps import TheHub
from server.feed import EventStream, parse_position
from server.pages.session import MAY_SEE

router = APIRouter(include_in_schema=False, dependencies=[MAY_SEE])


@router.get("/live")
async def live(request: Request, hub: TheHub, after: str | None = None) -> Response:
    position = parse_position(request.headers.get("Last-Event-ID"), after)
    return EventStream(hub.feed, position)
