"""The overview in a real browser: the plot under the pointer and the keys, and live arrivals."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from browser import Browse
from conftest import CLAIM, HubProcess, WorkTree, ok, wait_for

from server import wire

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLOT = "progress-plot .frame"
TSV = Path(__file__).with_name("results_126.tsv")
SOON_MS = 20_000


@dataclass
class Watched:
    """A hub with two measured experiments in track 1 and autoresearch's 126 in track 2."""

    hub: HubProcess
    keys: dict[str, str]
    work_tree: WorkTree
    scores: dict[str, float] = field(default_factory=dict)

    def push(self, message: str) -> str:
        hash = self.work_tree.commit(message)
        with self.hub.client(self.keys["ada"]) as ada:
            ada.push(self.work_tree.bundle())
        return hash

    def train(self, scores: dict[str, float]) -> None:
        """Run all that waits; a replicate comes out as the first run did."""
        self.scores |= scores
        with self.hub.client(self.keys["gpu1"]) as worker:
            while (run := worker.claim(CLAIM)) is not None:
                worker.finish(run.id, ok(run.fence, self.scores[run.commit]))


def fill(hub: HubProcess, work_tree: WorkTree) -> Watched:
    keys = {"ada": hub.key("ada"), "gpu1": hub.key("gpu1", wire.Role.WORKER)}
    watched = Watched(hub, keys, work_tree)
    watched.train({watched.push("Baseline"): 1.0})
    watched.train({watched.push("Wider MLP"): 0.99})
    headers = {"Authorization": f"Bearer {keys['ada']}"}
    url = f"{hub.url}/api/results/import?platform=H100"
    httpx.post(url, content=TSV.read_text(), headers=headers).raise_for_status()
    return watched


@pytest.fixture
def watched(start_hub: Callable[..., HubProcess], work_tree: WorkTree) -> Watched:
    """One of the test's own, to be changed."""
    return fill(start_hub(), work_tree)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One for all tests that only look."""
    folder = tmp_path_factory.mktemp("still")
    hub = HubProcess(folder / "hub")
    hub.start()
    yield fill(hub, WorkTree(folder / "work"))
    hub.kill()


def open_plot(browse: Browse, url: str, **about: Any) -> "Page":
    page = browse(url, **about)
    page.locator(PLOT).wait_for()
    return page


def card(page: "Page") -> str:
    return page.locator("progress-plot .card:not([hidden])").inner_text()


def test_keys_walk_through_the_experiments_and_open_one(still: Watched, browse: Browse) -> None:
    page = open_plot(browse, f"{still.hub.url}/?track=1")
    page.locator(PLOT).focus()
    page.keyboard.press("ArrowRight")
    assert "1.000000 measured, kept" in card(page)
    page.keyboard.press("ArrowRight")
    assert "0.990000" in card(page)
    assert "▼ 0.010000 under the best before it" in card(page)
    assert "Wider MLP" in card(page)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{still.hub.url}/runs/2")


def is_over_one(page: "Page", frame: Any, place: tuple[int, int]) -> bool:
    page.mouse.move(frame["x"] + place[0], frame["y"] + place[1])
    return page.locator("progress-plot .frame.on").count() > 0


def test_the_pointer_shows_what_it_is_over_and_opens_it(still: Watched, browse: Browse) -> None:
    page = open_plot(browse, f"{still.hub.url}/?track=1")
    page.locator(PLOT).scroll_into_view_if_needed()
    frame = page.locator(PLOT).bounding_box()
    assert frame is not None
    places = ((x, y) for x in range(60, 160, 8) for y in range(8, 120, 8))
    found = next((place for place in places if is_over_one(page, frame, place)), None)
    assert found is not None
    assert "Baseline" in card(page)
    page.mouse.click(frame["x"] + found[0], frame["y"] + found[1])
    page.wait_for_url(f"{still.hub.url}/runs/1")


def test_dragging_zooms_and_a_double_click_shows_everything(still: Watched, browse: Browse) -> None:
    page = open_plot(browse, f"{still.hub.url}/?track=2")
    frame = page.locator(PLOT).bounding_box()
    assert frame is not None
    picture = "() => document.querySelector('progress-plot').shadowRoot"
    picture += ".querySelector('canvas').toDataURL()"
    whole = page.evaluate(picture)
    page.mouse.move(frame["x"] + 300, frame["y"] + 120)
    page.mouse.down()
    page.mouse.move(frame["x"] + 500, frame["y"] + 200)
    page.mouse.move(frame["x"] + 800, frame["y"] + 380)
    page.mouse.up()
    page.mouse.move(0, 0)
    zoomed = page.evaluate(picture)
    assert zoomed != whole
    page.mouse.dblclick(frame["x"] + 70, frame["y"] + 200)
    page.mouse.move(0, 0)
    wait_for(lambda: page.evaluate(picture) == whole, "the whole picture")
    page.get_by_role("button", name="time", exact=True).click()
    assert page.evaluate(picture) != whole
    page.get_by_role("button", name="experiment", exact=True).click()
    page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate(picture) != whole
    page.get_by_role("button", name="reset").click()
    page.mouse.move(0, 0)
    assert page.evaluate(picture) == whole


def test_a_result_arrives_without_reload_and_the_reader_stays_put(
    watched: Watched, browse: Browse
) -> None:
    page = open_plot(browse, f"{watched.hub.url}/?track=1", viewport={"width": 1000, "height": 500})
    page.evaluate("() => { window.stayed = true; scrollTo(0, 700); }")
    top = page.evaluate("() => scrollY")
    assert top > 0
    hash = watched.push("Depth 12")
    page.locator(f"#feed a[href='/commits/{hash}']").first.wait_for(timeout=SOON_MS)
    page.locator(PLOT).focus()
    watched.train({hash: 0.98})
    page.locator("#morning", has_text="0.980000").wait_for(timeout=SOON_MS)
    assert page.evaluate("() => window.stayed") is True
    focused = "() => document.activeElement.localName"
    assert page.evaluate(focused) == "progress-plot"
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert re.search(r"experiment 3", card(page))


def test_nothing_moves_while_paused(watched: Watched, browse: Browse) -> None:
    page = open_plot(browse, f"{watched.hub.url}/?track=1")
    page.locator("#live[data-state=live]").wait_for(timeout=SOON_MS)
    page.locator("#live").click()
    hash = watched.push("Depth 12")
    assert page.locator(f"#feed a[href='/commits/{hash}']").count() == 0
    page.locator("#live").click()
    page.locator(f"#feed a[href='/commits/{hash}']").first.wait_for(timeout=SOON_MS)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(
    still: Watched, browse: Browse, width: int, scheme: str
) -> None:
    paths = ("/", "/?track=2", "/tracks/1", "/tracks/2", "/leaderboard", "/leaderboard?by=agent")
    paths += ("/results", "/results?track=2", "/runs/1")
    page = open_plot(
        browse, still.hub.url, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    for path in paths:
        page.goto(still.hub.url + path)
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path
