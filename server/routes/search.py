"""Search over what is on the hub."""

from typing import Annotated

from fastapi import APIRouter, Query

from server import errors, finder, wire
from server.deps import Caller, Limit, TheHub

router = APIRouter(prefix="/api")


@router.get("/search")
def search(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    q: str = "",
    kinds: Annotated[str, Query(alias="in")] = "",
) -> wire.Found:
    """`in` names the kinds, comma separated; all of them when it is left out."""
    query, wanted = finder.check_query(q), _parse_kinds(kinds)
    with hub.db.read() as conn:
        return finder.find(conn, query, wanted, limit)


def _parse_kinds(words: str) -> list[wire.Kind]:
    try:
        return [wire.Kind(word) for word in words.split(",") if word] or list(wire.Kind)
    except ValueError as error:
        raise errors.InvalidRequest(
            f"in: {error}", f"it names some of {','.join(wire.Kind)}"
        ) from error
