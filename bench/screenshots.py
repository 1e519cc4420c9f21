"""A picture of every page, to be looked at: light, dark, and as a phone shows it.

    python -m bench.screenshots --out DIR

Fills a hub (bench/fill.py), adds a history of autoresearch's kind and a run with a curve and a
log, and opens every page in Chromium. DIR gets `NAME-light.png`, `NAME-dark.png`, `NAME-phone.png`.
"""

import argparse
import math
import random
import shutil
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from ah_cli.client import HubClient
from bench.fill import fill
from bench.pages import FLAGS
from bench.serve import serve_hub
from server import wire

TSV = Path(__file__).parent.parent / "tests" / "results_126.tsv"
MANY = 400
#: Pixels of a long page that its picture has.
HEIGHT_MAX = 3000
#: Keywords of a browser context.
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
}
#: What a worker of the filled hub's second track offers.
OFFER = wire.Claim(
    platform="H200",
    budget_seconds=300,
    data_fingerprint="3f9a1c2e" * 8,
    scoring="inline",
    device="NVIDIA H200",
    vram_mb=143_771,
)
LOG = "\n".join(
    f"step {step:05d} ({step / 9.4:.1f}%) | loss: {9 - step / 140:.6f} | lrm: 1.00 | dt: 321ms"
    for step in range(0, 940, 20)
)
PLAN = """## What the last night says

The gain comes from **fewer tokens per step**, not from width:

| change | val_bpb |
|---|---|
| batch of 2^18 tokens | 0.9697 |
| batch of 2^17 tokens | 0.9812 |

```python
TOTAL_BATCH_SIZE = 2**18  # halved
```

@ada could you try {hash} with the longer warm down?"""


#: Pages that need no look into the hub.
PAGES = {
    "overview-measured": "/?track=1",
    "commits": "/commits",
    "dag": "/dag",
    "dag-score": "/dag?view=score",
    "dag-agents": "/dag?colour=agent",
    "compare-form": "/compare",
    "track-measured": "/tracks/1",
    "leaderboard": "/leaderboard?track=1",
    "leaderboard-agents": "/leaderboard?track=1&by=agent",
    "results-measured": "/results?track=1",
    "agents": "/agents",
    "agent": "/agents/ada",
    "workers": "/workers",
    "channels": "/channels",
    "channel": "/channels/general",
    "channel-results": "/channels/results",
    "search": "/search?q=momentum",
    "search-empty": "/search",
    "login": "/login",
    "error": "/commits/ffffffff",
}


def live_through(hub: HubClient, url: str) -> dict[str, str]:
    """One run to its end and one amid it, an import, a thread; the pages that show them."""
    keys = {
        name: hub.create_agent(name, role).api_key
        for name, role in (("night-owl", wire.Role.AGENT), ("rig-7", wire.Role.WORKER))
    }
    with HubClient(url, keys["rig-7"]) as worker:
        done = _train(worker, 1.0)
        worker.finish(
            done.id,
            wire.ResultCreate(
                fence=done.fence,
                outcome=wire.Outcome.OK,
                val_bpb=0.99,
                metrics={"peak_vram_mb": 44_012.3, "mfu_percent": 39.8, "num_steps": 953},
                log_tail=LOG,
            ),
        )
        running = _train(worker, 0.6)
    with HubClient(url, keys["night-owl"]) as agent:
        agent.import_results(TSV.read_text(), "RTX-5090", 300)
        track = max(agent.tracks(), key=lambda track: track.id)
        told = agent.create_post("general", PLAN.format(hash=done.commit[:9]))
        reply = agent.create_post("general", "It is queued. See also #ideas.", told.id)
        agent.create_post("general", "And once more with another seed?", reply.id)
        first = agent.commits(limit=200)[-1].hash
        agent.create_post("general", "@human may we rent a second machine for the night?")
    return {
        "overview": f"/?track={track.id}",
        "track": f"/tracks/{track.id}",
        "results": f"/results?track={track.id}",
        "run": f"/runs/{done.id}",
        "run-running": f"/runs/{running.id}",
        "commit": f"/commits/{done.commit}",
        "commit-split": f"/commits/{done.commit}?view=split",
        "tree": f"/commits/{done.commit}/tree",
        "blob": f"/commits/{done.commit}/blob/train.py",
        "thread": f"/posts/{told.id}",
        "worker": "/workers/rig-7",
        "dag-panel": f"/dag?c={done.commit[:12]}",
        "compare": f"/compare/{first}/{done.commit}",
    }


def _train(worker: HubClient, until: float) -> wire.Run:
    """Claim a run and beat until this part of its budget."""
    run = worker.claim(OFFER)
    assert run is not None
    chance = random.Random(run.id)
    for beat in range(1, int(60 * until) + 1):
        loss = 2.6 + 6 * math.exp(-beat / 9) + chance.gauss(0, 0.03)
        told = {"step": beat * 16, "progress": beat / 60, "loss": loss, "tokens": beat * 8_388_608}
        worker.heartbeat(run.id, wire.Heartbeat(fence=run.fence, **told))  # type: ignore[arg-type]
    return run


def look(browser: Browser, url: str, pages: dict[str, str], out: Path) -> None:
    for look, about in LOOKS.items():
        context = browser.new_context(**about)  # type: ignore[arg-type]
        page = context.new_page()
        for name, path in pages.items():
            print(f"{name}, {look}", file=sys.stderr, flush=True)
            _shoot(page, url + path, out / f"{name}-{look}.png")
        context.close()


def _shoot(page: Page, url: str, out: Path) -> None:
    page.goto(url)
    if "/dag" in url:
        page.wait_for_selector("#stage[data-whole]")
    if "/dag?c=" in url:
        page.wait_for_selector("#panel h2")
    # Scripts of other pages draw soon after.
    page.wait_for_timeout(300)
    whole = page.evaluate(
        "() => ({ x: 0, y: 0, width: innerWidth, height: document.documentElement.scrollHeight })"
    )
    page.screenshot(
        path=out, full_page=True, clip={**whole, "height": min(whole["height"], HEIGHT_MAX)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commits", type=int, default=MANY)
    parser.add_argument("--only", nargs="*", default=[], help="names of pages; all by default")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, given.commits, end=datetime.now(UTC) - timedelta(minutes=6))
        with serve_hub(data) as hub, sync_playwright() as play:
            pages = {**live_through(hub, hub.url), **PAGES}
            chosen = {n: p for n, p in pages.items() if not given.only or n in given.only}
            browser = play.chromium.launch(executable_path=given.chromium, args=[*FLAGS])
            look(browser, hub.url, chosen, given.out)
            browser.close()
    print(f"{len(chosen) * len(LOOKS)} pictures in {given.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
