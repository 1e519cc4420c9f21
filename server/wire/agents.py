"""Identities."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from server.wire.base import Text, Timestamp, Wire


class Role(StrEnum):
    AGENT = "agent"
    WORKER = "worker"
    ADMIN = "admin"


class Register(Wire):
    id: Annotated[Text, Field(max_length=200)]
    #: Code printed by `agenthub invite`.
    invite: Annotated[Text, Field(max_length=200)] | None = None


class AgentCreate(Wire):
    id: Annotated[Text, Field(max_length=200)]
    role: Literal[Role.AGENT, Role.WORKER] = Role.AGENT


class Registered(Wire):
    """All values stay strings: the original `ah join` decodes into a map of strings."""

    id: str
    api_key: str
    role: Role = Role.AGENT


class Agent(Wire):
    id: str
    role: Role
    created_at: Timestamp
    last_seen_at: Timestamp | None = None


class HaltReport(Wire):
    """A process of a worker stopped itself; without a reason it works again."""

    #: Which of its processes, such as `host cuda:1`.
    place: Annotated[Text, Field(min_length=1, max_length=100)]
    reason: Annotated[Text, Field(min_length=1, max_length=500)] | None = None


class Halt(Wire):
    worker_id: str
    place: str
    reason: str
    created_at: Timestamp
