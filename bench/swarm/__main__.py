"""Do scores mean something in a swarm whose truth is known? Play one and check the hub's word.

    python -m bench.swarm --seeds 1

200 agents push, 20 workers of two platforms train 2,000 runs, through the real API of a hub in this
process whose clock is moved. Exits with 1 when a criterion fails.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.swarm import Size, play_swarm
from bench.swarm.audit import Report

FALSE_RECORDS_MAX = 0.01
REPLICATES = (0.12, 0.18)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, help="swarms to play, one after the other")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="figures as JSON on stdout")
    given = parser.parse_args()
    size = Size(given.agents, given.workers, given.runs)
    reports, started = [], time.monotonic()
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            show = _show_progress if sys.stderr.isatty() else None
            reports.append(play_swarm(size, seed, Path(folder), show))
    figures = _sum_up(reports) | {"seconds": round(time.monotonic() - started)}
    problems = [problem for report in reports for problem in report.problems]
    failed = [name for name, passed in _criteria(figures, problems).items() if not passed]
    if given.json:
        print(json.dumps(figures | {"problems": problems, "failed": failed}))
    else:
        _print_table(figures, problems, failed)
    sys.exit(1 if failed else 0)


def _show_progress(done: int, total: int) -> None:
    end = "\r" if done < total else "\n"
    print(f"{done}/{total} runs", end=end, file=sys.stderr, flush=True)


def _sum_up(reports: list[Report]) -> dict[str, Any]:
    runs: Counter[str] = sum((report.tally.runs for report in reports), Counter())
    states: Counter[str] = sum((report.states for report in reports), Counter())
    shares = [share for report in reports for share in report.shares]
    steady = [share for share in shares if share.is_steady]
    both = sum(report.tally.both for report in reports)
    own = sum(report.tally.own_of_both for report in reports)
    ratios = [share.served / share.level for share in steady]
    return {
        "swarms": len(reports),
        "pushes": sum(share.pushes for share in shares),
        "runs": dict(runs),
        "comparisons": sum(report.comparisons for report in reports),
        "records": sum(report.records for report in reports),
        "false_records": sum(report.false_records for report in reports),
        "challengers": sum(report.challengers for report in reports),
        "states": dict(states),
        "agents": len(shares),
        "steady_agents": len(steady),
        "steady_share": [min(ratios), fmean(ratios), max(ratios)] if ratios else None,
        "unfair_agents": sum(not share.is_fair for share in shares),
        "most_pushes": asdict(max(shares, key=lambda share: share.pushes)),
        "leases_while_both_waited": both,
        "replicate_share": own / both if both else None,
        "replicate_share_of_all": runs["replicate"] / (runs["replicate"] + runs["first"]),
        "progress": [report.progress for report in reports],
    }


def _criteria(figures: dict[str, Any], problems: list[str]) -> dict[str, bool]:
    share, steady = figures["replicate_share"], figures["steady_share"]
    return {
        "no comparison across tracks, nothing else odd": not problems,
        "false records at most 1 %": (
            figures["false_records"] <= FALSE_RECORDS_MAX * figures["records"]
        ),
        "every agent within 20 % of its share": (
            steady is not None and not figures["unfair_agents"]
        ),
        "replicates near 15 %": share is not None and REPLICATES[0] <= share <= REPLICATES[1],
    }


def _print_table(figures: dict[str, Any], problems: list[str], failed: list[str]) -> None:
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name.replace('_', ' ')} | {_show(value)} |")
    for name in _criteria(figures, problems):
        print(f"{'FAILED' if name in failed else 'ok':>6}  {name}")
    for problem in problems[:20]:
        print(f"        {problem}")


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " / ".join(_show(each) for each in value)
    return str(value)


if __name__ == "__main__":
    main()
