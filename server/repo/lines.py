"""Which lines changed: Myers' algorithm with a bound on its effort.

Few changes give git's own answer. Many changes are first cut at lines that occur once on either
side, and what is then still too different is replaced whole, so no pair of files can take long.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# Changes in one stretch that are searched for exactly; the search is quadratic in them.
_CHANGES_MAX = 512
_CUTS_DEEP = 6


@dataclass(slots=True)
class Effort:
    """Steps left, some three million a second; shared by all files of one diff."""

    left: int = 1_500_000


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines [a0, a1) became [b0, b1)."""

    a0: int
    a1: int
    b0: int
    b1: int


def compare_lines(a: Sequence[bytes], b: Sequence[bytes], effort: Effort) -> list[Hunk]:
    """The changes that make `b` of `a`, each as far down as it can slide, as git shows them."""
    start, same_end = 0, 0
    shorter = min(len(a), len(b))
    while start < shorter and a[start] == b[start]:
        start += 1
    while same_end < shorter - start and a[-1 - same_end] == b[-1 - same_end]:
        same_end += 1
    # Numbers are quicker to compare than lines, and as quick for long lines.
    numbers: dict[bytes, int] = {}
    comparison = _Comparison(
        [numbers.setdefault(line, len(numbers)) for line in a[start : len(a) - same_end]],
        [numbers.setdefault(line, len(numbers)) for line in b[start : len(b) - same_end]],
        effort,
    )
    return _slide_all(a, b, comparison.hunks(start))


class _Comparison:
    def __init__(self, a: list[int], b: list[int], effort: Effort) -> None:
        self._a, self._b = a, b
        self._a_changed, self._b_changed = bytearray(len(a)), bytearray(len(b))
        self._effort = effort
        self.run(0, len(a), 0, len(b), _CUTS_DEEP)

    def run(self, a0: int, a1: int, b0: int, b1: int, cuts: int) -> None:
        a, b = self._a, self._b
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
        if a0 == a1 or b0 == b1:
            self._replace(a0, a1, b0, b1)
        elif not self._search(a0, a1, b0, b1):
            self._cut(a0, a1, b0, b1, cuts)

    def _replace(self, a0: int, a1: int, b0: int, b1: int) -> None:
        self._a_changed[a0:a1] = b"\1" * (a1 - a0)
        self._b_changed[b0:b1] = b"\1" * (b1 - b0)

    def _search(self, a0: int, a1: int, b0: int, b1: int) -> bool:
        """Myers' greedy search; False when it would take too long."""
        a, b = self._a[a0:a1], self._b[b0:b1]
        n, m, zero = len(a), len(b), _CHANGES_MAX + 1
        if abs(n - m) > _CHANGES_MAX:
            return False
        # The furthest x reached on each diagonal x - y, and what it was before each round.
        reach = [0] * (2 * zero + 1)
        rounds: list[list[int]] = []
        for changes in range(_CHANGES_MAX + 1):
            if self._effort.left < 0:
                return False
            rounds.append(reach[zero - changes - 1 : zero + changes + 2])
            steps = 0
            for k in range(-changes, changes + 1, 2):
                left, right = reach[zero + k - 1], reach[zero + k + 1]
                x = right if k == -changes or (k != changes and left < right) else left + 1
                start = x
                while x < n and 0 <= x - k < m and a[x] == b[x - k]:
                    x += 1
                steps += x - start + 1
                reach[zero + k] = x
                if x == n and x - k == m:
                    self._trace(rounds, a0, b0, n, m)
                    return True
            self._effort.left -= steps
        return False

    def _trace(self, rounds: list[list[int]], a0: int, b0: int, x: int, y: int) -> None:
        for changes in range(len(rounds) - 1, 0, -1):
            reach, k, zero = rounds[changes], x - y, changes + 1
            left, right = reach[zero + k - 1], reach[zero + k + 1]
            if k == -changes or (k != changes and left < right):
                x, y = right, right - k - 1
                self._b_changed[b0 + y] = 1
            else:
                x, y = left, left - k + 1
                self._a_changed[a0 + x] = 1

    def _cut(self, a0: int, a1: int, b0: int, b1: int, cuts: int) -> None:
        """Compare between the lines that occur once on both sides, in their longest order."""
        pairs = self._common(a0, a1, b0, b1) if cuts and self._effort.left > 0 else []
        if not pairs:
            self._replace(a0, a1, b0, b1)
            return
        for x, y in [*pairs, (a1, b1)]:
            self.run(a0, x, b0, y, cuts - 1)
            a0, b0 = x + 1, y + 1

    def _common(self, a0: int, a1: int, b0: int, b1: int) -> list[tuple[int, int]]:
        a_count, b_count = Counter(self._a[a0:a1]), Counter(self._b[b0:b1])
        self._effort.left -= a1 - a0 + b1 - b0
        places = {line: y for y, line in enumerate(self._b[b0:b1], b0) if b_count[line] == 1}
        lows: list[int] = []
        ends: list[tuple[int, int, int]] = []
        best: list[int] = []
        for x in range(a0, a1):
            line = self._a[x]
            if a_count[line] != 1 or line not in places:
                continue
            y = places[line]
            at = bisect_left(lows, y)
            ends.append((x, y, best[at - 1] if at else -1))
            lows[at : at + 1], best[at : at + 1] = [y], [len(ends) - 1]
        pairs = []
        at = best[-1] if best else -1
        while at >= 0:
            x, y, at = ends[at]
            pairs.append((x, y))
        return pairs[::-1]

    def hunks(self, start: int) -> list[Hunk]:
        """The changes as they were found, counted from `start`."""
        hunks: list[Hunk] = []
        a_end, b_end = len(self._a), len(self._b)
        a_changed, b_changed = self._a_changed + b"\1\0", self._b_changed + b"\1\0"
        x = y = 0
        while x < a_end or y < b_end:
            same = min(a_changed.find(b"\1", x) - x, b_changed.find(b"\1", y) - y)
            x, y = x + same, y + same
            a1 = min(a_changed.find(b"\0", x), a_end)
            b1 = min(b_changed.find(b"\0", y), b_end)
            if a1 > x or b1 > y:
                hunks.append(Hunk(start + x, start + a1, start + y, start + b1))
            x, y = a1, b1
        return hunks


def _slide_all(a: Sequence[bytes], b: Sequence[bytes], hunks: list[Hunk]) -> list[Hunk]:
    done: list[Hunk] = []
    for hunk in reversed(hunks):
        while True:
            after = done[-1] if done else Hunk(len(a), 0, len(b), 0)
            hunk = _slide(a, b, hunk, after)
            if not done or hunk.a1 != after.a0 or hunk.b1 != after.b0:
                break
            hunk = Hunk(hunk.a0, after.a1, hunk.b0, after.b1)
            done.pop()
        done.append(hunk)
    return done[::-1]


def _slide(a: Sequence[bytes], b: Sequence[bytes], hunk: Hunk, after: Hunk) -> Hunk:
    if hunk.a0 < hunk.a1 and hunk.b0 < hunk.b1:
        return hunk
    # Only one side has lines in it; what follows is the same on both.
    if hunk.a0 == hunk.a1:
        lines, start, end, stop = b, hunk.b0, hunk.b1, after.b0
    else:
        lines, start, end, stop = a, hunk.a0, hunk.a1, after.a0
    by = 0
    while end + by < stop and lines[start + by] == lines[end + by]:
        by += 1
    return Hunk(hunk.a0 + by, hunk.a1 + by, hunk.b0 + by, hunk.b1 + by)
