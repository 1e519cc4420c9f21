"""Source code as lines of HTML, coloured by Pygments. The colours are in `static/code.css`.

Only languages that experiments are written in, and only texts of a bounded size: what cannot be
coloured quickly is shown plain. Lines are coloured as they are looked at, and kept: versions of a
file share nearly all of them.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import overload

from markupsafe import Markup, escape
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Token, _TokenType
from pygments.util import ClassNotFound

from server.kept import kept
from server.pages.text import clean

CHARS_MAX = 128 * 1024
#: Some languages take quadratic time on long lines.
LINE_CHARS_MAX = 1_000
TOKENS_MAX = 60_000
#: Of a line on a page.
SHOWN_CHARS_MAX = 2_000

_LANGUAGES = {
    "python": "python py python3 pyi pyx",
    "pycon": "pycon",
    "json": "json jsonl ipynb",
    "toml": "toml lock",
    "yaml": "yaml yml",
    "ini": "ini cfg",
    "bash": "bash sh shell zsh",
    "console": "console",
    "c": "c h",
    "cpp": "cpp cc cxx hpp c++",
    "cuda": "cuda cu cuh",
    "rust": "rust rs",
    "go": "go",
    "javascript": "javascript js mjs",
    "typescript": "typescript ts",
    "css": "css",
    "sql": "sql",
    "diff": "diff patch",
    "make": "make makefile",
    "docker": "docker dockerfile",
}
_LEXERS = {alias: name for name, aliases in _LANGUAGES.items() for alias in aliases.split()}
# The nearest kind above a token's own decides its class.
_CLASSES: dict[_TokenType, str] = {
    Comment: "c",
    Keyword: "k",
    Keyword.Constant: "m",
    Operator.Word: "k",
    String: "s",
    String.Doc: "c",
    Number: "m",
    Name.Function: "f",
    Name.Class: "f",
    Name.Decorator: "d",
    Name.Builtin: "b",
    Name.Builtin.Pseudo: "b",
    Name.Tag: "k",
    Name.Attribute: "f",
    Token.Generic.Deleted: "gd",
    Token.Generic.Inserted: "gi",
    Token.Generic.Heading: "k",
    Token.Generic.Subheading: "f",
    Token.Generic.Prompt: "c",
}
#: Class ("" for none) and text of a piece.
_Piece = tuple[str, str]
# What may go on over several lines of Python: strings. Comments and other strings may hold quotes.
_STRINGS = re.compile(
    r"#[^\n]*"
    r'|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"""|\Z)'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:'''|\Z)"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'?",
    re.DOTALL,
)
#: Bytes that a line takes in memory beside its HTML, about.
_LINE_BYTES, _BLOCK_BYTES = 60, 400


def language_of(path: str) -> str:
    """The language of a file by its name; "" for one that is shown plain."""
    name = path.rpartition("/")[2].lower()
    return _LEXERS.get(name.rpartition(".")[2], "")


class Lines(Sequence[Markup]):
    """The lines of a text as HTML, each made when it is looked at."""

    def __init__(self, text: str, name: str) -> None:
        self.texts = text.split("\n")
        if len(text) > CHARS_MAX or max(map(len, self.texts)) > LINE_CHARS_MAX:
            name = ""
        self._name = name
        self._room = TOKENS_MAX
        #: Where lines that must be coloured together begin and end, by each of them.
        self._blocks = _find_blocks(text, len(self.texts), name)
        self._made: dict[int, Sequence[Markup]] = {}

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> Markup: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Markup]: ...
    def __getitem__(self, at: int | slice) -> Markup | Sequence[Markup]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        first, end = self._blocks.get(at) or (at, at + 1)
        if first not in self._made:
            self._made[first] = self._make(first, end)
        return self._made[first][at - first]

    def _make(self, first: int, end: int) -> Sequence[Markup]:
        if not self._name or self._room <= 0:
            return [plain(text) for text in self.texts[first:end]]
        count, made = _colour("\n".join(self.texts[first:end]), self._name)
        self._room -= count
        return made


