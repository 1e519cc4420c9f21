"""Terms: what messages and changes are compared by.

A term is a word in lower case (`matrix_lr`, and its parts `matrix` and `lr`), a number in one
spelling (0.040 is `0.04`), or, with a minus in front, one of those that a change only takes away:
so a change differs from its reverse. Terms hold no blanks, quotes or other signs.
"""

import re
from collections.abc import Iterator

MESSAGE_CHARS = 8 * 1024
#: Changed lines of one commit; those of train.py come first.
CHANGE_CHARS = 16 * 1024
_TERM_CHARS = 64
_TERM = re.compile(r"[^\W\d]\w*|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_DIFF = re.compile(r"^(?:diff --git |@@ -|--- [^\n]*\n\+\+\+ )", re.MULTILINE)
_TRAIN = re.compile(r"\+\+\+ (?:.*/)?train\.py\s*")
_TELLING = re.compile(r"[\d_]")


def read_words(text: str) -> list[str]:
    """The terms of a text, each once."""
    return list(dict.fromkeys(_words(text)))


def read_change(diff: str) -> list[str]:
    """The terms of a diff's added lines, then those that only its removed lines have."""
    room = CHANGE_CHARS
    sides: dict[str, list[str]] = {"+": [], "-": []}
    for line in _changed_lines(diff):
        sides[line[0]].append(line[1:room])
        room -= len(line)
        if room <= 0:
            break
    added, removed = (read_words("\n".join(lines)) for lines in sides.values())
    kept = set(added)
    return added + [f"-{term}" for term in removed if term not in kept]


def split_diff(text: str) -> tuple[str, str]:
    """What stands in a text before its first diff, and the rest."""
    found = _DIFF.search(text)
    at = found.start() if found else len(text)
    return text[:at], text[at:]


def is_telling(term: str) -> bool:
    """Whether it looks like a number or a name in code."""
    return bool(_TELLING.search(term))


def _words(text: str) -> Iterator[str]:
    for found in _TERM.finditer(text):
        word = found[0][:_TERM_CHARS]
        if word[0].isdigit() or word[0] == ".":
            yield _number(word)
            continue
        word = word.strip("_").casefold()
        if len(word) > 1:
            yield word
        parts = word.split("_")
        if len(parts) > 1:
            yield from (part for part in parts if len(part) > 1)


def _number(word: str) -> str:
    try:
        return format(float(word), ".10g").replace("+", "")
    except ValueError:
        # As in `1_`, or where it was cut.
        return re.sub(r"\W", "", word)


def _changed_lines(diff: str) -> list[str]:
    """Lines that begin with + or -, in the order of the diff but those of train.py first."""
    first: list[str] = []
    rest: list[str] = []
    lines, file, is_hunk = diff.split("\n"), rest, False
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("--- ") and after.startswith("+++ "):
            file, is_hunk = (first if _TRAIN.fullmatch(after) else rest), False
        elif line.startswith("diff --git "):
            is_hunk = False
        elif line.startswith("@@ "):
            is_hunk = True
        elif is_hunk and line.startswith(("+", "-")):
            file.append(line)
    return first + rest
