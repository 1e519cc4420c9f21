"""The picture as an SVG file of its own: no style sheet, no script, nothing from elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from server.pages.progress.labels import Label, fit, measure, place_labels, tidy
from server.pages.progress.layout import Area, Mark, Picture, draw_progress
from server.pages.progress.series import Point, Series, Status, XAxis
from server.pages.progress.theme import PALETTES, Palette, Theme

#: Pixels; words and marks grow with the picture, so twice as large is twice as sharp.
WIDTH, HEIGHT = 1200, 675
WIDTH_MIN, HEIGHT_MIN, WIDTH_MAX, HEIGHT_MAX = 480, 270, 2400, 1600
#: Arimo is packaged for `png`; the others measure like it.
_FONTS = "Arimo, Liberation Sans, Helvetica, Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture laid out and labelled, ready to be written down."""

    series: Series
    picture: Picture
    labels: list[Label]
    width: int
    height: int
    #: Pixels of one unit: 1 at 1200 by 675.
    unit: float
    radius: float
    by: XAxis


def lay_out(
    series: Series, width: int = WIDTH, height: int = HEIGHT, by: XAxis = XAxis.NUMBER
) -> Canvas:
    u = max(min(width / WIDTH, height / HEIGHT), 0.5)
    area = Area(
        left=84 * u,
        right=width - 36 * u,
        top=130 * u,
        bottom=height - 84 * u,
        inset=14 * u,
        x_ticks=max(int(width / (110 * u)), 2),
        y_ticks=max(int((height - 214 * u) / (62 * u)), 2),
    )
    picture = draw_progress(series, area, by)
    count = len(series.points)
    radius = (6 if count <= 60 else 5 if count <= 300 else 4.2) * u
    bounds = (area.left, width - 20 * u, area.top - 14 * u, area.bottom - 2 * u)
    labels = place_labels(picture, radius, 13 * u, bounds)
    return Canvas(series, picture, labels, width, height, u, radius, by)


def render_svg(canvas: Canvas, theme: Theme = Theme.LIGHT) -> str:
    """The picture as XML; what agents wrote in it is text, whatever it holds."""
    return "\n".join(_write(canvas, PALETTES[theme])) + "\n"


def _write(c: Canvas, p: Palette) -> Iterator[str]:
    title = _text(f"Progress of {tidy(c.series.title, 160)}: {_tell_counts(c)}")
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{c.width}" height="{c.height}" '
        f'viewBox="0 0 {c.width} {c.height}" role="img" font-family="{_FONTS}">'
    )
    yield f'<title>{title}</title><rect width="100%" height="100%" fill="{p.paper}"/>'
    yield from _header(c, p)
    yield from _axes(c, p)
    yield from _marks(c, p)
    yield from _labels(c, p)
    yield from _legend(c, p)
    yield "</svg>"


# Words around the picture ----------------------------------------------------------------------


def _header(c: Canvas, p: Palette) -> Iterator[str]:
    u, left, right = c.unit, 36 * c.unit, c.picture.area.right
    told = _tell_gain(c.picture)
    # Bold is up to a tenth wider than what is measured.
    room = right - left - max(measure(told, 15 * u)[0], 150 * u) - 30 * u
    yield _words(left, 50 * u, 27 * u, p.ink, fit(c.series.title, 30 * u, room), "bold")
    yield _words(left, 79 * u, 15 * u, p.dim, fit(_tell_counts(c), 15 * u, room))
    if c.picture.best is not None:
        best = f"{c.picture.best:.6f}"
        yield _words(right, 50 * u, 30 * u, p.accent, best, "bold", anchor="end")
        yield _words(right, 79 * u, 15 * u, p.dim, told, anchor="end")


def _tell_counts(c: Canvas) -> str:
    counts, points, total = c.picture.counts, len(c.series.points), c.series.total
    every = f"{points:,} experiment{'s' if points != 1 else ''}"
    if points < total:
        every = f"last {points:,} of {total:,} experiments"
    parts = [every, f"{counts[Status.KEEP]:,} kept", f"{counts[Status.DISCARD]:,} discarded"]
    if counts[Status.CRASH]:
        parts.append(f"{counts[Status.CRASH]:,} crashed")
    if counts[Status.QUARANTINED]:
        parts.append(f"{counts[Status.QUARANTINED]:,} quarantined")
    return " · ".join(parts)


def _tell_gain(picture: Picture) -> str:
    if picture.best is None or picture.baseline is None:
        return ""
    gain = picture.baseline - picture.best
    if gain <= 0:
        return "best val_bpb, the baseline"
    share = 100 * gain / picture.baseline
    return f"best val_bpb, {gain:.6f} ({share:.2f} %) under the baseline"


# Axes and marks --------------------------------------------------------------------------------


def _axes(c: Canvas, p: Palette) -> Iterator[str]:
    u, a, picture = c.unit, c.picture.area, c.picture
    for tick in picture.y_ticks:
        yield _path(f"M{a.left:.1f} {tick.at}H{a.right:.1f}", p.rule, u)
        yield _words(a.left - 10 * u, tick.at + 4.5 * u, 13 * u, p.dim, tick.label, anchor="end")
    yield _path(f"M{a.left:.1f} {a.bottom:.1f}H{a.right:.1f}", p.faint, u)
    for tick in picture.x_ticks:
        yield _path(f"M{tick.at} {a.bottom:.1f}v{5 * u:.1f}", p.faint, u)
        yield _words(tick.at, a.bottom + 21 * u, 13 * u, p.dim, tick.label, anchor="middle")
    yield _words(36 * u, 110 * u, 13 * u, p.dim, "val_bpb, lower is better")
    x_name = "experiment" if c.by is XAxis.NUMBER else "time since the first experiment"
    yield _words(a.right, c.height - 22 * u, 13 * u, p.dim, x_name, anchor="end")
    if picture.best is None and not picture.y_ticks:
        middle = (a.left + a.right) / 2, (a.top + a.bottom) / 2
        yield _words(*middle, 20 * u, p.dim, "no score yet", anchor="middle")


