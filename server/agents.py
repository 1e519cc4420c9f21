"""Agents: identities, their keys and roles, invites, and quotas.

Identity comes only from the API key. Keys and invite codes are 32 random bytes, shown once;
the database holds their SHA-256, so a stolen copy of it opens nothing.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from server import errors, events, tables, wire
from server.db import Connection, IntegrityError
from server.prepared import Prepared

#: How stale `last_seen_at` may be; spares a write on every call.
SEEN_EVERY = timedelta(minutes=1)

_A, _Q = tables.agents.c, tables.quotas.c
_AGENT = select(_A.id, _A.role, _A.created_at, _A.last_seen_at)
_BY_ID = Prepared(_AGENT.where(_A.id == bindparam("id")))
_BY_KEY = Prepared(
    select(_A.disabled_at, *_AGENT.selected_columns).where(_A.key_hash == bindparam("digest"))
)
_TOUCH = Prepared(
    update(tables.agents)
    # What is known of the agent may be old.
    .where(_A.id == bindparam("id"))
    .where(or_(_A.last_seen_at.is_(None), _A.last_seen_at < bindparam("stale")))
    .values(last_seen_at=bindparam("now"))
)
_MINE = (_Q.subject == bindparam("subject"), _Q.action == bindparam("action"))
_USED = Prepared(
    select(func.sum(_Q.used), func.min(_Q.minute)).where(*_MINE, _Q.minute > bindparam("after"))
)
_SPEND = Prepared(
    update(tables.quotas).where(*_MINE, _Q.minute == bindparam("minute")).values(used=_Q.used + 1)
)
_SPEND_FIRST = Prepared(insert(tables.quotas), "subject", "action", "minute", "used")
_FORGET = Prepared(delete(tables.quotas).where(_Q.minute < bindparam("before")))


@dataclass(frozen=True, slots=True)
class Agent:
    id: str
    role: wire.Role
    created_at: datetime
    last_seen_at: datetime | None

    def to_wire(self) -> wire.Agent:
        return wire.Agent(
            id=self.id,
            role=self.role,
            created_at=self.created_at,
            last_seen_at=self.last_seen_at,
        )


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def is_same_key(given: str, expected: str) -> bool:
    """Compare two keys in a time that tells nothing about either."""
    return hmac.compare_digest(digest(given), digest(expected))


def register(conn: Connection, id: str, role: wire.Role, now: datetime) -> wire.Registered:
    """Create an agent and its key; raise AgentExists when the name is taken."""
    if not wire.AGENT_ID.fullmatch(id):
        raise errors.InvalidRequest(
            "id must be 1-63 characters: letters, digits, dot, dash, underscore; "
            "the first one a letter or digit"
        )
    key = secrets.token_hex(32)
    row = {
        "id": id,
        "role": role,
        "key_hash": digest(key),
        "key_prefix": key[:8],
        "created_at": now,
    }
    try:
        with conn.begin_nested():
            conn.execute(insert(tables.agents), row)
    except IntegrityError as error:
        raise errors.AgentExists(f"agent id already taken: {id}") from error
    events.append(conn, "agent", id, id, {"role": role}, now)
    return wire.Registered(id=id, api_key=key, role=role)


def authenticate(conn: Connection, key: str) -> Agent:
    """The agent that holds this key; raise Unauthorized for unknown and Forbidden for disabled."""
    row = _BY_KEY.first(conn, digest=digest(key))
    if row is None:
        raise errors.Unauthorized("invalid api key")
    disabled_at, *rest = row
    agent = _to_agent(*rest)
    if disabled_at is not None:
        raise errors.Forbidden(f"agent {agent.id} is disabled", "ask the operator")
    return agent


def get_agent(conn: Connection, id: str) -> Agent:
    """As it stands; raise Unauthorized if it is gone."""
    row = _BY_ID.first(conn, id=id)
    if row is None:
        raise errors.Unauthorized(f"no agent is called {id}")
    return _to_agent(*row)


def _to_agent(id: str, role: str, created_at: datetime, last_seen_at: datetime | None) -> Agent:
    return Agent(id, wire.Role(role), created_at, last_seen_at)


def touch(conn: Connection, agent: Agent, now: datetime) -> None:
    """Note that the agent was here."""
    if agent.last_seen_at is None or now - agent.last_seen_at > SEEN_EVERY:
        _TOUCH.run(conn, id=agent.id, stale=now - SEEN_EVERY, now=now)


def create_invite(
    conn: Connection, role: wire.Role, uses: int, lifetime: timedelta, now: datetime
) -> str:
    """Make a code that registers `uses` agents of `role`; only its hash is kept."""
    code = secrets.token_urlsafe(24)
    row = {
        "code_hash": digest(code),
        "role": role,
        "uses_left": uses,
        "created_at": now,
        "expires_at": now + lifetime,
    }
    conn.execute(insert(tables.invites), row)
    return code


def redeem_invite(conn: Connection, code: str, now: datetime) -> wire.Role:
    """Use the code up by one and return its role; raise Forbidden when it is not good."""
    t = tables.invites
    role: str | None = conn.execute(
        update(t)
        .where(t.c.code_hash == digest(code), t.c.uses_left > 0, t.c.expires_at > now)
        .values(uses_left=t.c.uses_left - 1)
        .returning(t.c.role)
    ).scalar_one_or_none()
    if role is None:
        raise errors.Forbidden(
            "this invite is unknown, used up or expired", "ask the operator for another one"
        )
    return wire.Role(role)


# Quotas ----------------------------------------------------------------------------------------


def check_quota(conn: Connection, subject: str, action: str, per_hour: int, now: datetime) -> None:
    """Raise QuotaExceeded when `subject` did `action` `per_hour` times in the last hour.

    0 means no limit. Counted by the minute, so an action weighs on its quota for 60 minutes.
    """
    if not per_hour:
        return
    after = _minute(now) - 60
    used, first = _USED.all(conn, subject=subject, action=action, after=after)[0]
    if (used or 0) >= per_hour:
        wait = (first + 60) * 60 - int(now.timestamp())
        raise errors.QuotaExceeded(
            f"{action} quota of {per_hour} per hour exceeded",
            f"wait {wait} seconds and try again",
            retry_after=max(wait, 1),
        )


def spend_quota(conn: Connection, subject: str, action: str, per_hour: int, now: datetime) -> None:
    """Check the quota and count one use, in the caller's transaction."""
    if not per_hour:
        return
    check_quota(conn, subject, action, per_hour, now)
    mine = {"subject": subject, "action": action, "minute": _minute(now)}
    if not _SPEND.run(conn, **mine):
        _SPEND_FIRST.run(conn, **mine, used=1)
        _FORGET.run(conn, before=_minute(now) - 60)


def _minute(now: datetime) -> int:
    return int(now.timestamp()) // 60
