"""A diff as a page shows it: by file, numbered, coloured, one column or two, within bounds."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from server.pages import code

#: How much of a diff one page shows, and of one file on a page with others; `ah diff` has all.
LINES_MAX = 2_000
FILE_LINES_MAX = 1_000
FILES_MAX = 300
#: On the page of one file alone.
ALONE_LINES_MAX = 6_000
#: Files that stand open from the start, as long as they have no more lines together.
OPEN_LINES_MAX = 600

_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)", re.DOTALL)
_KINDS = {"+": "add", "-": "del", "\\": "note", " ": "same"}
_NEWS = {"new file mode": "new", "deleted file mode": "deleted", "Binary files": "binary"}
_CUT = b"# This diff is too large"


@dataclass(slots=True)
class Line:
    #: add, del, same, hunk or note.
    kind: str
    text: str
    old: int | None = None
    new: int | None = None
    #: Coloured, if it could be.
    coloured: Markup | None = None

    @property
    def html(self) -> Markup:
        return code.plain(self.text) if self.coloured is None else self.coloured


@dataclass(slots=True)
class FileDiff:
    name: str
    lines: list[Line] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    #: new, deleted, binary, or how the mode changed.
    news: list[str] = field(default_factory=list)
    #: False when lines are left out.
    is_whole: bool = True
    is_open: bool = False

    @property
    def pairs(self) -> list[tuple[Line | None, Line | None]]:
        """The lines side by side; hunks and notes stand on both."""
        return list(_pair(self.lines))


@dataclass(frozen=True, slots=True)
class Diff:
    files: list[FileDiff]
    #: True when git's own diff was cut, so that whole files are missing.
    is_cut: bool
    #: Files beyond those that are shown.
    more: int = 0

    @property
    def added(self) -> int:
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        return sum(file.removed for file in self.files)


def weigh_diff(diff: Diff) -> int:
    """The bytes it takes in memory, about."""
    lines = [line for file in diff.files for line in file.lines]
    return sum(300 + len(line.text) + len(line.coloured or "") for line in lines)


def parse_diff(raw: bytes, only: str | None = None) -> Diff:
    """Split what `git diff` prints; nothing in it is trusted to be well-formed.

    With `only`, just the file of that name, with more of its lines.
    """
    files: list[FileDiff] = []
    room = LINES_MAX
    parts = _split(raw)
    for part in parts if only is not None else parts[:FILES_MAX]:
        header, _, body = part.partition(b"\n")
        file = FileDiff(_name(header.decode(errors="replace")))
        if only is None or file.name == only:
            limit = min(room, FILE_LINES_MAX) if only is None else ALONE_LINES_MAX
            _fill(file, body.decode(errors="replace").split("\n"), limit)
            room -= len(file.lines)
            files.append(file)
    _open(files)
    more = 0 if only is not None else max(len(parts) - FILES_MAX, 0)
    return Diff(files, raw.rfind(_CUT, -200) >= 0, more)


def _split(raw: bytes) -> list[bytes]:
    """What there is of each file. Lines of files are indented by a sign, so none begins like it."""
    parts = (b"\n" + raw).split(b"\ndiff --git ")
    return [b"diff --git " + part for part in parts[1:]]


def _name(header: str) -> str:
    """The path of a file; both halves of the header are alike, for renames are not told."""
    half = header.removeprefix("diff --git ")
    half = half[: len(half) // 2]
    return half.removeprefix('"').removesuffix('"').removeprefix("a/") or header


def _fill(file: FileDiff, lines: Iterable[str], limit: int) -> None:
    old = new = 0
    in_hunk = False
    for text in lines:
        if found := _HUNK.match(text):
            in_hunk, old, new = True, int(found[1]), int(found[2])
            if len(file.lines) < limit:
                _add(file, Line("hunk", found[3]))
        elif in_hunk and len(file.lines) >= limit:
            file.is_whole = False
            file.added += text[:1] == "+"
            file.removed += text[:1] == "-"
        elif in_hunk and text[:1] in _KINDS:
            line = Line(_KINDS[text[:1]], text[1:])
            if line.kind in ("same", "del"):
                line.old, old = old, old + 1
            if line.kind in ("same", "add"):
                line.new, new = new, new + 1
            _add(file, line)
        elif not in_hunk:
            _tell(file, text)


def _add(file: FileDiff, line: Line) -> None:
    file.added += line.kind == "add"
    file.removed += line.kind == "del"
    file.lines.append(line)


def _tell(file: FileDiff, text: str) -> None:
    news = next((news for start, news in _NEWS.items() if text.startswith(start)), None)
    if news is not None:
        file.news.append(news)
    elif text.startswith(("old mode", "new mode")):
        file.news.append(text)


def _open(files: Sequence[FileDiff]) -> None:
    room = OPEN_LINES_MAX
    for number, file in enumerate(files):
        room -= len(file.lines)
        file.is_open = not number or room >= 0


def _pair(lines: Iterable[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    gone: list[Line] = []
    come: list[Line] = []
    for line in lines:
        if line.kind == "del" and not come:
            gone.append(line)
        elif line.kind == "add":
            come.append(line)
        elif line.kind == "note" and (gone or come):
            # It speaks of the line before it.
            (come or gone).append(line)
        else:
            yield from _zip(gone, come)
            gone, come = ([line], []) if line.kind == "del" else ([], [])
            if line.kind != "del":
                yield line, line
    yield from _zip(gone, come)


def _zip(gone: list[Line], come: list[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    for at in range(max(len(gone), len(come))):
        yield gone[at] if at < len(gone) else None, come[at] if at < len(come) else None


# Colours ----------------------------------------------------------------------------------------

#: The whole text of a file by its path, on one side of the diff; None if there is none to show.
Read = Callable[[str], str | None]


def colour_diff(diff: Diff, read_old: Read, read_new: Read) -> None:
    """Colour the lines as they stand in their whole files, where those can be had."""
    for file in diff.files:
        language = code.language_of(file.name)
        if language and file.lines:
            kinds = {line.kind for line in file.lines}
            old = _colour(read_old, file.name, language) if "del" in kinds else None
            new = _colour(read_new, file.name, language) if kinds & {"add", "same"} else None
            for line in file.lines:
                _paint(line, *((old, line.old) if line.kind == "del" else (new, line.new)))


def _colour(read: Read, name: str, language: str) -> code.Lines | None:
    text = read(name)
    return None if text is None else code.colour(text, language)


def _paint(line: Line, lines: code.Lines | None, number: int | None) -> None:
    if lines is None or number is None or not 0 < number <= len(lines):
        return
    if lines.texts[number - 1] == line.text:
        line.coloured = lines[number - 1]
