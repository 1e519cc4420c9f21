"""What to build on next."""

import random
from typing import Annotated

from fastapi import APIRouter, Query

from server import errors, frontier, results, wire
from server.deps import Caller, Limit, TheHub
from server.policy import Policy

router = APIRouter(prefix="/api")

#: Spellings beside those of the hub's own policies; None is the random order.
_SPELLINGS = {"best": Policy.BEST_FIRST, "random": None} | {
    policy.value: policy for policy in Policy
}


@router.get("/frontier")
def list_next(
    hub: TheHub,
    caller: Caller,
    limit: Limit,
    policy: Annotated[str, Query()] = "puct",
    track: str | None = None,
) -> wire.Frontier:
    if policy not in _SPELLINGS:
        raise errors.InvalidRequest(
            f"no such policy: {policy[:40]}", f"one of {', '.join(_SPELLINGS)}"
        )
    with hub.db.read() as conn:
        chosen = results.get_track(conn, track) if track else results.find_busiest(conn)
        entries = frontier.list_next(
            conn, chosen, _SPELLINGS[policy], limit, hub.now(), random.SystemRandom()
        )
    return wire.Frontier(track=chosen.name if chosen else None, policy=policy, entries=entries)
