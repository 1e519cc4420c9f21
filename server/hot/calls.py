"""What a hot call is told and what it says; the table of all of them."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Scope

from server import agents, errors, wire
from server.db import Connection
from server.deps import Hub, first_problem, parse_count
from server.topics import Topic, Versions

Model = TypeVar("Model", bound=BaseModel)
Fields = dict[str, Any]

#: Rows a call may read on the event loop, where everybody waits for it.
LOOP_ROWS = 100
#: Rows it may skip there.
_LOOP_OFFSET = 1_000


class NotHot(Exception):
    """Raised by a call that FastAPI's route of the same path shall answer."""


@dataclass(slots=True)
class Call:
    """One request of somebody known."""

    hub: Hub
    scope: Scope
    agent: agents.Agent
    #: Parts of the path, by the names in its pattern.
    path: Mapping[str, str]
    #: Of a POST or PUT, at most 64 KiB.
    body: bytes = b""

    @property
    def query(self) -> dict[str, str]:
        """As FastAPI reads it: of a name that comes twice, the last one."""
        text = self.scope["query_string"].decode("latin-1")
        return dict(parse_qsl(text, keep_blank_values=True)) if text else {}

    def read_page(self, query: Mapping[str, str], default: int) -> tuple[int, int]:
        """Limit and offset; raise NotHot for what is too much to be read on the event loop."""
        limit = parse_count(query.get("limit"), default, wire.LIST_MAX)
        offset = parse_count(query.get("offset"), 0, 2**62)
        if limit > LOOP_ROWS or offset > _LOOP_OFFSET:
            raise NotHot
        return limit, offset

    @property
    def run_id(self) -> int:
        """The number in the path; raise NotHot for what is none, as FastAPI knows what to say."""
        id = self.path["id"]
        if not (id.isascii() and id.isdigit() and len(id) < 19):
            raise NotHot
        return int(id)

    def read_number(self, query: Mapping[str, str], name: str) -> int | None:
        """A number of a row; raise NotHot for what is none, as FastAPI knows what to say."""
        text = query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise NotHot
        return int(text)

    def link_on(self, page: Sequence[Fields], limit: int, cursor: str) -> dict[str, str]:
        """The header that leads to the next page, unless this one is the last."""
        if len(page) < limit:
            return {}
        url = Request(self.scope).url.include_query_params(before=page[-1][cursor])
        return {"Link": f'<{url.remove_query_params("offset")}>; rel="next"'}

    def parse(self, model: type[Model]) -> Model:
        """The JSON body; raise InvalidRequest."""
        try:
            return model.model_validate_json(self.body)
        except ValidationError as error:
            raise errors.InvalidRequest(first_problem(error)) from error


@dataclass(slots=True)
class Reply:
    """Wire models, or their fields as dicts, lists and datetimes in UTC."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


#: Reads on the event loop's own connection, in well under a millisecond.
Read = Callable[[Connection, Call], Reply]
#: Reads a list of any length in pages of so many rows; only the last page is shorter.
ReadAll = Callable[[Connection, Call, int], Iterator[list[Fields]]]
#: Changes something; durable before it returns.
Write = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One of the three; an answer of the first two holds until one of the topics changes."""

    read: Read | None = None
    read_all: ReadAll | None = None
    write: Write | None = None
    topics: tuple[Topic, ...] = ()

    def held(self, versions: Versions) -> tuple[int, ...]:
        return tuple([versions[topic] for topic in self.topics])


class Table:
    """Routes by method and path, a dict for each segment; `{name}` takes any one segment."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def get(self, pattern: str, *topics: Topic) -> Callable[[Read], None]:
        """Without topics the answer is not kept."""
        return lambda read: self._add("GET", pattern, Route(read=read, topics=topics))

    def get_all(self, pattern: str, *topics: Topic) -> Callable[[ReadAll], None]:
        return lambda read: self._add("GET", pattern, Route(read_all=read, topics=topics))

    def post(self, pattern: str) -> Callable[[Write], None]:
        return lambda write: self._add("POST", pattern, Route(write=write))

    def put(self, pattern: str) -> Callable[[Write], None]:
        return lambda write: self._add("PUT", pattern, Route(write=write))

    def _add(self, method: str, pattern: str, route: Route) -> None:
        node = self._root
        names = []
        for segment in pattern.split("/")[1:]:
            is_name = segment.startswith("{")
            if is_name:
                names.append(segment[1:-1])
            node = node.setdefault("{}" if is_name else segment, {})
        # No segment has a slash in it.
        node[f"/{method}"] = (route, tuple(names))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        node, values = self._root, []
        for segment in path.split("/")[1:]:
            below = node.get(segment)
            if below is None:
                below = node.get("{}")
                if below is None or not segment:
                    return None
                values.append(segment)
            node = below
        found = node.get(f"/{method}")
        return (found[0], dict(zip(found[1], values, strict=True))) if found else None
