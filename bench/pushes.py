"""Does the 10,000th push cost what the 100th did? Push commit by commit and compare.

    python -m bench.pushes --pushes 1000

The figures that count are ratios: of the last pushes to the first ones, and of the bytes on disk to
those of a fresh `git gc --aggressive`. `health` shows what the machine itself did meanwhile.
"""

import argparse
import inspect
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

_ADMIN_KEY = "the-admin-key-of-the-bench"
_QUOTAS = ("pushes", "posts", "diffs", "registrations")
_SAMPLES = 500
# The commit whose whole ancestry is fetched all along: early, so that only the hub grows.
_FIXED = 30
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
    bundles = _make_bundles(folder, commits)
    with _hub(folder / "data", pack_after) as (url, data):
        with HubClient(url, _ADMIN_KEY) as admin:
            key = admin.create_agent("bench").api_key
        with HubClient(url, key) as client:
            first, last, files, took = _push_all(client, data, commits, bundles, folder)
        repo = data / "repo.git"
        as_it_stood = _measure(repo)
        _agenthub("maintain", "--data", str(data))
        packed = _measure(repo)
    _report(first, last)
    print(
        f"\n{count} pushes in {took:.0f} s with {_SAMPLES} samples of the other calls at each end"
    )
    print(f"at most {files.loose} loose objects, {files.packs} packs, {files.refs} loose refs")
    _compare(folder, repo, as_it_stood, packed)


def _push_all(
    client: HubClient,
    data: Path,
    commits: list[tuple[str, str]],
    bundles: dict[str, Path],
    folder: Path,
) -> tuple[Times, Times, Files, float]:
    first, last, files = Times(), Times(), Files()
    samples = min(_SAMPLES, (len(commits) - _FIXED) // 2)
    started = time.perf_counter()
    for number, (sha, parent) in enumerate(commits):
        if number < _FIXED:
            client.push(bundles[sha])
            continue
        is_first, is_last = number < _FIXED + samples, number >= len(commits) - samples
        times = first if is_first else last if is_last else Times()
        _time(times.push, lambda sha=sha: client.push(bundles[sha]))
        if is_first or is_last:
            _sample(client, times, commits[_FIXED - 1][0], sha, parent, folder / "fetched")
        if number % _COUNT_EVERY == 0:
            files.look(data / "repo.git")
    return first, last, files, time.perf_counter() - started


def _sample(client: HubClient, times: Times, fixed: str, sha: str, parent: str, out: Path) -> None:
    _time(times.fetch, lambda: client.fetch(fixed, out))
    if "have" in inspect.signature(client.fetch).parameters:
        informed = {"have": [parent]}
        _time(times.informed, lambda: client.fetch(sha, out, **informed))
    _time(times.diff, lambda: client.diff(parent, sha))
    _time(times.health, client.health)


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
def _hub(data: Path, pack_after: int) -> Iterator[tuple[str, Path]]:
    flags = [flag for kind in _QUOTAS for flag in (f"--max-{kind}-per-hour", "0")]
    flags += ["--listen", "127.0.0.1:0", "--data", str(data), "--pack-after", str(pack_after)]
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", *flags],
        env={**os.environ, "AGENTHUB_ADMIN_KEY": _ADMIN_KEY, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        greeting = next(line for line in process.stdout if "listens on" in line)
        yield greeting.split("listens on ")[1].split()[0], data
    finally:
        process.terminate()
        process.wait()


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


def _report(first: Times, last: Times) -> None:
    print("| call | first: median, p95, ms | last: median, p95, ms | ratio of medians |")
    print("|---|---|---|---|")
    for name in ("push", "fetch", "informed", "diff", "health"):
        before, after = getattr(first, name), getattr(last, name)
        if before:
            ratio = median(after) / median(before)
            print(f"| {name} | {_show(before)} | {_show(after)} | {ratio:.2f} |")


def _show(times: list[float]) -> str:
    return f"{median(times) * 1000:.1f}, {quantiles(times, n=20)[-1] * 1000:.1f}"


def _compare(folder: Path, repo: Path, as_it_stood: int, packed: int) -> None:
    fresh = folder / "fresh.git"
    subprocess.run(["git", "clone", "--quiet", "--mirror", str(repo), str(fresh)], check=True)
    subprocess.run(["git", "gc", "--quiet", "--aggressive", "--prune=now"], cwd=fresh, check=True)
    best = _measure(fresh)
    print(
        f"disk: {as_it_stood / best:.2f} times `git gc --aggressive` ({best / 2**20:.1f} MiB), ",
        end="",
    )
    print(f"{packed / best:.2f} after `agenthub maintain`")


if __name__ == "__main__":
    main()
