"""How fast a hub answers, in requests a second and as a share of U, at any size.

    python -m bench.hub --commits 1000 --cache /tmp/fills
    python -m bench.hub --commits 100000 --cache /tmp/fills --only commit post --connections 16

U is what a bare Starlette route answers under the same server in one process, measured in turns
with the calls. Exits with 1 when an answer was an error.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench import serve
from bench.hub import calls, client, directory, listeners, processes, sample, writes, wrk
from bench.hub.table import HEAD, Figures, Row, Target

CONNECTIONS = (1, 16, 64)
#: Of the yardstick, and of the turns before and after a call.
_U_CONNECTIONS = 16
#: How long a call is measured that answers only a few times in `--seconds`.
_SLOW_SECONDS = 6.0
_SETTLE_SECONDS = 20.0
_LISTENERS = Target(p99=2000)


def main() -> None:
    given = _parse()
    if not wrk.is_installed():
        sys.exit(wrk.MISSING)
    listeners.raise_open_files()
    rows: list[Row] = []
    facts: list[str] = []
    with ExitStack() as stack:
        cache = given.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for count in given.commits:
            _say(f"{count:,} commits and posts ...")
            with directory.borrow(cache, count) as data:
                Bench(given, data, count, rows, facts).run()
    if given.json:
        print(json.dumps({"facts": facts, "rows": [row.to_json() for row in rows]}))
    else:
        print(_show(rows, facts))
    sys.exit(any(row.figures.errors for row in rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--commits", type=_numbers, default=[1000], help="sizes, such as 1000,100000")
    add("--cache", type=Path, help="folder where filled directories are kept for the next time")
    add("--connections", type=_numbers, default=[*CONNECTIONS])
    add("--seconds", type=float, default=1.0, help="that each call is measured for")
    add("--workers", type=int, default=1, help="processes of the hub")
    add("--listeners", type=int, default=5000, help="of the live feed; 0: none")
    add("--only", nargs="+", default=["*"], metavar="NAME", help="calls, such as 'page:*'")
    add("--json", action="store_true")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


class Bench:
    """One size: a hub, the yardstick, and all calls in turn."""

    def __init__(
        self,
        given: argparse.Namespace,
        data: Path,
        count: int,
        rows: list[Row],
        facts: list[str],
    ) -> None:
        self._given = given
        self._data = data
        self._count = count
        self._rows = rows
        self._facts = facts

    def run(self) -> None:
        # Else the first start would be that of a hub that is brought up to date.
        subprocess.run(
            [sys.executable, "-m", "server", "migrate", "--data", str(self._data)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with ExitStack() as stack:
            yard = [sys.executable, "-m", "bench.hub.yardstick"]
            self._u_url = stack.enter_context(serve.start(yard)).url
            self._hub = stack.enter_context(serve.run_hub(self._data, *self._flags()))
            self._fact(f"startup {self._hub.startup:.2f} s; memory, MiB: {self._memory()}")
            known = sample.read(self._data)
            for call in calls.list_calls(known, self._count):
                if self._is_wanted(call.name):
                    self._measure_get(call)
            self._fact(f"after the reads: {self._memory()}")
            for write in writes.list_writes(self._hub.url, known, self._count):
                if self._is_wanted(write.name):
                    self._measure(write.name, write.target, write.drive)
            self._fact(f"after the writes: {self._memory()}")
            if self._given.listeners and self._is_wanted("live feed"):
                self._measure_feed()

    def _flags(self) -> list[str]:
        many = self._given.workers
        return ["--workers", str(many)] if many > 1 else []

    def _is_wanted(self, name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._given.only)

    def _measure_get(self, call: calls.Call) -> None:
        headers = {"Authorization": f"Bearer {directory.AGENT_KEY}", **call.headers}
        is_right, tag = self._probe(call, headers)
        if call.is_conditional:
            headers["If-None-Match"] = tag
        if call.is_once:
            self._measure(call.name, call.target, _once(self._hub.url, call.paths))
            return
        seeds = iter(range(1, 100))

        def drive(connections: int, seconds: float) -> Figures:
            figures = wrk.get(self._hub.url, call.paths, connections, seconds, headers, next(seeds))
            # wrk takes any status below 400 for a success.
            figures.errors = figures.errors if is_right else figures.requests
            return figures

        self._measure(call.name, call.target, drive)

    def _probe(self, call: calls.Call, headers: dict[str, str]) -> tuple[bool, str]:
        """Whether it answers as it should, and the ETag of its answer."""
        path = call.paths[-1]
        status, tag = _ask(self._hub.url + path, headers)
        if call.is_conditional and tag:
            status, _ = _ask(self._hub.url + path, {**headers, "If-None-Match": tag})
        wanted = 304 if call.is_conditional else 200
        if status != wanted:
            _say(f"{call.name}: {status} instead of {wanted} for {path}")
        return status == wanted, tag

    def _measure(
        self, name: str, target: Target | None, drive: Callable[[int, float], Figures]
    ) -> None:
        before = self._measure_u()
        found = []
        for connections in self._given.connections:
            figures = self._drive(drive, connections, self._given.seconds)
            if figures.requests < 4 * connections:
                figures = self._drive(drive, connections, max(self._given.seconds, _SLOW_SECONDS))
            found.append((connections, figures))
        u = (before + self._measure_u()) / 2
        for connections, figures in found:
            self._add(Row(self._count, name, connections, u, figures, target))

    def _drive(
        self, drive: Callable[[int, float], Figures], connections: int, seconds: float
    ) -> Figures:
        began = self._settle()
        figures = drive(connections, seconds)
        figures.cpu = (self._settle() - began) / max(figures.requests, 1) * 1e6
        return figures

    def _settle(self) -> float:
        """Let the hub end what it was still at for connections that are gone; its CPU seconds."""
        until = time.monotonic() + _SETTLE_SECONDS
        before = processes.cpu_seconds(self._hub.pid)
        while time.monotonic() < until:
            time.sleep(0.05)
            after = processes.cpu_seconds(self._hub.pid)
            if after - before < 0.02:
                return after
            before = after
        return before

    def _measure_u(self) -> float:
        return wrk.get(self._u_url, ["/"], _U_CONNECTIONS, self._given.seconds).rate

    def _measure_feed(self) -> None:
        many = self._given.listeners
        u, before = self._measure_u(), self._memory()
        began = processes.cpu_seconds(self._hub.pid)
        with listeners.Listeners(self._hub.url, many) as crowd:
            figures = crowd.fan_out()
            figures.cpu = (processes.cpu_seconds(self._hub.pid) - began) / figures.requests * 1e6
            self._fact(f"{many:,} listeners: {self._memory()}, before them {before}")
        name = f"live feed, {many:,}: to all"
        target = Target(p99=_LISTENERS.p99, connections=many)
        self._add(Row(self._count, name, many, u, figures, target))

    def _memory(self) -> str:
        found = processes.memory(self._hub.pid)
        return " + ".join(f"{rss:.0f} (PSS {pss:.0f})" for rss, pss in found)

    def _fact(self, text: str) -> None:
        self._facts.append(f"{self._count:,} commits: {text}")
        _say(self._facts[-1])

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        _say(row.to_line())


def _once(url: str, paths: list[str]) -> Callable[[int, float], Figures]:
    left = iter(paths)

    def following(_: int, __: int, ___: bytes) -> bytes | None:
        path = next(left, None)
        return path and client.request("GET", path, directory.AGENT_KEY)

    return lambda connections, seconds: client.drive(url, connections, seconds, following)


def _ask(url: str, headers: dict[str, str]) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers), timeout=60) as answer:
            answer.read()
            return answer.status, answer.headers.get("ETag") or ""
    except HTTPError as error:
        return error.code, error.headers.get("ETag") or ""


def _show(rows: list[Row], facts: list[str]) -> str:
    parts = []
    for count in dict.fromkeys(row.commits for row in rows):
        mine = [row for row in rows if row.commits == count]
        us = sorted(row.u for row in mine)
        told = [fact.partition(": ")[2] for fact in facts if fact.startswith(f"{count:,} ")]
        parts.append(
            f"## {count:,} commits\n\nU: {us[0]:,.0f} to {us[-1]:,.0f}/s. {'. '.join(told)}\n"
        )
        parts.append("\n".join([HEAD, *(row.to_line() for row in mine)]) + "\n")
    return "\n".join([*parts, *_growth(rows)])


def _growth(rows: list[Row]) -> Iterator[str]:
    """How the ratios to U changed from the first size to the others, at 16 connections."""
    sizes = list(dict.fromkeys(row.commits for row in rows))
    if len(sizes) < 2:
        return
    yield "| call, 16 connections | " + " | ".join(f"{size:,}" for size in sizes) + " | slower |"
    yield "|---" * (len(sizes) + 2) + "|"
    for call in dict.fromkeys(row.call for row in rows):
        shares = [_share(rows, call, size) for size in sizes]
        cells = " | ".join("" if share is None else f"{share:.3f}" for share in shares)
        first, last = shares[0], shares[-1]
        yield f"| {call} | {cells} | {f'{first / last:.2f}' if first and last else ''} |"


def _share(rows: list[Row], call: str, size: int) -> float | None:
    for row in rows:
        if (row.call, row.commits, row.connections) == (call, size, 16):
            return row.figures.rate / row.u
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