def colour(text: str, language: str) -> Lines:
    """The lines of a text; plain ones for an unknown language or a text that is too long."""
    return Lines(text, _LEXERS.get(language.lower(), ""))


def _find_blocks(text: str, count: int, name: str) -> dict[int, tuple[int, int]]:
    """Lines of Python stand alone, unless a string goes on; elsewhere nobody knows."""
    if not name:
        return {}
    if name != "python":
        return dict.fromkeys(range(count), (0, count))
    blocks: dict[int, tuple[int, int]] = {}
    if not any(sign in text for sign in ('"""', "'''", "\\\n")):
        return blocks
    line = at = begun = end = 0
    for found in _STRINGS.finditer(text):
        more = found[0].count("\n")
        if more:
            line += text.count("\n", at, found.start())
            # Another one may begin where the last one ended.
            begun = begun if line < end else line
            line, at, end = line + more, found.end(), line + more + 1
            blocks.update(dict.fromkeys(range(begun, end), (begun, end)))
    return blocks


def _weigh(made: tuple[int, Sequence[Markup]]) -> int:
    return _BLOCK_BYTES + sum(_LINE_BYTES + len(line) for line in made[1])


_colouring = threading.Lock()


@kept(_weigh)
def _colour(text: str, name: str) -> tuple[int, Sequence[Markup]]:
    """How many tokens it has, and its lines."""
    lines: list[list[_Piece]] = [[]]
    seen = count = 0
    # Pieces take many times what their text does: not those of sixteen texts at the same time.
    with _colouring:
        # Not `get_tokens`: it changes line ends and drops blank lines.
        for _, kind, value in islice(_lexer(name).get_tokens_unprocessed(text), TOKENS_MAX):
            seen += len(value)
            count += 1
            _add(lines, _class_of(kind), value)
        _add(lines, "", text[seen:])
        return count, [_mark_up(line) for line in lines]


def _add(lines: list[list[_Piece]], css: str, value: str) -> None:
    for number, part in enumerate(value.split("\n")):
        if number:
            lines.append([])
        if part and lines[-1] and lines[-1][-1][0] == css:
            lines[-1][-1] = css, lines[-1][-1][1] + part
        elif part:
            lines[-1].append((css, part))


@lru_cache(1_000)
def _class_of(kind: _TokenType) -> str:
    found: _TokenType | None = kind
    while found is not None and found not in _CLASSES:
        found = found.parent
    return "" if found is None else _CLASSES[found]


@lru_cache
def _lexer(name: str) -> Lexer:
    try:
        return get_lexer_by_name(name)
    except ClassNotFound:
        return get_lexer_by_name("text")


def number_lines(lines: Sequence[Markup]) -> Markup:
    """As rows of a table, each to be linked to by its number."""
    rows = [
        f'<tr id="L{n}"><td class="no"><a href="#L{n}">{n}</a></td>'
        f'<td class="src">{line}</td></tr>\n'
        for n, line in enumerate(lines, 1)
    ]
    return Markup("".join(rows))  # noqa: S704 - the lines are HTML


def plain(text: str) -> Markup:
    """One line as HTML, without colours."""
    return _mark_up([("", text)])


def _mark_up(line: Sequence[_Piece]) -> Markup:
    """One line as HTML, cut where it gets too long."""
    return Markup("".join(_spans(line)))  # noqa: S704 - all text in it is escaped


def _spans(line: Sequence[_Piece]) -> Iterator[str]:
    room = SHOWN_CHARS_MAX
    for css, text in line:
        # Elsewhere it ends a line, and here it must not look like one.
        shown = escape(clean(text[: max(room, 0)].replace("\r", "[U+000D]")))
        room -= len(text)
        if shown:
            yield f'<span class="{css}">{shown}</span>' if css else shown
    if room < 0:
        yield f'<span class="cut"> … {-room:,} more characters</span>'
