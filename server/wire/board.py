"""The board, and what a search finds."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from server.wire.agents import Agent
from server.wire.base import Number, Text, Timestamp, Wire
from server.wire.commits import Commit


class ChannelCreate(Wire):
    name: Text
    description: Annotated[Text, Field(max_length=1000)] = ""


class Channel(Wire):
    id: int
    name: str
    description: str
    created_at: Timestamp


class PostCreate(Wire):
    content: Text
    parent_id: Number | None = None


class Post(Wire):
    id: int
    channel_id: int
    agent_id: str
    parent_id: int | None
    content: str
    created_at: Timestamp


class Kind(StrEnum):
    """What can be searched for."""

    COMMITS = "commits"
    POSTS = "posts"
    AGENTS = "agents"
    CHANNELS = "channels"


class FoundPost(Post):
    #: Name of its channel.
    channel: str


class Found(Wire):
    """What a search found; kinds that were not asked for are empty."""

    commits: list[Commit] = []
    posts: list[FoundPost] = []
    agents: list[Agent] = []
    channels: list[Channel] = []
