"""Posts in `#results`, as autoresearch's `program_agenthub.md` has agents write them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from server.reports import marks
from server.reports.report import (
    DASHES,
    WORD_CHARS,
    Report,
    Status,
    flatten,
    make_report,
    read_score,
    split_lines,
)

REPORTS_MAX = 20

# Every repetition is bounded or begins at a fixed place: no text makes a search start over.
_FIELD = re.compile(
    r"(?<![^\W_])(?<![^\W_][_.-])(commit|platform|val\\?_bpb|vram\\?_gb)"
    r"[*_`]{0,4}[ \t]{0,4}:[*_`~\[<\s]{0,8}",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(
    r"(?:parent|previous|prev|old|expected|target|predicted)[\s_*-]{1,3}\Z", re.IGNORECASE
)
_COMMIT = re.compile(r"([0-9a-f]{7,40})(?!\w|-\w)", re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(r"[^\s|]{1,80}")
#: `0.9979 -> 0.9932` tells the score that came out.
_BEFORE = re.compile(r"[0-9.]{1,20}[*_`]{0,4}\s{0,4}(?:->|=>|→)[*_`~\s]{0,4}(?=[0-9.])")
_TRIMMED = "*_`~,;.\"'<>()[]{}"
_PLATFORM_END = re.compile(
    rf"[\n|,;]|\s[{DASHES}]\s|\s{marks.EXTRA_FIELD}|(?P<mark>[(\[]?\b(?:discard|crash))",
    re.IGNORECASE,
)
_PLATFORM_WORDS = 6
_BULLET = re.compile(r"[\W_]*(?:[0-9]{1,3}[.)]\s)?[\W_]*")
_ALNUM = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class _Field:
    key: str
    #: "" when it is not what the key promises.
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The fields of one report; what belongs to it reaches from `start` to `end`."""

    text: str
    fields: Sequence[_Field]
    start: int
    end: int


def parse_post(content: str) -> list[Report]:
    """The trainings that a post reports, at most 20, the same one once.

    A report is `commit:` with 7 to 40 hex digits and `val_bpb:` with a number or `---`, beside each
    other: on one line, or each at the start of its own in one paragraph. Everything else is talk.
    """
    paragraphs = list(_paragraphs(content))
    found = [(n, *one) for n, lines in enumerate(paragraphs) for one in _read_paragraph(lines)]
    reports: dict[Report, None] = {}
    for number, group, around in found:
        if len(found) == 1:
            # Alone in its post, it may have its mark above or below, in a paragraph of its own.
            above, below = paragraphs[:number][-1:], paragraphs[number + 1 :][:1]
            around = [*around, *(lines[-1] for lines in above), *(lines[0] for lines in below)]
        reports[_report(group, around)] = None
        if len(reports) == REPORTS_MAX:
            break
    return list(reports)


def _paragraphs(content: str) -> Iterator[list[str]]:
    """Their lines, without fences and rules."""
    lines: list[str] = []
    for line in [*split_lines(content), ""]:
        if _ALNUM.search(line):
            lines.append(line)
        elif lines and not line.strip(" \t>"):
            yield lines
            lines = []


def _read_paragraph(lines: Sequence[str]) -> Iterator[tuple[_Group, Sequence[str]]]:
    """Each report's fields, and the lines around that may bear its mark."""
    found = [(number, group) for number, line in enumerate(lines) for group in _groups(line)]
    if len(found) == 1:
        number, group = found[0]
        yield group, [*lines[max(number - 1, 0) : number], *lines[number + 1 : number + 2]]
    else:
        for _, group in found or enumerate(_groups(_as_list(lines))):
            yield group, []


def _as_list(lines: Sequence[str]) -> str:
    """The paragraph as one text of fields, each of which began a line."""
    items = []
    for line in lines:
        bullet = _BULLET.match(line)
        start = bullet.end() if bullet else 0
        if _FIELD.match(line, start) or not _FIELD.search(line):
            items.append(line[start:])
    return " |\n".join(items)


def _groups(text: str) -> list[_Group]:
    taken: list[Sequence[_Field]] = []
    for fields, near in _runs(text):
        values = {field.key: field.value for field in fields}
        # Talk about others' results may follow one's own, but hardly in the full form.
        enough = not taken or near or len(values) == 4
        if enough and values.get("commit") and read_score(values.get("val_bpb", "")):
            taken.append(fields)
    ends = [*(fields[0].start for fields in taken[1:]), len(text)]
    starts = [0, *ends]
    return [_Group(text, *bounds) for bounds in zip(taken, starts, ends, strict=False)]


def _runs(text: str) -> Iterator[tuple[Sequence[_Field], bool]]:
    """Fields beside each other, each key once; True if nothing is said since the run before."""
    run: list[_Field] = []
    near = False
    for field in _fields(text):
        close = bool(run) and marks.says_nothing(text[run[-1].end : field.start])
        if run and (not close or field.key in {other.key for other in run}):
            yield run, near
            run, near = [], close
        run.append(field)
    if run:
        yield run, near


def _fields(text: str) -> Iterator[_Field]:
    keys = [
        match
        for match in _FIELD.finditer(text)
        if not _ELSEWHERE.search(text[max(match.start() - 14, 0) : match.start()])
    ]
    for number, match in enumerate(keys):
        key = match[1].lower().replace("\\", "")
        limit = keys[number + 1].start() if number + 1 < len(keys) else len(text)
        value, end = _value(key, text, match.end(), limit)
        yield _Field(key, value, match.start(), end)


def _value(key: str, text: str, start: int, limit: int) -> tuple[str, int]:
    """A field's value and where it ends."""
    if key == "commit":
        commit = _COMMIT.match(text, start, limit)
        return (commit[1].lower(), commit.end()) if commit else ("", start)
    if key == "platform" and (platform := _platform(text, start, limit)):
        return platform
    if key == "val_bpb" and (before := _BEFORE.match(text, start, limit)):
        start = before.end()
    token = _TOKEN.match(text, start, limit)
    return (token[0].strip(_TRIMMED), token.end()) if token else ("", start)


def _platform(text: str, start: int, limit: int) -> tuple[str, int] | None:
    """A name of several words, when something tells where it ends."""
    stop = _PLATFORM_END.search(text, start, min(limit, start + 200))
    if limit == len(text) and (stop is None or stop["mark"]):
        return None
    end = stop.start() if stop else limit
    name = flatten(text[start:end]).strip("*_`~,;.\"'<>[] ")
    fits = _ALNUM.search(name) and len(name) <= WORD_CHARS and name.count(" ") < _PLATFORM_WORDS
    return (name, end) if fits else None


def _report(group: _Group, around: Sequence[str]) -> Report:
    text, fields = group.text, group.fields
    values = {field.key: field.value for field in fields}
    tail = text[fields[-1].end : group.end]
    description = marks.read_description(tail)
    found = marks.read_marks(text[group.start : fields[0].start], shouted=False)
    between = [text[a.end : b.start] for a, b in pairwise(fields)]
    for words in (*between, tail, description, *filter(marks.is_mark, around)):
        found |= marks.read_marks(words)
    score = read_score(values["val_bpb"])
    assert score is not None  # noqa: S101 (else it were no group)
    absent = score.value is None and score.flaw is None
    status: Status = "keep"
    if "crash" in found or (absent and not found):
        status = "crash"
    elif found:
        status = "discard"
    platform = flatten(values.get("platform", ""))[:WORD_CHARS]
    return make_report(
        values["commit"],
        platform if _ALNUM.search(platform) else None,
        score,
        values.get("vram_gb", ""),
        status,
        description if status == "keep" else marks.without_marks(description),
    )
