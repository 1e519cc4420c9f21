"""Sessions: a browser that showed an API key once and is believed for a while.

A session is a signed cookie; nothing of it is stored. The signature covers the agent's key hash,
so a session ends with the key: when the agent is disabled or gets another one.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select

from server import tables
from server.agents import Agent
from server.db import Connection
from server.wire import Role

LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page: an agent whose key was shown, or anybody."""

    agent: Agent | None = None
    #: What a form of this session must bring along.
    token: str = ""


#: Somebody without a session.
ANYBODY = Viewer()


class Sessions:
    """Opens and reads the sessions of one hub; `secret` must outlive the process."""

    def __init__(self, secret: str) -> None:
        if len(secret) < 32:
            raise ValueError("the secret of the sessions is too short; delete session.key")
        self._secret = secret.encode()

    def open(self, conn: Connection, agent: Agent, now: datetime) -> str:
        """A cookie for this agent, good for `LIFETIME`."""
        id = urlsafe_b64encode(agent.id.encode()).decode().rstrip("=")
        expires = int((now + LIFETIME).timestamp())
        row = _find_agent(conn, agent.id)
        if row is None:
            raise LookupError(agent.id)
        return f"{id}.{expires}.{self._sign('session', agent.id, str(expires), row.key_hash)}"

    def find(self, conn: Connection, cookie: str, now: datetime) -> Viewer:
        """Whose session this is; anybody's unless it is genuine, fresh and its key still good."""
        id, expires = _parse(cookie)
        row = _find_agent(conn, id) if expires > now.timestamp() else None
        if row is None or row.disabled_at is not None:
            return ANYBODY
        expected = self._sign("session", id, str(expires), row.key_hash)
        if not hmac.compare_digest(cookie.rpartition(".")[2].encode(), expected.encode()):
            return ANYBODY
        agent = Agent(row.id, Role(row.role), row.created_at, row.last_seen_at)
        return Viewer(agent, self._sign("form", cookie))

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


def _find_agent(conn: Connection, id: str) -> Row[Any] | None:
    return conn.execute(select(tables.agents).where(tables.agents.c.id == id)).one_or_none()


def _parse(cookie: str) -> tuple[str, int]:
    """Agent and end of a session; ("", 0) of what is none."""
    try:
        id, expires, _ = cookie.split(".")
        return urlsafe_b64decode(id + "=" * (-len(id) % 4)).decode(), int(expires)
    except ValueError:
        return "", 0
