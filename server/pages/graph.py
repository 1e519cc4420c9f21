"""The list of commits as a graph: which lane each one sits in, and the lines of its row.

A lane belongs to one commit that is still to come further down; everything that descends from
that commit joins it. So a hundred leaves of one parent need two lanes, not a hundred.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server import wire

#: Width of a lane and height of a row, in units of the drawing; rows are stretched to their text.
LANE = 14
ROW = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One commit of the list: the x of its dot and the path of the lines behind it."""

    x: float
    lines: str


@dataclass(frozen=True, slots=True)
class Graph:
    rows: list[Row]
    width: int


def draw_graph(commits: Sequence[wire.Commit]) -> Graph:
    """Rows for commits listed children first; parents beyond the end leave lines hanging."""
    lanes: list[str | None] = []
    rows, widest = [], 1
    for commit in commits:
        lane, lines = _enter(lanes, commit)
        widest = max(widest, len(lanes))
        lines += _leave(lanes, lane, commit.parents)
        widest = max(widest, len(lanes))
        while lanes and lanes[-1] is None:
            lanes.pop()
        rows.append(Row(_x(lane), " ".join(lines)))
    return Graph(rows, widest * LANE)


def _enter(lanes: list[str | None], commit: wire.Commit) -> tuple[int, list[str]]:
    """The commit's lane, freed, and the lines that come from above."""
    lines = [f"M{_x(i)} 0V{ROW}" for i, goal in enumerate(lanes) if goal not in (None, commit.hash)]
    lane = lanes.index(commit.hash) if commit.hash in lanes else _free(lanes)
    lanes[lane] = None
    # A child that is not listed is further up, on an earlier page.
    if commit.child_count:
        lines.append(f"M{_x(lane)} 0V{ROW // 2}")
    return lane, lines


def _leave(lanes: list[str | None], lane: int, parents: Sequence[str]) -> list[str]:
    """Give each parent a lane unless it has one; the lines down to them."""
    lines = []
    for parent in dict.fromkeys(parents):
        if parent in lanes:
            goal = lanes.index(parent)
        else:
            goal = lane if lanes[lane] is None else _free(lanes)
            lanes[goal] = parent
        lines.append(_bend(lane, goal))
    return lines


def _free(lanes: list[str | None]) -> int:
    if None not in lanes:
        lanes.append(None)
    return lanes.index(None)


def _bend(start: int, goal: int) -> str:
    middle, x, to = ROW // 2, _x(start), _x(goal)
    if start == goal:
        return f"M{x} {middle}V{ROW}"
    return f"M{x} {middle}C{x} {ROW * 0.8:.0f} {to} {ROW * 0.6:.0f} {to} {ROW}"


def _x(lane: int) -> float:
    return lane * LANE + LANE / 2
