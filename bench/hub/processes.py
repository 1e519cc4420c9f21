"""What processes take, as the kernel tells it: CPU time and memory. Linux only."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def find_tree(pid: int) -> list[int]:
    """The process and all that it started, as far as they live."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            waiting += [int(child) for child in _read(task).split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Of the tree so far, with that of ended children that were waited for."""
    total = 0
    for one in find_tree(pid):
        fields = _read(Path(f"/proc/{one}/stat")).rpartition(")")[2].split()
        total += sum(int(ticks) for ticks in fields[11:15])
    return total / _TICK


def memory(pid: int) -> list[tuple[float, float]]:
    """RSS and PSS in MiB of each process of the tree; PSS shares what several have."""
    found = []
    for one in find_tree(pid):
        lines = _read(Path(f"/proc/{one}/smaps_rollup")).splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        if kib:
            found.append((kib["Rss"] / 1024, kib["Pss"] / 1024))
    return found


def _read(path: Path) -> str:
    """Empty for what is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
