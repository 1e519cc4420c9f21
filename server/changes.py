"""What a commit tried, read from its diff: which settings of `train.py`, or else which parts of it.

For grouping results: "what kinds of change paid". Diffs are whatever agents push, so reading one
takes time in proportion to its length, and what comes out is bounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

CHANGES_MAX = 50
#: Of a diff; the rest is not looked at.
DIFF_CHARS = 1_000_000
VALUE_CHARS = 80
_PATH_CHARS = 200
_LINE_CHARS = 400

_HUNK = re.compile(r"@@ -[0-9]+(?:,([0-9]{1,9}))? \+[0-9]+(?:,([0-9]{1,9}))? @@ ?(.*)")
_SETTING = re.compile(r"\s*([A-Z][A-Z0-9_]+)\s*(?::[^=]*)?=(?!=)\s*(.*)")
_SCOPE = re.compile(r"(\s*)(?:async\s+)?(def|class)\s+(\w{1,64})")


@dataclass(frozen=True, slots=True)
class Change:
    #: A setting (`DEPTH`), a part of train.py (`class Attention`, `def norm`, `comments`, `other`),
    #: or the path of another file.
    kind: str
    #: A setting's value: None where it was not there, or where only a part of it is known.
    before: str | None = None
    after: str | None = None


def classify(diff: str) -> list[str]:
    """The kinds of the changes, each once: file by file, settings before parts."""
    return list(dict.fromkeys(change.kind for change in read_changes(diff)))


def read_changes(diff: str) -> list[Change]:
    """What a unified diff as `git diff` writes it changes, at most 50 of it.

    A part is the outermost class or function that the diff shows around a line. Comments and
    spacing count only where nothing else in train.py changed, as `comments`; code outside of all
    parts likewise, as `other`.
    """
    changes: dict[Change, None] = {}
    for file in _files(diff[:DIFF_CHARS]):
        for change in _file_changes(file):
            changes[change] = None
            if len(changes) == CHANGES_MAX:
                return list(changes)
    return list(changes)


# The diff --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Hunk:
    #: What git shows behind the second @@; "" where it shows nothing.
    heading: str
    #: With their signs.
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _File:
    path: str
    #: Added or deleted whole.
    whole: bool = False
    hunks: list[_Hunk] = field(default_factory=list)


def _files(diff: str) -> Iterator[_File]:
    file: _File | None = None
    old = new = 0
    fresh = False
    for line in diff.split("\n"):
        if file and file.hunks and (old > 0 or new > 0):
            # Counted, so that no removed line `-- a/x` passes for the next file.
            sign = line[:1] or " "
            if sign in " +-":
                file.hunks[-1].lines.append((line or " ")[:_LINE_CHARS])
                old -= sign != "+"
                new -= sign != "-"
            continue
        if line.startswith("diff --git "):
            if file:
                yield file
            names = line.removeprefix("diff --git ")
            file, fresh = _File(_path(names[(len(names) + 1) // 2 :])), True
        elif line.startswith("--- "):
            if file and not fresh:
                yield file
            if not fresh:
                file = None
            file, fresh = _named(file, line[4:]), False
        elif line.startswith("+++ ") and file:
            file = _named(file, line[4:])
        elif file and (hunk := _HUNK.match(line[:_LINE_CHARS])):
            old, new = (int(count) if count else 1 for count in hunk.group(1, 2))
            file.hunks.append(_Hunk(hunk[3]))
    if file:
        yield file


def _named(file: _File | None, name: str) -> _File:
    if name.rstrip() == "/dev/null":
        return _File(file.path if file else "", whole=True)
    return _File(_path(name), whole=bool(file and file.whole))


def _path(name: str) -> str:
    name = name[: _PATH_CHARS + 4].strip(' "\t\r')
    name = name[2:] if name[:2] in ("a/", "b/") else name
    return "".join(c if c.isprintable() else "?" for c in name)[:_PATH_CHARS]


# train.py --------------------------------------------------------------------------------------


def _file_changes(file: _File) -> Iterator[Change]:
    if file.whole or not file.hunks or file.path.rpartition("/")[2] != "train.py":
        yield Change(file.path or "other")
        return
    reading = _Reading()
    for hunk in file.hunks:
        reading.read(hunk)
    settings = reading.settings()
    yield from settings
    yield from map(Change, reading.parts)
    if not settings and not reading.parts:
        yield Change("other" if reading.has_code else "comments")


@dataclass(slots=True)
class _Side:
    """The file before or after, as far as one hunk has been read."""

    #: Outermost class or function; "" at the top level, None where the diff does not show it.
    part: str | None
    #: The setting whose brackets are open.
    within: str = ""
    #: Name and value of each setting that is only on this side.
    settings: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    parts: dict[str, None] = field(default_factory=dict)
    has_code: bool = False
    _pairs: list[tuple[str, str, str]] = field(default_factory=list)
    #: Settings of which the diff shows only lines between their brackets.
    _within: dict[str, None] = field(default_factory=dict)
    #: Settings that one hunk only removes or only adds; moved ones have their partner in another.
    _removed: dict[str, list[str]] = field(default_factory=dict)
    _added: dict[str, list[str]] = field(default_factory=dict)

    def read(self, hunk: _Hunk) -> None:
        part = _part(hunk.heading) if hunk.heading else None
        before, after = _Side(part), _Side(part)
        for line in hunk.lines:
            sign, text = line[0], line[1:]
            if not text.strip() or text.lstrip().startswith("#"):
                continue
            if sign in " -":
                self._follow(before, text, changed=sign == "-")
            if sign in " +":
                self._follow(after, text, changed=sign == "+")
        self._match(before.settings, after.settings)

    def _follow(self, side: _Side, text: str, *, changed: bool) -> None:
        within = side.within
        if within and text.lstrip()[0] in ")]}":
            side.within = ""
        setting = None if within else _SETTING.match(text)
        if setting:
            value = _value(setting[2])
            side.within = setting[1] if value.endswith(("(", "[", "{")) else ""
            if changed:
                side.settings.append((setting[1], value))
        if not text[0].isspace() and not within:
            side.part = _part(text)
        elif side.part is None and (scope := _SCOPE.match(text)):
            side.part = f"{scope[2]} {scope[3]}"
        if changed and within:
            self._within[within] = None
        elif changed and not setting:
            self.has_code = True
            if side.part:
                self.parts[side.part] = None

    def _match(self, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
        """Pair what became of each setting: the first of a name with the first of that name."""
        waiting: dict[str, list[str]] = {}
        for name, value in reversed(after):
            waiting.setdefault(name, []).append(value)
        for name, value in before:
            if waiting.get(name):
                self._pairs.append((name, value, waiting[name].pop()))
            else:
                self._removed.setdefault(name, []).append(value)
        for name, values in waiting.items():
            self._added.setdefault(name, []).extend(reversed(values))

    def settings(self) -> list[Change]:
        pairs: list[tuple[str, str | None, str | None]] = list(self._pairs)
        for name in dict.fromkeys([*self._removed, *self._added]):
            values = zip_longest(self._removed.get(name, []), self._added.get(name, []))
            pairs += [(name, *pair) for pair in values]
        changes = [
            Change(name, _cut(before), _cut(after))
            for name, before, after in pairs
            if before != after
        ]
        # Where the whole of a value is told, its parts say nothing more.
        known = {change.kind for change in changes}
        return changes + [Change(name) for name in self._within if name not in known]


def _cut(value: str | None) -> str | None:
    return value if value is None else value[:VALUE_CHARS]


def _part(text: str) -> str:
    scope = _SCOPE.match(text)
    return f"{scope[2]} {scope[3]}" if scope and not scope[1] else ""


def _value(text: str) -> str:
    """Without its comment, and spaced in one way."""
    quote, escaped, end = "", False, len(text)
    for at, char in enumerate(text):
        if escaped or char == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#":
            end = at
            break
    return " ".join(text[:end].split()).rstrip(",;")
