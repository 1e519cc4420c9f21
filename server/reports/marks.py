"""What the words beside a report's fields say: how it ended, and what was tried."""

import re

from server.reports.report import DASHES, flatten

_ENDED = r"(discard|crash)(?:ed)?\b(?!-\w)"
_STATUS = r"(?:status|verdict|outcome)"

_OPENED = re.compile(
    rf"[(\[{{]\W{{0,4}}(?:(discard|crash)ed\b|(discard|crash)[*_`]{{0,4}}\s{{0,4}}[:,;.)\]}}{DASHES}](?!\w))",
    re.IGNORECASE,
)
_BRACKETED = re.compile(
    rf"[*_]{{0,3}}[(\[{{]\W{{0,4}}{_ENDED}[*_`]{{0,4}}\s{{0,4}}[:,;.{DASHES}]?([^()\[\]{{}}]{{0,200}})[)\]}}][*_]{{0,3}}",
    re.IGNORECASE,
)
_LEADING = re.compile(
    rf"\W*(?:{_STATUS}\W{{1,8}})?{_ENDED}"
    rf"(?:[*_`]{{0,4}}(?:[:.,;!|)\]]|\s[{DASHES}]|[{DASHES}]\s)|\W*\Z)",
    re.IGNORECASE,
)
_STATED = re.compile(rf"\b{_STATUS}\W{{1,8}}{_ENDED}", re.IGNORECASE)
_TRAILING = re.compile(rf"(?:[:|;,./>{DASHES}]|→)[\s*_`]{{0,8}}{_ENDED}\W*\Z", re.IGNORECASE)
_SHOUTED = re.compile(r"(?<![\w-])(DISCARD|CRASH)(?:ED)?(?![\w-])")
_DENIED = re.compile(
    r"\b(?:no|not|never|without|a|the|fix(?:es|ed)?|avoids?|prevents?)\s{1,2}\Z", re.IGNORECASE
)

_LABEL = re.compile(r"\W{0,8}(?:description|desc|text|change|idea)[*_`]{0,4}\s?:", re.IGNORECASE)
_STATUS_LINE = re.compile(rf"\W{{0,8}}{_STATUS}\W", re.IGNORECASE)
_LETTER = re.compile(r"[^\W_]")

_PAIRS = [
    (
        pair,
        re.compile(rf"(?<!\w){re.escape(pair)}(?=\S)"),
        re.compile(rf"(?<=\S){re.escape(pair)}(?!\w)"),
    )
    for pair in ("**", "__", "`", "*", "_")
]

# What may stand between two fields of one report: remarks in brackets, other fields, units, marks.
EXTRA_FIELD = r"(?<![A-Za-z0-9-])[A-Za-z_][\w-]{0,30}[*_`]{0,4}\s{0,2}[:=][*_`~\s]{0,4}[^\s|]{1,80}"
_BESIDE_FIELDS = re.compile(
    rf"\([^()]{{0,200}}\)|\[[^\[\]]{{0,200}}\]|{EXTRA_FIELD}"
    r"|\b(?:discard(?:ed)?|crash(?:ed)?|keep|gi?b|bpb|parent|previous|prev|old)\b",
    re.IGNORECASE,
)


def says_nothing(text: str) -> bool:
    """True when fields on either side of this text belong together."""
    return not _LETTER.search(_BESIDE_FIELDS.sub(" ", text))


def is_mark(line: str) -> bool:
    """True for a line such as `**DISCARD**: worse` or `status: crash`."""
    return _LEADING.match(line) is not None


def read_marks(text: str, *, shouted: bool = True) -> set[str]:
    """`discard`, `crash`, both or neither.

    In any case in brackets, at either end, or after `status:`; in capitals anywhere, if `shouted`.
    """
    marks = {(match[1] or match[2]).lower() for match in _OPENED.finditer(text)}
    for pattern in (_STATED, _TRAILING):
        marks |= {match[1].lower() for match in pattern.finditer(text)}
    if leading := _LEADING.match(text):
        marks.add(leading[1].lower())
    for match in _SHOUTED.finditer(text) if shouted else ():
        if not _DENIED.search(text[max(match.start() - 12, 0) : match.start()]):
            marks.add(match[1].lower())
    return marks


def read_description(tail: str) -> str:
    """The text that follows a report's fields: behind the first bar if there is one."""
    head, bar, rest = tail.partition("|")
    lines = (rest if bar and says_nothing(head) else tail).split("\n")
    labelled = [line for line in lines if _LABEL.match(line)]
    spoken = [line for line in lines if _LETTER.search(line) and not _STATUS_LINE.match(line)]
    text = next(iter([*labelled, *spoken]), "")
    if label := _LABEL.match(text):
        text = text[label.end() :]
    return bare_ends(text)


def without_marks(description: str) -> str:
    """The reason of `(CRASH: out of memory)` stays."""
    plain = _BRACKETED.sub(
        lambda mark: f"({reason})" if (reason := mark[2].strip(" *_`")) else "", description
    )
    if leading := _LEADING.match(plain):
        plain = plain[leading.end() :]
    if trailing := _TRAILING.search(plain):
        plain = plain[: trailing.start()]
    return bare_ends(plain)


def bare_ends(text: str) -> str:
    """Flat, and without separators and halves of Markdown's pairs at either end."""
    text = flatten(text).strip(" |;,:>")
    text = re.sub(rf"\A[{DASHES}]+\s", "", text)
    for pair, opened, closed in _PAIRS:
        excess = len(closed.findall(text)) - len(opened.findall(text))
        if excess > 0:
            text = text.removesuffix(pair).rstrip(" |;,:")
        elif excess < 0:
            text = text.removeprefix(pair).lstrip(" |;,:")
    return text
