"""Diffs as `git diff` prints them, without renames and bounded in time and size.

Large and binary files are named, not compared. What is left out of a diff that would grow too
large is said in its last line.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from server.repo.check import DIRECTORY, TreeEntry, read_tree
from server.repo.lines import Effort, Hunk, compare_lines
from server.repo.pack import BLOB
from server.repo.store import Store

OUTPUT_BYTES = 8 * 2**20
_FILE_BYTES = 2**20
_FILE_LINES = 20_000
# Content read for one diff, and tree entries looked at: a tree can name one file often.
_FILES_MAX = 10_000
_READ_BYTES = 64 * 2**20
_ENTRIES_MAX = 100_000
_CUT = b"# This diff is too large; the rest is left out.\n"
_CONTEXT = 3
_BINARY_PROBE_BYTES = 8000
_ABSENT = "0" * 40
_FUNCTION = re.compile(rb"[A-Za-z_$]")
_ODD = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_ESCAPES = {7: b"\\a", 8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r"}
_ESCAPES |= {34: b'\\"', 92: b"\\\\"}


@dataclass(frozen=True, slots=True)
class Change:
    path: bytes
    old: TreeEntry | None
    new: TreeEntry | None


class _Exhausted(Exception):
    """The diff has become too large."""


def diff_trees(store: Store, a: str, b: str) -> bytes:
    return _Diff(store).run(a, b)


class _Diff:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._effort = Effort()
        self._read = 0
        self._entries = 0
        self._trees: dict[str, dict[bytes, TreeEntry]] = {}

    def run(self, a: str, b: str) -> bytes:
        parts: list[bytes] = []
        room = OUTPUT_BYTES
        try:
            for number, change in enumerate(self._sorted_changes(a, b)):
                # Whole files only, so that what is there can be applied.
                part = b"".join(self._file(change))
                room -= len(part)
                if room < 0 or number == _FILES_MAX:
                    raise _Exhausted
                parts.append(part)
            is_cut = self._entries > _ENTRIES_MAX
        except _Exhausted:
            is_cut = True
        return b"".join(parts) + (_CUT if is_cut else b"")

    def _sorted_changes(self, a: str, b: str) -> list[Change]:
        changes: list[Change] = []
        with contextlib.suppress(_Exhausted):
            for change in self._changes(b"", a, b):
                changes.append(change)
        return sorted(changes, key=lambda change: change.path)

    def _changes(self, path: bytes, a: str, b: str) -> Iterator[Change]:
        """Files that differ between two trees, either of which may be absent ("")."""
        old, new = self._tree(a), self._tree(b)
        for name in {**old, **new}:
            before, after = old.get(name), new.get(name)
            if before and after and (before.mode, before.hash) == (after.mode, after.hash):
                continue
            folders = _folder(before), _folder(after)
            if any(folders):
                yield from self._changes(path + name + b"/", *folders)
            files = _file(before), _file(after)
            if any(files):
                yield Change(path + name, *files)

    def _tree(self, sha: str) -> dict[bytes, TreeEntry]:
        if sha not in self._trees:
            found = self._store.get(sha) if sha else None
            entries = read_tree(found[1]) if found else ()
            self._trees[sha] = {entry.name: entry for entry in entries}
        self._entries += len(self._trees[sha]) + 1
        if self._entries > _ENTRIES_MAX:
            raise _Exhausted
        return self._trees[sha]

    def _file(self, change: Change) -> Iterator[bytes]:
        old, new = change.old, change.new
        if old and new and old.mode[:2] != new.mode[:2]:
            # A file that became a symlink is another file.
            yield from self._file(Change(change.path, old, None))
            yield from self._file(Change(change.path, None, new))
            return
        yield b"".join(_header(change))
        if old and new and old.hash == new.hash:
            return
        contents = [self._content(entry) for entry in (old, new)]
        names = _name(b"a/", change.path, old), _name(b"b/", change.path, new)
        if any(content is None or _is_binary(content) for content in contents):
            yield b"Binary files %s and %s differ\n" % names
            return
        body = b"".join(self._body(*[_split(content or b"") for content in contents]))
        if body:
            tab = b"\t" if b" " in change.path else b""
            tabs = [b"" if entry is None else tab for entry in (old, new)]
            yield b"--- %s%s\n+++ %s%s\n" % (names[0], tabs[0], names[1], tabs[1])
            yield body

    def _content(self, entry: TreeEntry | None) -> bytes | None:
        """A file's bytes; None when it is too large to be compared."""
        if entry is None:
            return b""
        size = self._store.size(entry.hash)
        if size > _FILE_BYTES:
            return None
        self._read += size
        if self._read > _READ_BYTES:
            raise _Exhausted
        found = self._store.get(entry.hash)
        content = found[1] if found and found[0] == BLOB else b""
        return content if content.count(b"\n") <= _FILE_LINES else None

    def _body(self, a: list[bytes], b: list[bytes]) -> Iterator[bytes]:
        function, seen = b"", 0
        for group in _groups(compare_lines(a, b, self._effort)):
            a0, b0 = max(0, group[0].a0 - _CONTEXT), max(0, group[0].b0 - _CONTEXT)
            a1, b1 = min(len(a), group[-1].a1 + _CONTEXT), min(len(b), group[-1].b1 + _CONTEXT)
            function, seen = _function(a, seen, a0, function), a0
            yield b"@@ -%s +%s @@%s\n" % (_range(a0, a1), _range(b0, b1), function)
            for hunk in group:
                yield from _lines(b" ", a[a0 : hunk.a0])
                yield from _lines(b"-", a[hunk.a0 : hunk.a1])
                yield from _lines(b"+", b[hunk.b0 : hunk.b1])
                a0 = hunk.a1
            yield from _lines(b" ", a[a0:a1])


