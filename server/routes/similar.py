"""Similar: what was tried already, before a run."""

from typing import Annotated

from fastapi import APIRouter, Response

from server import similar, wire
from server.deps import Caller, Hub, TheHub, json_body, parse_count

router = APIRouter(prefix="/api")


@router.post("/similar")
def find_similar(
    hub: TheHub,
    caller: Caller,
    response: Response,
    asked: Annotated[wire.SimilarQuery, json_body(wire.SimilarQuery)],
) -> list[wire.Similar]:
    return _find(hub, asked, response)


@router.get("/git/commits/{hash}/similar")
def find_similar_to_commit(
    hash: str, hub: TheHub, caller: Caller, response: Response, limit: str | None = None
) -> list[wire.Similar]:
    count = parse_count(limit, wire.SIMILAR_DEFAULT, wire.SIMILAR_MAX)
    return _find(hub, wire.SimilarQuery(commit=hash, limit=count), response)


def _find(hub: Hub, asked: wire.SimilarQuery, response: Response) -> list[wire.Similar]:
    unread = hub.similar.catch_up()
    if unread:
        response.headers[wire.UNREAD_HEADER] = str(unread)
    with hub.db.read() as conn:
        return similar.find(conn, hub.similar, asked)
