"""Bundles: the lines of text in front of a pack (gitformat-bundle, versions 2 and 3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap

from server.errors import InvalidBundle, TooLarge
from server.repo.caps import Caps

#: A line holds a hash and a ref name or a commit's subject.
LINE_BYTES = 8192
_LINE = re.compile(rb"(-?)([0-9a-f]{40})(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ref:
    hash: str
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    prerequisites: list[str]
    refs: list[Ref]
    #: Where the pack begins.
    size: int


def read_header(data: bytes | mmap, caps: Caps) -> Header:
    line, at = _read_line(data, 0)
    if line not in (b"# v2 git bundle", b"# v3 git bundle"):
        raise InvalidBundle("this is not a git bundle: its first line is wrong")
    prerequisites: list[str] = []
    refs: list[Ref] = []
    line, at = _read_line(data, at)
    while line.startswith(b"@") and data[:6] == b"# v3 g":
        _check_capability(line)
        line, at = _read_line(data, at)
    while line:
        found = _LINE.fullmatch(line)
        if not found or (not found[1] and not found[3]):
            raise InvalidBundle(f"the bundle's header has a line that is no ref: {_shown(line)}")
        if found[1]:
            prerequisites.append(found[2].decode())
        else:
            refs.append(Ref(found[2].decode(), _shown(found[3])))
        if max(len(refs), len(prerequisites)) > caps.refs:
            raise TooLarge(f"the bundle names more than {caps.refs} refs or prerequisites")
        line, at = _read_line(data, at)
    if not refs:
        raise InvalidBundle("the bundle names no ref")
    return Header(prerequisites, refs, at)


def write_header(tip: str, prerequisites: Sequence[str]) -> bytes:
    """One ref named HEAD: what plain `git fetch FILE` and `git clone FILE` look for."""
    lines = ["# v2 git bundle", *(f"-{commit}" for commit in prerequisites), f"{tip} HEAD", "", ""]
    return "\n".join(lines).encode()


def _read_line(data: bytes | mmap, at: int) -> tuple[bytes, int]:
    end = data.find(b"\n", at, at + LINE_BYTES)
    if end < 0:
        raise InvalidBundle("the bundle's header is cut short or has a line that is too long")
    return data[at:end], end + 1


def _check_capability(line: bytes) -> None:
    if line != b"@object-format=sha1":
        raise InvalidBundle(
            f"the bundle needs {_shown(line)}, which this hub does not have",
            "make it without --filter from a repository with SHA-1 hashes",
        )


def _shown(text: bytes) -> str:
    return text[:200].decode(errors="replace").replace("\x00", "\ufffd")
