"""`results.tsv`, autoresearch's log of one session: five columns, separated by tabs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.reports.report import (
    HASH,
    WORD_CHARS,
    Report,
    Score,
    Status,
    flatten,
    make_report,
    read_score,
    split_lines,
)

ROWS_MAX = 10_000
COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")


@dataclass(frozen=True, slots=True)
class Problem:
    #: Counted from 1, as editors do.
    line: int
    reason: str


_STATUSES: dict[str, Status] = {
    "keep": "keep",
    "kept": "keep",
    "discard": "discard",
    "discarded": "discard",
    "crash": "crash",
    "crashed": "crash",
}


class _Refused(Exception):
    """A line that is no row."""


def parse_tsv(text: str) -> tuple[list[Report], list[Problem]]:
    """The rows of a `results.tsv` in their order, and for every other line why it is none.

    At most 10,000 lines that are not blank are read. A row's commit may be any word; whether it is
    known, and whether it is a hash at all, is for the caller to see.
    """
    rows: list[Report] = []
    problems: list[Problem] = []
    columns: Sequence[str] = COLUMNS
    for number, line in enumerate(split_lines(text.removeprefix("\ufeff")), 1):
        if not line.strip():
            continue
        if len(rows) + len(problems) == ROWS_MAX:
            reason = f"only {ROWS_MAX:,} rows are read at once; split the file here"
            return rows, [*problems, Problem(number, reason)]
        cells = [_unquote(cell.strip()) for cell in line.split("\t")]
        names = [cell.lower() for cell in cells]
        if names[0] == "commit" or {"commit", "val_bpb"} <= set(names):
            columns = names
            if missing := [name for name in ("commit", "val_bpb", "status") if name not in names]:
                reason = f"no column {' or '.join(missing)}, so nothing below can be read"
                return rows, [*problems, Problem(number, reason)]
            continue
        try:
            rows.append(_row(cells, columns))
        except _Refused as refused:
            problems.append(Problem(number, str(refused)))
    return rows, problems


def _row(cells: Sequence[str], columns: Sequence[str]) -> Report:
    needed = max(columns.index(name) for name in ("commit", "val_bpb", "status")) + 1
    if len(cells) < needed:
        raise _Refused(f"{len(cells)} of at least {needed} columns; they are separated by tabs")
    named = dict(zip(columns, cells, strict=False))
    if columns[-1] == "description":
        # A tab in the text of the last column.
        named["description"] = " ".join(cells[len(columns) - 1 :])
    commit = flatten(named["commit"])
    if not commit or len(commit) > WORD_CHARS:
        raise _Refused("no commit" if not commit else f"commit longer than {WORD_CHARS} characters")
    if HASH.fullmatch(commit.lower()):
        commit = commit.lower()
    status = _STATUSES.get(named["status"].lower())
    if status is None:
        raise _Refused(f"status {_quote(named['status'])} is not keep, discard or crash")
    raw = named["val_bpb"]
    score = read_score(raw)
    if score is None and status != "crash":
        raise _Refused(f"val_bpb {_quote(raw)} is not a number")
    if score is None or (status == "discard" and score.flaw and _is_zero(raw)):
        # Zero is this file's word for no score.
        score = Score(raw[:WORD_CHARS])
    memory = named.get("memory_gb") or named.get("vram_gb") or ""
    platform = flatten(named.get("platform", ""))[:WORD_CHARS] or None
    return make_report(commit, platform, score, memory, status, named.get("description", ""))


def format_tsv(rows: Iterable[Report]) -> str:
    """Autoresearch's five columns under their header, for its own tools to read."""
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        memory = f"{row.vram_gb or 0:.1f}" if row.status != "crash" else "0.0"
        cells = [row.commit, _score_cell(row), memory, row.status, row.description]
        lines.append("\t".join(_cell(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def _score_cell(row: Report) -> str:
    if row.status == "crash":
        return "0.000000"
    if row.val_bpb is None:
        return row.raw_val_bpb if row.flaw else "0.000000"
    return f"{row.val_bpb:.6f}" if 1e-3 <= row.val_bpb < 1e6 else repr(row.val_bpb)


def _cell(text: str) -> str:
    # A quotation mark at the start would make spreadsheets and pandas look for its partner.
    text = flatten(text)
    return text.replace('"', "'") if text.startswith('"') else text


def _unquote(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _is_zero(raw: str) -> bool:
    return not raw.strip("0.")


def _quote(text: str) -> str:
    return repr(flatten(text)[:40])
