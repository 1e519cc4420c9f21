"""Words on a picture: how wide they are, and where they find room.

No label overlaps another or hides a kept experiment; what finds no room is left out, the smallest
gains first.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from server.pages.progress.layout import Mark, Picture
from server.pages.text import clean

#: Advance widths in thousandths of the font size of the faces that measure alike: Arimo,
#: Liberation Sans, Helvetica, Arial.
_ADVANCES = {
    character: width
    for width, characters in (
        (191, "'"),
        (222, "ijl"),
        (260, "|"),
        (278, " !,./:;I[\\]ft·"),
        (333, "()-`r"),
        (334, "{}"),
        (355, '"'),
        (389, "*"),
        (469, "^"),
        (500, "Jcksvxyz"),
        (556, "#$0123456789?L_abdeghnopqu"),
        (584, "+<=>~"),
        (611, "FTZß"),
        (667, "&ABEKPSVXY"),
        (722, "CDHNRUw"),
        (778, "GOQ"),
        (833, "Mm"),
        (889, "%"),
        (944, "W"),
        (1000, "…—"),
        (1015, "@"),
    )
    for character in characters
}
#: What XML cannot hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Characters of a text that is looked at at all, and of a label; half as many sizes wide.
_READ_MAX = 400
_LONG, _SHORT = 44, 24
#: Labels of a picture, and how many keeps are tried for one.
_LABELS_MAX = 40
_TRIED_MAX = 150
#: How many of the largest gains may have their label at a distance, and where, in sizes of text.
_LED_MAX = 12
_FAR = ((2, -1.5), (-2, 2.5), (2, -3), (-3, 4.5), (3, -4.5), (-4, 6.5), (4, -6.5), (6, -9))
_ASCENT, _DESCENT, _PADDING = 0.78, 0.24, 0.18
_SLOPE = 30


class Box:
    """A rectangle, turned by any angle, with how far it reaches."""

    __slots__ = ("bottom", "corners", "left", "right", "top")

    def __init__(self, corners: tuple[tuple[float, float], ...]) -> None:
        self.corners = corners
        self.left, self.right = min(x for x, _ in corners), max(x for x, _ in corners)
        self.top, self.bottom = min(y for _, y in corners), max(y for _, y in corners)

    @classmethod
    def of(cls, left: float, top: float, right: float, bottom: float) -> "Box":
        return cls(((left, top), (right, top), (right, bottom), (left, bottom)))


@dataclass(frozen=True, slots=True)
class Label:
    text: str
    #: Where the text begins or ends, on its base line.
    x: float
    y: float
    #: Degrees clockwise.
    angle: int
    is_end: bool
    width: float
    #: False when some character's width is a guess, to be enforced when drawn.
    is_exact: bool
    #: The room it takes, padding included.
    box: Box
    #: The end at the mark of a thin line from a label at a distance.
    led_from: tuple[float, float] | None = None


# Text ------------------------------------------------------------------------------------------


def tidy(text: str, length: int) -> str:
    """One line of at most `length` characters with nothing that hides, stacks or breaks XML."""
    text = unicodedata.normalize("NFC", " ".join(clean(text[:_READ_MAX]).split()))
    text = _unstack(_NOT_XML.sub("\ufffd", text))
    if len(text) <= length:
        return text
    head = text[: length - 1]
    word = head.rpartition(" ")[0]
    return (word if len(word) > length * 2 // 3 else head).rstrip(" ,;:-(") + "…"


def _unstack(text: str) -> str:
    """Without marks on top of marks, which would climb over the lines above."""
    if text.isascii():
        return text
    marks = "".join("m" if unicodedata.category(c) in ("Mn", "Me") else "." for c in text)
    return "".join(c for n, c in enumerate(text) if marks[max(n - 1, 0) : n + 1] != "mm")


def measure(text: str, size: float) -> tuple[float, bool]:
    """Width of the text, and whether that is exact."""
    is_exact, thousandths = True, 0
    for character in text:
        base = unicodedata.normalize("NFD", character)[0]
        if (advance := _ADVANCES.get(base)) is None:
            is_exact, advance = False, 1000 if unicodedata.east_asian_width(base) in "WF" else 650
        thousandths += advance
    return thousandths * size / 1000, is_exact


def fit(text: str, size: float, width: float, length: int = 160) -> str:
    """The text as one line of at most this length and width."""
    text = tidy(text, length)
    while len(text) > 1 and measure(text, size)[0] > width:
        text = tidy(text, len(text) - 1)
    return text


# Places ----------------------------------------------------------------------------------------


def place_labels(
    picture: Picture, radius: float, size: float, bounds: tuple[float, float, float, float]
) -> list[Label]:
    """Label the keeps: the best first, then the first, then by gain.

    `bounds` are left, right, top, bottom; `radius` is that of a mark.
    """
    fixed = _obstacles(picture, radius + 1)
    taken: list[Box] = []
    placed: list[Label] = []
    for rank, mark in enumerate(_by_gain(picture.keeps)[:_TRIED_MAX]):
        if len(placed) == _LABELS_MAX:
            break
        for label in _candidates(mark, radius, size, may_be_far=rank < _LED_MAX):
            leader = _leader(label)
            if (
                _is_within(label.box, bounds)
                and not any(overlap(label.box, box) for box in fixed)
                and not any(overlap(part, box) for box in taken for part in (label.box, *leader))
            ):
                placed.append(label)
                taken += [label.box, *leader]
                break
    return placed


def _obstacles(picture: Picture, radius: float) -> list[Box]:
    """What no label may hide: the marks and the line."""
    r = radius
    places = [(mark.x, mark.y) for mark in picture.keeps] + picture.quarantined
    marks = [Box.of(x - r, y - r, x + r, y + r) for x, y in places]
    steps = list(
        pairwise([*picture.steps, *((picture.area.right, y) for _, y in picture.steps[-1:])])
    )
    flats = [Box.of(x, y - 1, x2, y + 1) for (x, y), (x2, _) in steps]
    drops = [Box.of(x2 - 1, y, x2 + 1, y2) for (_, y), (x2, y2) in steps]
    return marks + flats + drops


def _by_gain(keeps: Sequence[Mark]) -> list[Mark]:
    gains = sorted((mark for mark in keeps if mark.gain > 0), key=lambda mark: -mark.gain)
    best = min(gains, key=lambda mark: mark.score, default=None)
    return ([best] if best else []) + [mark for mark in gains if mark is not best]


def _candidates(mark: Mark, radius: float, size: float, may_be_far: bool) -> Iterator[Label]:
    """Where its label may stand, the emptiest place first.

    Under the line nothing is drawn: there it hangs to the left. Else it rises to the right, or
    lies level: on the line, before the mark, over it, under it; or at the end of a leader.
    """
    side, gap, rise = 0.4 * radius, radius + 0.35 * size, radius + 0.7 * size
    label = mark.point.label
    long, short = (fit(label, size, n * size / 2, n) for n in (_LONG, _SHORT))
    if not long:
        return
    for text in (long, short) if long != short else (long,):
        for x, y, angle, is_end in (
            (-side, gap + _ASCENT * size, -_SLOPE, True),
            (side, -rise, -_SLOPE, False),
            (gap, -0.5 * size, 0, False),
            (-gap - 0.25 * size, 0.3 * size, 0, True),
            (-side, -rise, 0, False),
            (side, gap + _ASCENT * size, 0, True),
        ):
            yield _label(text, mark.x + x, mark.y + y, angle, is_end, size)
    for x, y in _FAR if may_be_far else ():
        far = _label(short, mark.x + x * size, mark.y + y * size, 0, x < 0, size)
        yield replace(far, led_from=(mark.x, mark.y))


def _leader(label: Label) -> list[Box]:
    """The room of the line to a label at a distance, a pixel short of the label."""
    if label.led_from is None:
        return []
    (x, y), (x2, y2) = label.led_from, (label.x, label.y)
    across, along = (y2 - y) / math.dist((x, y), (x2, y2)), (x2 - x) / math.dist((x, y), (x2, y2))
    return [
        Box(
            (
                (x - across, y + along),
                (x2 - across, y2 + along),
                (x2 + across, y2 - along),
                (x + across, y - along),
            )
        )
    ]


def _label(text: str, x: float, y: float, angle: int, is_end: bool, size: float) -> Label:
    width, is_exact = measure(text, size)
    pad = _PADDING * size
    left, right = (-width - pad, pad) if is_end else (-pad, width + pad)
    top, bottom = -_ASCENT * size - pad, _DESCENT * size + pad
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    box = Box(
        tuple(
            (x + a * cos - b * sin, y + a * sin + b * cos)
            for a, b in ((left, top), (right, top), (right, bottom), (left, bottom))
        )
    )
    return Label(text, round(x, 1), round(y, 1), angle, is_end, round(width, 1), is_exact, box)


def overlap(a: Box, b: Box) -> bool:
    """Whether two rectangles share a point (separating axis theorem)."""
    if a.left >= b.right or b.left >= a.right or a.top >= b.bottom or b.top >= a.bottom:
        return False
    return all(
        _reach(a, b, y2 - y1, x1 - x2)
        for box in (a, b)
        for (x1, y1), (x2, y2) in pairwise(box.corners[:3])
    )


def _reach(a: Box, b: Box, x_part: float, y_part: float) -> bool:
    """Whether the shadows of both on this axis overlap."""
    here = [x * x_part + y * y_part for x, y in a.corners]
    there = [x * x_part + y * y_part for x, y in b.corners]
    return max(here) > min(there) and max(there) > min(here)


def _is_within(box: Box, bounds: tuple[float, float, float, float]) -> bool:
    left, right, top, bottom = bounds
    return left <= box.left and box.right <= right and top <= box.top and box.bottom <= bottom
