"""Git's protocol as far as the hub speaks it itself (gitprotocol-v2, gitprotocol-pack).

Listing refs is the hub's; packs are made by an upload-pack. Nothing here reads or writes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server import errors

#: Leaves a clone gets; older ones can still be fetched by hash. A client asks for each in 50 bytes.
FRONTIER_MAX = 20_000

_FLUSH, _DELIMITER = b"0000", b"0001"
_HEAD, _NEWEST, _LEAF = b"HEAD", b"refs/heads/newest", b"refs/heads/leaf/"
# Each of a request's prefixes is looked at for each ref; git allows to ignore them.
_PREFIXES_MAX = 100
_HASH = re.compile(rb"[0-9a-f]{40}(?: |\Z)")
_AGENT = b"agent=agenthub"
_FORMAT = b"object-format=sha1"
_V2 = (b"version 2", _AGENT, b"ls-refs", b"fetch=shallow filter", _FORMAT)
_V0 = (
    b"allow-tip-sha1-in-want", b"allow-reachable-sha1-in-want", _FORMAT, _AGENT,
    b"symref=" + _HEAD + b":" + _NEWEST,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks of upload-pack."""

    body: bytes
    lines: list[bytes]
    is_v2: bool

    @property
    def is_empty(self) -> bool:
        """Git tries a connection with an empty request before it sends a long one."""
        return not self.lines

    @property
    def lists_refs(self) -> bool:
        return self.is_v2 and b"command=ls-refs" in self.lines

    @property
    def wants(self) -> list[str]:
        return [line[5:45].decode() for line in self.lines if line.startswith(b"want ")]


def parse(body: bytes, is_v2: bool) -> Request:
    """Raise InvalidRequest for what is no request that git would send."""
    lines = [line.removesuffix(b"\n") for line in _read_lines(body)]
    request = Request(body, lines, is_v2)
    commands = [line for line in request.lines if line.startswith(b"command=")]
    if is_v2 and request.lines and commands not in ([b"command=ls-refs"], [b"command=fetch"]):
        raise errors.InvalidRequest("the request has to be one ls-refs or one fetch")
    for line in request.lines:
        if line.startswith(b"want ") and not _HASH.match(line, 5):
            raise errors.InvalidRequest("a request can only want full hashes")
    return request


def advertise() -> bytes:
    """Version 2's answer to `info/refs`: what can be asked for."""
    return b"".join(_line(text) for text in _V2) + _FLUSH


def advertise_v0(frontier: Sequence[str], capabilities: Sequence[bytes]) -> bytes:
    """The older answer to `info/refs`: all refs, and how a pack can be had."""
    lines = [sha.encode() + b" " + name for name, sha in _refs(frontier)]
    head = lines[0] if lines else b"0" * 40 + b" capabilities^{}"
    lines[:1] = [head + b"\0" + b" ".join((*capabilities, *_V0))]
    service = _line(b"# service=git-upload-pack") + _FLUSH
    return service + b"".join(_line(text) for text in lines) + _FLUSH


def list_refs(request: Request, frontier: Sequence[str]) -> bytes:
    """The answer to version 2's ls-refs."""
    marker = b"ref-prefix "
    prefixes = tuple(line[len(marker) :] for line in request.lines if line.startswith(marker))
    if not prefixes or len(prefixes) > _PREFIXES_MAX:
        prefixes = (b"",)
    names_head = b" symref-target:" + _NEWEST if b"symrefs" in request.lines else b""
    return b"".join(
        _line(sha.encode() + b" " + name + (names_head if name == _HEAD else b""))
        for name, sha in _refs(frontier)
        if name.startswith(prefixes)
    ) + _FLUSH  # fmt: skip


def refuse(error: errors.HubError) -> bytes:
    """An answer that git shows to its user as the remote's error."""
    return _line(f"ERR {error.message} ({error.hint})".encode())


def _refs(frontier: Sequence[str]) -> Iterator[tuple[bytes, str]]:
    """In the order of their names, HEAD first, as git has them."""
    if frontier:
        yield _HEAD, frontier[0]
        yield from ((_LEAF + sha.encode(), sha) for sha in sorted(frontier))
        yield _NEWEST, frontier[0]


def _line(text: bytes) -> bytes:
    return b"%04x%s\n" % (len(text) + 5, text)


def _read_lines(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        head = body[at : at + 4]
        if head in (_FLUSH, _DELIMITER):
            at += 4
            continue
        try:
            size = int(head, 16)
        except ValueError:
            size = 0
        if size < 4 or at + size > len(body):
            raise errors.InvalidRequest("this is no request of git's: a line's length is wrong")
        yield body[at + 4 : at + size]
        at += size
