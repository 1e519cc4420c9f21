"""Does the 10,000th push cost what the 100th did? Push commit by commit and compare.

    python -m bench.pushes --pushes 1000

The figures that count are ratios: of the last pushes to the first ones, of the last ones to
those of a fresh hub in the same seconds (which nothing else on the machine can spoil), and of the
bytes on disk to those of a fresh `git gc --aggressive`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from ah_cli.client import HubClient
from bench.history import make_history, write_bundle
from bench.serve import serve_hub

_SAMPLES = 500
# Before the first sample. What is fetched again at the end is early, so that only the hub grows.
_FIXED = 30
_GENERATIONS = 20
_COUNT_EVERY = 20


@dataclass
class Times:
    """Seconds that each kind of call took."""

    push: list[float] = field(default_factory=list)
    fetch: list[float] = field(default_factory=list)
    informed: list[float] = field(default_factory=list)
    diff: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)


@dataclass
class Files:
    """The most that were ever there."""

    loose: int = 0
    packs: int = 0
    refs: int = 0

    def look(self, repo: Path) -> None:
        self.loose = max(self.loose, _count(repo, "objects/[0-9a-f][0-9a-f]/*"))
        self.packs = max(self.packs, _count(repo, "objects/pack/*.pack"))
        self.refs = max(self.refs, _count(repo, "refs/agenthub/heads/*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=1000)
    parser.add_argument("--pack-after", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), given.pushes, given.pack_after)


def run(folder: Path, count: int, pack_after: int) -> None:
    commits = make_history(folder / "history.git", count)
    pushes = Pushes(commits, _make_bundles(folder, commits), folder / "fetched")
    samples = min(_SAMPLES, (count - _FIXED) // 2)
    first, last, fresh, files = Times(), Times(), Times(), Files()
    data = folder / "data"
    started = time.perf_counter()
    with _hub(data, pack_after) as client:
        for number in range(count - samples):
            pushes.push(client, number, first if number < _FIXED + samples else None)
            if number % _COUNT_EVERY == 0:
                files.look(data / "repo.git")
        with _hub(folder / "fresh", pack_after) as other:
            for number in range(_FIXED):
                pushes.push(other, number, None)
            for number in range(samples):
                pushes.push(client, count - samples + number, last, old=_FIXED + number)
                pushes.push(other, _FIXED + number, fresh)
        took = time.perf_counter() - started
        as_it_stood = _measure(data / "repo.git")
        _agenthub("maintain", "--data", str(data))
    _report(first, last, fresh)
    print(f"\n{count} pushes in {took:.0f} s, {samples} of them at each end with the other calls")
    print(f"at most {files.loose} loose objects, {files.packs} packs, {files.refs} loose refs")
    _compare(folder, data / "repo.git", as_it_stood)


@dataclass(frozen=True)
class Pushes:
    """One-commit pushes made ahead, and the calls that are timed along with them."""

    commits: list[tuple[str, str]]
    bundles: dict[str, Path]
    out: Path

    def push(
        self, client: HubClient, number: int, times: Times | None, old: int | None = None
    ) -> None:
        """Push a commit; with `times`, also fetch and diff it, and fetch the `old` one again."""
        sha, parent = self.commits[number]
        if times is None or number < _FIXED:
            client.push(self.bundles[sha])
            return
        _time(times.push, lambda: client.push(self.bundles[sha]))
        again = self.commits[number if old is None else old][0]
        # One generation more, or the bundle of the first time would come from the hub's cache.
        have = [self._ancestor(again, _GENERATIONS if old is None else _GENERATIONS + 1)]
        _time(times.fetch, lambda: client.fetch(again, self.out, have))
        _time(times.informed, lambda: client.fetch(sha, self.out, [parent]))
        _time(times.diff, lambda: client.diff(parent, sha))
        _time(times.health, client.health)

    def _ancestor(self, sha: str, generations: int) -> str:
        parents = dict(self.commits)
        for _ in range(generations):
            sha = parents[sha] or sha
        return sha


def _time(into: list[float], call: Callable[[], object]) -> None:
    before = time.perf_counter()
    call()
    into.append(time.perf_counter() - before)


def _make_bundles(folder: Path, commits: list[tuple[str, str]]) -> dict[str, Path]:
    where = folder / "bundles"
    where.mkdir()
    history = folder / "history.git"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for sha, parent in commits:
            pool.submit(write_bundle, history, sha, parent, where / sha)
    return {sha: where / sha for sha, _ in commits}


@contextmanager
def _hub(data: Path, pack_after: int) -> Iterator[HubClient]:
    """A hub process, and an agent's client of it."""
    with serve_hub(data, "--pack-after", str(pack_after)) as admin:
        key = admin.create_agent("bench").api_key
        with HubClient(admin.url, key) as client:
            yield client


def _agenthub(*args: str) -> None:
    subprocess.run([sys.executable, "-m", "server", *args], check=True, stdout=subprocess.DEVNULL)


def _count(repo: Path, pattern: str) -> int:
    return sum(1 for _ in repo.glob(pattern))


def _measure(repo: Path) -> int:
    """Bytes that a repository takes on disk, in whole blocks, folders too."""
    total = 0
    for path in (repo, *repo.rglob("*")):
        # The hub may be at its maintenance.
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def _report(first: Times, last: Times, fresh: Times) -> None:
    print("| call | first | last | fresh hub | last / first | last / fresh |")
    print("|---|---|---|---|---|---|")
    for name in ("push", "fetch", "informed", "diff", "health"):
        a, b, c = (getattr(times, name) for times in (first, last, fresh))
        if a:
            ratios = f"{median(b) / median(a):.2f} | {median(b) / median(c):.2f}"
            print(f"| {name} | {_show(a)} | {_show(b)} | {_show(c)} | {ratios} |")


def _show(times: list[float]) -> str:
    """Median and 95th percentile, ms."""
    return f"{median(times) * 1000:.1f} ({quantiles(times, n=20)[-1] * 1000:.0f})"


def _compare(folder: Path, repo: Path, as_it_stood: int) -> None:
    packed = _measure(repo)
    fresh = folder / "collected.git"
    subprocess.run(["git", "clone", "--quiet", "--mirror", str(repo), str(fresh)], check=True)
    subprocess.run(["git", "gc", "--quiet", "--aggressive", "--prune=now"], cwd=fresh, check=True)
    best = _measure(fresh)
    print(
        f"disk: {as_it_stood / best:.2f} times `git gc --aggressive` ({best / 2**20:.1f} MiB), "
        f"{packed / best:.2f} after `agenthub maintain`"
    )


if __name__ == "__main__":
    main()