def _leaders(c: Canvas, p: Palette) -> Iterator[str]:
    for label in c.labels:
        if label.led_from is not None:
            (x, y), turn = label.led_from, -1 if label.is_end else 1
            to = label.x - 3 * turn * c.unit, label.y - 4 * c.unit
            yield _path(f"M{x} {y}L{to[0]:.1f} {to[1]:.1f}", p.dim, c.unit)


def _marks(c: Canvas, p: Palette) -> Iterator[str]:
    picture, few = c.picture, len(c.series.points) <= 300
    if picture.discards:
        yield _path(picture.dots, p.faint, (7 if few else 5) * c.unit, "round")
    if picture.quarantined:
        yield "".join(_at(x, y, _cross(c, p)) for x, y in picture.quarantined)
    if picture.steps:
        yield _path(picture.line, p.accent, 2 * c.unit)
    yield from _leaders(c, p)
    # The smaller gains below, so that in a crowd the larger ones are seen.
    for mark in sorted(picture.keeps, key=lambda mark: mark.gain):
        yield _at(mark.x, mark.y, f"<title>{_text(_tell(mark))}</title>" + _keep(c, p, mark.point))


def _keep(c: Canvas, p: Palette, point: Point | None = None) -> str:
    dot = _circle(c.radius, p.keep, p.outline, 1.2 * c.unit)
    if point is None or not point.is_confirmed:
        return dot
    return _circle(c.radius + 4 * c.unit, p.paper, p.accent, 2 * c.unit) + dot


def _tell(mark: Mark) -> str:
    point = mark.point
    hash = f" ({point.commit[:12]})" if point.commit else ""
    state = ", confirmed" if point.is_confirmed else ""
    return f"{point.number}: {mark.score:.6f}{state} {tidy(point.label, 160)}{hash}"


def _labels(c: Canvas, p: Palette) -> Iterator[str]:
    u = c.unit
    yield (
        f'<g font-size="{13 * u:.1f}" fill="{p.ink}" stroke="{p.paper}" stroke-opacity="0.85" '
        f'stroke-width="{3.5 * u:.1f}" stroke-linejoin="round" paint-order="stroke">'
    )
    for label in c.labels:
        look = f' transform="rotate({label.angle} {label.x} {label.y})"' if label.angle else ""
        look += ' text-anchor="end"' if label.is_end else ""
        if not label.is_exact:
            look += f' textLength="{label.width}" lengthAdjust="spacingAndGlyphs"'
        yield f'<text x="{label.x}" y="{label.y}"{look}>{_text(label.text)}</text>'
    yield "</g>"


def _legend(c: Canvas, p: Palette) -> Iterator[str]:
    """What the marks mean, of those that are there."""
    u, x, y = c.unit, 43 * c.unit, c.height - 22 * c.unit
    for word, symbol in _keys(c, p):
        if symbol:
            yield _at(round(x, 1), round(y - 4.5 * u, 1), symbol)
            x += 15 * u
        yield _words(x, y, 13 * u, p.dim, word)
        x += measure(word, 13 * u)[0] + 27 * u


def _keys(c: Canvas, p: Palette) -> Iterator[tuple[str, str]]:
    picture, u = c.picture, c.unit
    if picture.keeps:
        yield "kept", _keep(c, p)
    for mark in picture.keeps:
        if mark.point.is_confirmed:
            yield "confirmed", _keep(c, p, mark.point)
            break
    if picture.discards:
        yield "discarded", _path("M0 0h0", p.faint, 7 * u, "round")
    if picture.quarantined:
        yield "quarantined", _cross(c, p)
    if picture.hidden:
        yield f"{picture.hidden:,} worse than the baseline not shown", ""


# Pieces of XML ---------------------------------------------------------------------------------


def _text(text: str) -> str:
    return escape(text)


def _at(x: float, y: float, drawing: str) -> str:
    return f'<g transform="translate({x} {y})">{drawing}</g>'


def _path(d: str, stroke: str, width: float, cap: str = "butt") -> str:
    look = f'stroke="{stroke}" stroke-width="{width:.1f}" stroke-linecap="{cap}"'
    return f'<path d="{d}" fill="none" {look}/>'


def _circle(r: float, fill: str, stroke: str, width: float) -> str:
    return f'<circle r="{r:.1f}" fill="{fill}" stroke="{stroke}" stroke-width="{width:.1f}"/>'


def _cross(c: Canvas, p: Palette) -> str:
    r = round(4 * c.unit, 1)
    return _path(f"M{-r} {-r}L{r} {r}M{-r} {r}L{r} {-r}", p.warn, 1.6 * c.unit)


def _words(
    x: float, y: float, size: float, fill: str, text: str, weight: str = "", anchor: str = ""
) -> str:
    look = f' font-weight="{weight}"' if weight else ""
    look += f' text-anchor="{anchor}"' if anchor else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}"'
    return f'<text {place} fill="{fill}"{look}>{_text(text)}</text>'
