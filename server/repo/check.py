"""Checks of one object's own bytes, as `git fsck --strict` makes them and a little stricter.

Every refusal names the object and what is wrong with it. What an object refers to is not looked
at here; that is `stage.py`'s.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple, NoReturn

from server.errors import InvalidBundle
from server.repo.caps import Caps
from server.repo.pack import BLOB, COMMIT, KINDS, TAG, TREE

SYMLINK = b"120000"
DIRECTORY = b"40000"
_GITLINK = b"160000"
_MODES = {b"100644", b"100755", SYMLINK, DIRECTORY}

_ENTRY = re.compile(rb"([0-9]{1,7}) ([^\0]{0,65536})\0(.{20})", re.DOTALL)
# Names that need no second look: nothing of git's, nothing a file system folds or splits.
_PLAIN = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.+-]*")
# Code points that HFS+ ignores in names.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def _name(names: str) -> re.Pattern[str]:
    """What NTFS takes for one of the names: 8.3 forms, trailing dots and spaces, streams.

    A backslash separates directories on Windows, so any part of a name may match.
    """
    return re.compile(rf"(?:\A|\\)(?:{names})[. ]*(?::[^\\]*)?(?:\\|\Z)", re.IGNORECASE | re.DOTALL)


_SHORT = r"(?=[^\\]{8}(?:[. :\\]|\Z))"
_DOT_GIT = _name(r"\.git|git~1")
_GITMODULES = _name(rf"\.gitmodules|gitmod~[1-4]|{_SHORT}g?i?7?e?b?a?~[1-9][0-9]*")
_GITATTRIBUTES = _name(rf"\.gitattributes|gitatt~[1-4]|{_SHORT}g?i?7?d?2?9?~[1-9][0-9]*")
_ATTRIBUTES_LINE_BYTES = 2048

_HEX = rb"[0-9a-f]{40}"
_IDENT = rb"(?!<)[^<>\n\0]* <[^<>\n\0]*> (0|[1-9][0-9]{0,18}) [+-][0-9]{4}\n"
# Repeats are possessive (`*+`): a group that may be given back costs a hundred bytes a line.
_COMMIT = re.compile(
    rb"tree (" + _HEX + rb")\n((?:parent " + _HEX + rb"\n)*+)author " + _IDENT + rb"committer "
    # What may follow, e.g. gpgsig and encoding: header lines up to an empty line or the end.
    + _IDENT + rb"(?:(?!author |committer |tree |parent )[^\n\0]++\n)*+(?:\n|\Z)"
)  # fmt: skip
_COMMIT_PARTS = (
    ("tree", re.compile(rb"tree " + _HEX + rb"\n")),
    ("parent", re.compile(rb"(?:parent " + _HEX + rb"\n)*+(?!parent )")),
    ("author", re.compile(rb"author " + _IDENT)),
    ("committer", re.compile(rb"committer " + _IDENT)),
)
_TAG = re.compile(
    rb"object (" + _HEX + rb")\ntype (commit|tree|blob|tag)\ntag [^\n\0]+\n"
    rb"(?:tagger " + _IDENT + rb")?(?:[^\n\0]++\n)*+(?:\n|\Z)"
)
_PARENT_BYTES = len("parent \n") + 40
_DATE_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Links:
    """What a commit or a tag refers to."""

    tree: str = ""
    parents: tuple[str, ...] = ()
    target: str = ""


class TreeEntry(NamedTuple):
    mode: bytes
    name: bytes
    hash: str

    @property
    def kind(self) -> int:
        return TREE if self.mode == DIRECTORY else BLOB


def check_object(kind: int, sha: str, data: bytes, caps: Caps) -> Links | None:
    if kind == TREE:
        check_tree(sha, data, caps)
    if kind == COMMIT:
        return check_commit(sha, data, caps)
    if kind == TAG:
        return check_tag(sha, data)
    return None


def read_tree(data: bytes) -> Iterator[TreeEntry]:
    """Entries of a tree; ends early where the bytes stop being entries."""
    scan = _ENTRY.scanner(data)  # type: ignore[attr-defined]
    while found := scan.match():
        mode, name, sha = found.groups()
        yield TreeEntry(mode, name, sha.hex())


def check_tree(sha: str, data: bytes, caps: Caps) -> None:
    last_key = b""
    size = 0
    files: set[bytes] = set()
    for count, entry in enumerate(read_tree(data), 1):
        mode, name, _ = entry
        if mode not in _MODES:
            _refuse_mode(sha, entry)
        if not _PLAIN.fullmatch(name):
            _check_name(sha, entry)
        key = name + b"/" if mode == DIRECTORY else name
        if name in files or key == last_key:
            _refuse(TREE, sha, f"has two entries named {shown(name)}")
        if key < last_key:
            _refuse(TREE, sha, f"is not sorted at {shown(name)}")
        if mode != DIRECTORY:
            files.add(name)
        last_key = key
        size += len(mode) + len(name) + 22
        if count > caps.tree_paths:
            _refuse(TREE, sha, f"has more than {caps.tree_paths} entries")
    if size != len(data):
        _refuse(TREE, sha, f"cannot be read after {size} of {len(data)} bytes")


def _refuse_mode(sha: str, entry: TreeEntry) -> NoReturn:
    if entry.mode == _GITLINK:
        _refuse(TREE, sha, f"holds the submodule {shown(entry.name)}, which this hub does not take")
    _refuse(TREE, sha, f"gives {shown(entry.name)} the mode {shown(entry.mode)}")


def _check_name(sha: str, entry: TreeEntry) -> None:
    name = entry.name
    if not name:
        _refuse(TREE, sha, "has an entry with an empty name")
    if name in (b".", b".."):
        _refuse(TREE, sha, f"has an entry named {shown(name)}")
    if b"/" in name:
        _refuse(TREE, sha, f"has a slash in the name {shown(name)}")
    folded = _fold(name)
    if _DOT_GIT.search(folded):
        _refuse(TREE, sha, f"has an entry that git takes for .git: {shown(name)}")
    if _GITMODULES.search(folded):
        _refuse(TREE, sha, f"declares submodules ({shown(name)}), which this hub does not take")
    if is_attributes(name) and entry.mode in (DIRECTORY, SYMLINK):
        _refuse(TREE, sha, f"has a {shown(name)} that is no file")


def is_attributes(name: bytes) -> bool:
    return not _PLAIN.fullmatch(name) and bool(_GITATTRIBUTES.search(_fold(name)))


def check_attributes(sha: str, data: bytes) -> None:
    start = 0
    while len(data) - start >= _ATTRIBUTES_LINE_BYTES:
        # Many short lines are passed in one step.
        end = data.rfind(b"\n", start, start + _ATTRIBUTES_LINE_BYTES)
        if end < 0:
            _refuse(BLOB, sha, "is a .gitattributes with a line of more than 2047 bytes")
        start = end + 1


def link_climb(owner: str, name: bytes, target: bytes, caps: Caps) -> int:
    """How many folders above its own a symlink reaches."""
    if not target or b"\0" in target or len(target) > caps.path_bytes:
        _refuse(TREE, owner, f"has a symlink {shown(name)} whose target is no path")
    if target.startswith(b"/"):
        _refuse(TREE, owner, f"has a symlink {shown(name)} to the absolute path {shown(target)}")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    if any(_DOT_GIT.search(_fold(part)) for part in parts):
        _refuse(TREE, owner, f"has a symlink {shown(name)} into .git")
    climb = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
    # Below a name the way up may start elsewhere, for the name may be a symlink itself.
    if b".." in parts[climb:]:
        _refuse(TREE, owner, f"has a symlink {shown(name)} that climbs after it descended")
    return climb


def _fold(name: bytes) -> str:
    return _IGNORED.sub("", name.decode(errors="surrogateescape"))


def check_commit(sha: str, data: bytes, caps: Caps) -> Links:
    found = _COMMIT.match(data)
    if not found:
        _refuse(COMMIT, sha, f"has {_what_is_wrong(data)}")
    if b"\0" in data:
        _refuse(COMMIT, sha, "has a NUL in its message")
    for date in (found[3], found[4]):
        _check_date(COMMIT, sha, date)
    count = len(found[2]) // _PARENT_BYTES
    if count > caps.parents:
        _refuse(COMMIT, sha, f"has {count} parents, at most {caps.parents} are taken")
    # Interned: packs hold millions of parent lines, and few different ones.
    parents = tuple(intern(line[7:].decode()) for line in found[2].splitlines())
    if len(set(parents)) < len(parents):
        _refuse(COMMIT, sha, "names a parent twice")
    return Links(tree=found[1].decode(), parents=parents)


def read_links(content: bytes) -> Links:
    """What a stored commit refers to."""
    parents, at = [], 46
    while content.startswith(b"parent ", at):
        parents.append(content[at + 7 : at + 47].decode())
        at += 48
    return Links(tree=content[5:45].decode(), parents=tuple(parents))


def _what_is_wrong(data: bytes) -> str:
    at = 0
    for part, pattern in _COMMIT_PARTS:
        found = pattern.match(data, at)
        if not found:
            return f"a bad or missing {part} line"
        at = found.end()
    return "headers that git does not accept after its committer line"


def check_tag(sha: str, data: bytes) -> Links:
    found = _TAG.match(data)
    if not found:
        _refuse(TAG, sha, "has headers that git does not accept")
    if found[3]:
        _check_date(TAG, sha, found[3])
    return Links(target=found[1].decode())


def _check_date(kind: int, sha: str, date: bytes) -> None:
    if int(date) > _DATE_MAX:
        _refuse(kind, sha, "has a date that git cannot hold")


def _refuse(kind: int, sha: str, what: str) -> NoReturn:
    raise InvalidBundle(f"{KINDS[kind]} {sha} {what}", subjects=[sha])


def shown(text: bytes) -> str:
    """Bytes of a path in a message: quoted, nothing unprintable, not too long."""
    cut = text[:200].decode(errors="backslashreplace")
    return ascii(cut) if not cut.isprintable() else f"'{cut}'"