def _folder(entry: TreeEntry | None) -> str:
    return entry.hash if entry and entry.mode == DIRECTORY else ""


def _file(entry: TreeEntry | None) -> TreeEntry | None:
    return None if _folder(entry) else entry


def _header(change: Change) -> Iterator[bytes]:
    old, new = change.old, change.new
    names = _quote(b"a/" + change.path), _quote(b"b/" + change.path)
    yield b"diff --git %s %s\n" % names
    mode = b""
    if old is None and new:
        yield b"new file mode %s\n" % new.mode
    elif new is None and old:
        yield b"deleted file mode %s\n" % old.mode
    elif old and new and old.mode != new.mode:
        yield b"old mode %s\nnew mode %s\n" % (old.mode, new.mode)
    elif new:
        mode = b" " + new.mode
    hashes = [entry.hash if entry else _ABSENT for entry in (old, new)]
    if hashes[0] != hashes[1]:
        short = [sha[:7].encode() for sha in hashes]
        yield b"index %s..%s%s\n" % (short[0], short[1], mode)


def _name(side: bytes, path: bytes, entry: TreeEntry | None) -> bytes:
    return _quote(side + path) if entry else b"/dev/null"


def _quote(path: bytes) -> bytes:
    if not _ODD.search(path):
        return path
    return b'"' + b"".join(map(_escape, path)) + b'"'


def _escape(byte: int) -> bytes:
    if byte in _ESCAPES:
        return _ESCAPES[byte]
    return b"\\%03o" % byte if byte < 32 or byte > 126 else bytes([byte])


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:_BINARY_PROBE_BYTES]


def _split(content: bytes) -> list[bytes]:
    lines = content.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _groups(hunks: list[Hunk]) -> Iterator[list[Hunk]]:
    """Hunks whose context touches go together."""
    group: list[Hunk] = []
    for hunk in hunks:
        if group and hunk.a0 - group[-1].a1 > 2 * _CONTEXT:
            yield group
            group = []
        group.append(hunk)
    if group:
        yield group


def _range(start: int, end: int) -> bytes:
    if end - start == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + 1 if end > start else start, end - start)


def _function(lines: list[bytes], start: int, end: int, before: bytes) -> bytes:
    """The line that git would show behind the second @@."""
    for at in range(end - 1, start - 1, -1):
        if _FUNCTION.match(lines[at]):
            return b" " + lines[at][:80].rstrip()
    return before


def _lines(sign: bytes, lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield sign + line
        if not line.endswith(b"\n"):
            yield b"\n\\ No newline at end of file\n"
