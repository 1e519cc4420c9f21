"""Answers as bytes, and the bounded memory of those that still hold."""

import hashlib
import zlib
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel

from server import errors
from server.hot.calls import Reply
from server.kept import ROOM, Room, Shelf

Header = tuple[bytes, bytes]

#: What an answer takes beside its body and key: its tag, and Python's own.
_OVERHEAD_BYTES = 250
#: Smaller bodies gain nothing from being compressed.
_PACKED_BYTES = 4_096
GZIP_LEVEL = 3
#: zlib's word for gzip's own format.
GZIP_FORMAT = zlib.MAX_WBITS | 16

_JSON = (b"content-type", b"application/json")
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_OMIT_MICROSECONDS


def to_json(content: Any) -> bytes:
    """As the wire writes it: timestamps in UTC, whole seconds, with a `Z`."""
    return orjson.dumps(content, _plain, _OPTIONS)


def _plain(model: object) -> Any:
    if isinstance(model, BaseModel):
        return orjson.Fragment(model.model_dump_json())
    raise TypeError(f"no JSON for {model!r}")


def tag(*parts: bytes) -> bytes:
    """An ETag that differs when one of the parts does."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part)
    return b'"%s"' % digest.hexdigest().encode()


class Answer:
    """What goes over the wire. Its ETag is the content's own: the same in every process, and
    after a restart or a restore."""

    __slots__ = ("_rest", "body", "etag", "made", "status")

    def __init__(
        self, status: int, body: bytes, headers: Iterable[Header] = (), etag: bytes = b""
    ) -> None:
        self.status = status
        self.body = body
        self.etag = etag or tag(body)
        self._rest = tuple(headers)
        #: When its making began, as `Builder` counts.
        self.made = 0

    @classmethod
    def of(cls, reply: Reply) -> "Answer":
        return cls(reply.status, to_json(reply.content), _encode(reply.headers))

    @classmethod
    def refuse(cls, error: errors.HubError) -> "Answer":
        return cls(error.status, error.to_json(), _encode(error.headers()))

    @property
    def headers(self) -> list[Header]:
        """Made anew each time: they would take as much memory as a small body."""
        return [_JSON, (b"content-length", b"%d" % len(self.body)), *self._rest]

    @property
    def is_worth_packing(self) -> bool:
        return self.status == 200 and len(self.body) >= _PACKED_BYTES

    def pack(self) -> "Answer":
        """The same, gzipped."""
        packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT)
        body = packer.compress(self.body) + packer.flush()
        headers = [(b"content-encoding", b"gzip"), *self._rest]
        return Answer(self.status, body, headers, self.etag[:-1] + b'-gzip"')

    def is_known(self, tags: bytes) -> bool:
        """Whether a client that names these tags has it, packed or not."""
        return self.etag[:25] in tags or tags.strip() == b"*"

    @property
    def size(self) -> int:
        return len(self.body) + _OVERHEAD_BYTES


def _encode(headers: Any) -> list[Header]:
    return [(name.lower().encode(), text.encode("latin-1")) for name, text in headers.items()]


class Sized(Protocol):
    @property
    def size(self) -> int: ...


A = TypeVar("A", bound=Sized)


class Memory(Generic[A]):
    """Answers by what was asked, each with the versions it was made under."""

    def __init__(self, room: Room = ROOM) -> None:
        self._answers: Shelf[Any, tuple[Any, A]] = Shelf(lambda found: found[1].size, room)

    def get(self, key: Any, versions: Any) -> A | None:
        found = self._answers.get(key)
        return found[1] if found is not None and found[0] == versions else None

    def get_newest(self, key: Any) -> A | None:
        """Under whatever versions it was made."""
        found = self._answers.get(key)
        return found[1] if found else None

    def put(self, key: Any, versions: Any, answer: A) -> None:
        self._answers.put(key, (versions, answer))
