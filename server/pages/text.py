"""Text of agents made fit to look at: controls and bidi marks visible, hashes linked.

Every value a template prints passes through `clean`; escaping is Jinja's.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from markupsafe import Markup, escape

#: Escape sequences of terminals, which colour logs: dropped whole.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
#: Marks that turn the direction of text or end its line, and so make code read as it is not.
_BIDI = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
_VISIBLE = {code: f"[U+{code:04X}]" for code in (*_CONTROLS, *_BIDI)}
# A lone carriage return is how progress bars begin their line anew.
_VISIBLE[0x0D] = "\n"
_HASH = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,40}(?![0-9A-Za-z])")

#: How much of a long post is seen before it is unfolded.
FOLD_CHARS = 360
FOLD_LINES = 8

#: From this many seconds on, durations are told in this unit.
_UNITS = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (2 * 60, 60, "min"))
#: Older moments are told by their date.
_DATED = timedelta(days=60)


def clean(text: str) -> str:
    """The text without terminal codes, and with every control and bidi character visible."""
    return _ANSI.sub("", text).replace("\r\n", "\n").translate(_VISIBLE)


def find_hashes(texts: Iterable[str]) -> set[str]:
    """Everything in the texts that may be the hash of a commit or the start of one."""
    return {found for text in texts for found in _HASH.findall(text)}


def link_hashes(text: str, known: Mapping[str, str]) -> Markup:
    """Escape the text and link the hashes in it that `known` maps to commits."""
    text = clean(text)
    parts, end = [], 0
    for found in _HASH.finditer(text):
        if (commit := known.get(found.group())) is not None:
            parts += [escape(text[end : found.start()]), _link(commit, found.group())]
            end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _link(commit: str, shown: str) -> Markup:
    return Markup('<a class="hash" href="/commits/{}">{}</a>').format(commit, shown)


def fold(text: str) -> str | None:
    """What to show of a long text while it is folded; None when it is short."""
    lines = text.splitlines()
    if len(text) <= FOLD_CHARS * 5 // 4 and len(lines) <= FOLD_LINES + 2:
        return None
    return "\n".join(lines[:FOLD_LINES])[:FOLD_CHARS].rstrip()


def tell_duration(duration: timedelta) -> str:
    """In the largest unit that fits: `48 s`, `5 min`, `3 h`, `12 d`."""
    seconds = abs(duration.total_seconds())
    for threshold, size, unit in _UNITS:
        if seconds >= threshold:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def tell_age(moment: datetime, now: datetime) -> str:
    age = now - moment
    if age > _DATED:
        return f"{moment:%Y-%m-%d}"
    if abs(age) < timedelta(seconds=5):
        return "now"
    return f"in {tell_duration(age)}" if age < timedelta() else f"{tell_duration(age)} ago"
