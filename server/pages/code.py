"""Source code as lines of coloured pieces, by Pygments. The colours are in `static/code.css`.

Only languages that experiments are written in, and only texts of a bounded size: what cannot be
coloured quickly is shown plain.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

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
#: What a piece takes in memory, about.
PIECE_BYTES = 150
#: Class ("" for none) and text of a piece.
Piece = tuple[str, str]
Line = tuple[Piece, ...]


def language_of(path: str) -> str:
    """The language of a file by its name; "" for one that is shown plain."""
    name = path.rpartition("/")[2].lower()
    return _LEXERS.get(name.rpartition(".")[2], "")


def colour(text: str, language: str) -> Sequence[Line]:
    """The lines of a text; plain ones for an unknown language or a text that is too long."""
    name = _LEXERS.get(language.lower(), "")
    lines = text.split("\n")
    if not name or len(text) > CHARS_MAX or any(len(line) > LINE_CHARS_MAX for line in lines):
        return [((("", line),) if line else ()) for line in lines]
    return _colour(text, name)


_colouring = threading.Lock()


def _weigh(lines: Sequence[Line]) -> int:
    return sum(64 + PIECE_BYTES * len(line) for line in lines)


@kept(_weigh)
def _colour(text: str, name: str) -> Sequence[Line]:
    lines: list[list[Piece]] = [[]]
    seen = 0
    # Pieces take many times what their text does: not those of sixteen texts at the same time.
    with _colouring:
        # Not `get_tokens`: it changes line ends and drops blank lines.
        for _, kind, value in islice(_lexer(name).get_tokens_unprocessed(text), TOKENS_MAX):
            seen += len(value)
            _add(lines, _class_of(kind), value)
        _add(lines, "", text[seen:])
        return [tuple(line) for line in lines]


def _add(lines: list[list[Piece]], css: str, value: str) -> None:
    for number, part in enumerate(value.split("\n")):
        if number:
            lines.append([])
        if part and lines[-1] and lines[-1][-1][0] == css:
            lines[-1][-1] = css, lines[-1][-1][1] + part
        elif part:
            lines[-1].append((css, part))


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


def mark_up(line: Line) -> Markup:
    """One line as HTML, cut where it gets too long."""
    return Markup("").join(_spans(line))


def _spans(line: Line) -> Iterator[Markup]:
    room = SHOWN_CHARS_MAX
    for css, text in line:
        # Elsewhere it ends a line, and here it must not look like one.
        shown = escape(clean(text[: max(room, 0)].replace("\r", "[U+000D]")))
        room -= len(text)
        if shown:
            yield Markup('<span class="{}">{}</span>').format(css, shown) if css else shown
    if room < 0:
        yield Markup('<span class="cut"> … {:,} more characters</span>').format(-room)
