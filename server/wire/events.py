"""The log of what happened."""

from typing import Any

from server.wire.base import Timestamp, Wire


class Event(Wire):
    id: int
    kind: str
    actor: str
    subject: str
    payload: dict[str, Any]
    created_at: Timestamp
