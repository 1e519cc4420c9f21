"""What the index of similar experiments costs: reading, pushes meanwhile, questions, bytes.

    python -m bench.similar --commits 10000

One push brings a whole history, which the hub then reads in the background; small pushes go on
meanwhile, and again when it is done.
"""

import argparse
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ah_cli.client import HubClient
from bench.history import make_history, write_bundle
from bench.pushes import _hub, _show
from server import wire

_SAMPLES = 200
_PUSHES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), given.commits)


def run(folder: Path, count: int) -> None:
    commits = make_history(folder / "history.git", count + 2 * _PUSHES)
    bundles = _make_bundles(folder, commits, count)
    data = folder / "data"
    with _hub(data, 200) as client:
        client.push(bundles[0])
        began, known = time.perf_counter(), _count_read(data)
        busy = [_time(lambda one=one: client.push(one)) for one in bundles[1 : 1 + _PUSHES]]
        is_busy = _count_read(data) < count
        while _count_read(data) < count + _PUSHES:
            time.sleep(0.05)
        took, read = time.perf_counter() - began, count + _PUSHES - known
        print(f"read {read / took:.0f} commits a second in the background")
        idle = [_time(lambda one=one: client.push(one)) for one in bundles[1 + _PUSHES :]]
        print(f"push, ms: {_show(busy)} while it reads{'' if is_busy else ' (at first)'}")
        print(f"push, ms: {_show(idle)} afterwards")
        _ask(client, commits, folder / "history.git")
    with closing(sqlite3.connect(data / "hub.db")) as file:
        bytes_of = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'experiments_fts%'"
        size = file.execute(bytes_of).fetchone()[0]
        print(f"index: {size / (count + 2 * _PUSHES):.0f} bytes a commit")


def _make_bundles(folder: Path, commits: list[tuple[str, str]], count: int) -> list[Path]:
    """The first of `count` commits, then one of each later one."""
    history = folder / "history.git"
    whole = folder / "whole"
    tips = {sha for sha, _ in commits[:count]} - {parent for _, parent in commits[:count]}
    for sha in tips:
        subprocess.run(["git", "update-ref", f"refs/tips/{sha}", sha], cwd=history, check=True)
    create = ["git", "bundle", "create", "--quiet", str(whole), "--glob=refs/tips/*"]
    subprocess.run(create, cwd=history, check=True)
    bundles = [whole]
    for number, (sha, parent) in enumerate(commits[count:]):
        bundles.append(folder / f"{number}.bundle")
        write_bundle(history, sha, parent, bundles[-1])
    return bundles


def _ask(client: HubClient, commits: list[tuple[str, str]], history: Path) -> None:
    def ask(**asked: object) -> Callable[[], object]:
        return lambda: client.similar(wire.SimilarQuery.model_validate(asked))

    picked = commits[1 :: len(commits) // _SAMPLES][:_SAMPLES]
    diffs = [
        subprocess.check_output(["git", "diff", parent, sha], cwd=history, text=True)
        for sha, parent in picked
    ]
    long = ("\n".join(diffs))[:60_000]
    kinds = {
        "health": [client.health] * _SAMPLES,
        "a commit": [ask(commit=sha) for sha, _ in picked],
        "a diff": [ask(text=diff) for diff in diffs],
        "words": [ask(text=f"value_{number} 0.{number}5") for number in range(_SAMPLES)],
        "words that all have": [ask(text="change a few values")] * _SAMPLES,
        "a diff of 60 KB": [ask(text=long)] * 20,
    }
    for name, calls in kinds.items():
        print(f"{name}, ms: {_show([_time(call) for call in calls])}")


def _time(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def _count_read(data: Path) -> int:
    with closing(sqlite3.connect(data / "hub.db")) as file:
        upto: int = file.execute(
            "SELECT upto FROM watermarks WHERE name = 'similar.commits'"
        ).fetchone()[0]
        return upto


if __name__ == "__main__":
    main()
