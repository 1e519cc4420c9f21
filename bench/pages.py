"""How quick the pages are to open, and how smooth the DAG is, with much in the hub.

    python -m bench.pages --commits 10000

Fills a hub (bench/fill.py), serves it, and looks at it with Chromium, headless, drawing in
software. Prints one row per figure.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from bench.fill import fill
from server import commits, events
from server.db import Connection, Database, sqlite_url
from server.repo import StagedCommit

SIZE = {"width": 1440, "height": 900}
EVENTS = 1000
FRAMES = 120
FLAGS = (
    *("--no-sandbox", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
#: Dispatches one gesture per frame and tells how long each frame took, ms.
GESTURE = """
([kind, frames]) => new Promise((resolve) => {
  const canvas = document.getElementById("above");
  const box = canvas.getBoundingClientRect();
  const same = { bubbles: true, cancelable: true, pointerId: 1 };
  const at = (x, y) => ({ clientX: box.left + x, clientY: box.top + y, ...same });
  canvas.setPointerCapture = () => {};
  if (kind === "pan") canvas.dispatchEvent(new PointerEvent("pointerdown", at(700, 400)));
  const times = [];
  let before = performance.now();
  let n = 0;
  function step(now) {
    times.push(performance.now() - before);
    before = performance.now();
    const turn = Math.sin((n / frames) * 6.28);
    if (kind === "pan") {
      canvas.dispatchEvent(new PointerEvent("pointermove", at(700 + turn * 500, 400 + turn * 90)));
    } else {
      const deltaY = Math.cos((n / frames) * 6.28) * 110;
      canvas.dispatchEvent(new WheelEvent("wheel", { ...at(700, 400), deltaY }));
    }
    if (++n < frames) requestAnimationFrame(step);
    else {
      if (kind === "pan") canvas.dispatchEvent(new PointerEvent("pointerup", at(700, 400)));
      resolve(times.slice(2));
    }
  }
  requestAnimationFrame(step);
})
"""


@contextmanager
def serve(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "server", "serve", "--data", str(data), "--listen"]
    hub = subprocess.Popen(
        [*command, "127.0.0.1:0"],
        env={**os.environ, "AGENTHUB_ADMIN_KEY": "the-key-of-the-bench", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        # Commits that arrive live are rows without objects: the hub says so of each.
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert hub.stdout is not None
    try:
        yield next(line.split()[3] for line in hub.stdout if "listens on" in line)
    finally:
        hub.send_signal(signal.SIGTERM)
        hub.wait(timeout=30)


def tell(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def time_opening(browser: Browser, url: str, usable: str, moment: str) -> float:
    """Milliseconds from navigation until the page can be used; the median of three, all fresh."""
    found = []
    for _ in range(3):
        page = browser.new_page(viewport=SIZE)
        _open(page, url, usable)
        found.append(page.evaluate(moment))
        page.close()
    return median(found)


def _open(page: Page, url: str, usable: str = "#stage[data-whole]") -> None:
    page.goto(url)
    page.wait_for_selector(usable, timeout=120_000)


def time_gestures(page: Page, where: str) -> None:
    for kind in ("pan", "zoom"):
        times = page.evaluate(GESTURE, [kind, FRAMES])
        worst = quantiles(times, n=20)[-1]
        tell(
            f"{kind}, {where}: frame, median (95th percentile)",
            f"{median(times):.0f} ({worst:.0f}) ms",
        )


def weigh(session: CDPSession) -> float:
    """MiB of the page's JavaScript heap after a collection."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"]) / 2**20


def live_events(page: Page, data: Path, count: int) -> None:
    """Let commits and events arrive; tell how the page's memory grows."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    database = Database(sqlite_url(data / "hub.db"))
    before = weigh(session)
    for part in range(2):
        for number in range(count // 20):
            with database.write() as conn:
                _arrive(conn, part * count + number * 10)
            page.wait_for_timeout(20)
        page.wait_for_timeout(2000)
        total = page.evaluate("document.getElementById('stage').dataset.commits")
        tell(f"heap after {(part + 1) * count // 2:,} live events", f"{weigh(session):.1f} MiB")
    tell("heap before them", f"{before:.1f} MiB ({total} commits in the end)")
    database.close()


def _arrive(conn: Connection, number: int) -> None:
    """Five commits on the newest one and five posts, as ten events."""
    now = datetime.now(UTC)
    parent = commits.list_commits(conn, None, 1)[0]["hash"]
    for k in range(number, number + 5):
        hash = f"{k:08x}{time.monotonic_ns():032x}"[:40]
        staged = StagedCommit(
            hash=hash,
            tree=hash,
            code=hash,
            parents=(parent,),
            subject="live",
            body="",
            authored_at=now,
        )
        commits.index(conn, [staged], "ada", now)
        events.append(conn, "commit", "ada", hash, {"heads": [hash], "new": 1}, now)
        events.append(conn, "post", "ada", str(k), {"channel": "general"}, now)


def measure(browser: Browser, url: str, data: Path) -> None:
    for what, mark in (("usable", "dag-ready"), ("whole", "dag-whole")):
        moment = f"performance.getEntriesByName('{mark}')[0].startTime"
        opened = time_opening(browser, f"{url}/dag", "#stage[data-ready][data-whole]", moment)
        tell(f"DAG {what} after", f"{opened:.0f} ms")
    shown = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    tell("overview usable after", f"{time_opening(browser, url, 'footer', shown):.0f} ms")
    page = browser.new_page(viewport=SIZE)
    _open(page, f"{url}/dag")
    time_gestures(page, "at the frontier")
    page.click("#fit")
    time_gestures(page, "all in sight")
    _open(page, f"{url}/dag?view=score")
    time_gestures(page, "time by val_bpb")
    _open(page, f"{url}/dag")
    live_events(page, data, EVENTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, given.commits)
        with serve(data) as url, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=given.chromium, args=[*FLAGS])
            print(f"| {given.commits:,} commits | |\n|---|---|")
            measure(browser, url, data)
            browser.close()


if __name__ == "__main__":
    main()
