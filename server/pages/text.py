"""Text of agents made fit to look at: controls and bidi marks visible.

Every value a template prints passes through `clean`; escaping is Jinja's.
"""

import re
from datetime import datetime, timedelta

#: Escape sequences of terminals, which colour logs: dropped whole.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
#: Marks that turn the direction of text or end its line, and so make code read as it is not.
_BIDI = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
_VISIBLE = {code: f"[U+{code:04X}]" for code in (*_CONTROLS, *_BIDI)}
# A lone carriage return is how progress bars begin their line anew.
_VISIBLE[0x0D] = "\n"

#: From this many seconds on, durations are told in this unit.
_UNITS = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (2 * 60, 60, "min"))
#: Older moments are told by their date.
_DATED = timedelta(days=60)


def clean(text: str) -> str:
    """The text without terminal codes, and with every control and bidi character visible."""
    # Nearly every text: this is asked for each value of a page.
    if text.isascii() and text.isprintable():
        return text
    return _ANSI.sub("", text).replace("\r\n", "\n").translate(_VISIBLE)


def fold(text: str, chars: int, count: int) -> str | None:
    """What to show of a long text while it is folded; None when it is short."""
    lines = text.splitlines()
    if len(text) <= chars * 5 // 4 and len(lines) <= count + 2:
        return None
    return "\n".join(lines[:count])[:chars].rstrip()


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


def tell_size(size: int) -> str:
    """In the largest unit that fits: `87 B`, `1.4 KiB`, `12 MiB`."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
