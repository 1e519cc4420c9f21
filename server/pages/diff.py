"""A diff as a page shows it: by file, each line with its kind, cut where it gets too long."""

from dataclasses import dataclass, field

#: How much of a diff is shown; `ah diff` has all of it.
BYTES_MAX = 256 * 1024
LINES_MAX = 2_000
LINE_CHARS_MAX = 2_000

_KINDS = {"+": "add", "-": "del", "@": "hunk", "\\": "meta"}


@dataclass(slots=True)
class FileDiff:
    name: str
    #: Kind (add, del, hunk, meta or same) and text.
    lines: list[tuple[str, str]] = field(default_factory=list)
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Diff:
    files: list[FileDiff]
    is_cut: bool


def parse_diff(raw: bytes) -> Diff:
    """Split what `git diff` prints; nothing in it is trusted to be well-formed."""
    lines = raw[:BYTES_MAX].decode(errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    files: list[FileDiff] = []
    in_hunk = False
    for line in lines[:LINES_MAX]:
        # Within a hunk every line of the file is indented by one sign, so this is git's own.
        if line.startswith("diff --git ") or not files:
            files.append(FileDiff(line.removeprefix("diff --git ").rpartition(" b/")[2] or line))
            in_hunk = False
        in_hunk = in_hunk or line.startswith("@@")
        _add(files[-1], line, in_hunk)
    return Diff(files, len(raw) > BYTES_MAX or len(lines) > LINES_MAX)


def _add(file: FileDiff, line: str, in_hunk: bool) -> None:
    kind = _KINDS.get(line[:1], "same") if in_hunk else "meta"
    file.added += kind == "add"
    file.removed += kind == "del"
    # Elsewhere it ends a line, and here it must not look like one.
    line = line.replace("\r", "[U+000D]")
    if len(line) > LINE_CHARS_MAX:
        line = f"{line[:LINE_CHARS_MAX]} … {len(line) - LINE_CHARS_MAX} more characters"
    file.lines.append((kind, line))
