"""The pages in a real browser: alive, quick to find things in, and clean in the console."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from browser import Browse
from conftest import CLAIM, HubProcess, WorkTree, ok

from ah_cli.client import HubClient
from server import wire

READY = "#stage[data-ready]"


@dataclass
class Swarm:
    """A hub with a worker and two agents, and a little history: root, keep, discard, merge."""

    hub: HubProcess
    ada: HubClient
    bob: HubClient
    worker: HubClient
    work_tree: WorkTree
    hashes: dict[str, str]

    def push(self, message: str, agent: HubClient | None = None) -> str:
        self.hashes[message] = self.work_tree.commit(message)
        (agent or self.ada).push(self.work_tree.bundle())
        return self.hashes[message]

    def claim(self) -> wire.Run:
        run = self.worker.claim(CLAIM)
        assert run is not None
        return run

    def train(self, score: float) -> wire.Run:
        run = self.claim()
        self.worker.finish(run.id, ok(run.fence, score))
        return run


def grow(hub: HubProcess, work_tree: WorkTree) -> Iterator[Swarm]:
    keys = (hub.key("ada"), hub.key("bob"), hub.key("gpu1", wire.Role.WORKER))
    ada, bob, worker = (hub.client(key) for key in keys)
    swarm = Swarm(hub, ada, bob, worker, work_tree, {})
    root = swarm.push("Baseline")
    swarm.train(1.0)
    better = swarm.push("Wider MLP", bob)
    swarm.train(0.9)
    work_tree.git("checkout", "--quiet", "-b", "side", root)
    swarm.hashes["Side"] = work_tree.commit("Side <b>&amp;</b>", side_py="x = 1\n")
    ada.push(work_tree.bundle())
    swarm.train(1.2)
    work_tree.git("merge", "--quiet", "--no-ff", "--message", "Merge", better)
    swarm.hashes["Merge"] = work_tree.git("rev-parse", "HEAD")
    ada.push(work_tree.bundle())
    swarm.train(0.95)
    ada.create_channel("general")
    bob.create_post("general", f"why {better[:9]} works: <script>alert(1)</script>")
    yield swarm
    for client in (ada, bob, worker):
        client.close()


@pytest.fixture
def swarm(start_hub: Callable[..., HubProcess], work_tree: WorkTree) -> Iterator[Swarm]:
    """One of the test's own, to be changed."""
    yield from grow(start_hub(), work_tree)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """One for all tests that only look."""
    folder = tmp_path_factory.mktemp("still")
    hub = HubProcess(folder / "hub")
    hub.start()
    try:
        yield from grow(hub, WorkTree(folder / "work"))
    finally:
        hub.kill()


# Live -------------------------------------------------------------------------------------------


def test_a_commit_a_run_and_its_result_appear_in_the_dag(swarm: Swarm, browse: Browse) -> None:
    page = browse(f"{swarm.hub.url}/dag")
    page.wait_for_selector("#stage[data-commits='4']")
    swarm.push("Fresh idea")
    page.wait_for_selector("#stage[data-commits='5']")
    run = swarm.claim()
    page.wait_for_selector("#counts:has-text('1 running')")
    page.select_option("select[name=outcome]", "none")
    page.wait_for_selector("#counts:has-text('1 match')")
    swarm.worker.finish(run.id, ok(run.fence, 0.8))
    page.wait_for_selector("#counts:has-text('0 match')")
    assert "running" not in page.inner_text("#counts")


def test_a_post_appears_on_the_overview_without_losing_scroll_or_selection(
    swarm: Swarm, browse: Browse
) -> None:
    page = browse(swarm.hub.url, viewport={"width": 900, "height": 300})
    page.wait_for_selector("#live[data-state=live]")
    page.evaluate("document.querySelector('main h2').mark = 'the same node'")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('main h2'))")
    page.evaluate("scrollTo(0, 200)")
    selected = page.evaluate("getSelection().toString()")
    swarm.ada.create_post("general", "a post from elsewhere")
    page.wait_for_selector(".post:has-text('a post from elsewhere')")
    assert page.evaluate("scrollY") == 200
    assert page.evaluate("getSelection().toString()") == selected != ""
    assert page.evaluate("document.querySelector('main h2').mark") == "the same node"


def test_a_reply_appears_on_the_board_and_a_result_on_the_page_of_its_run(
    swarm: Swarm, browse: Browse
) -> None:
    swarm.push("Fresh idea")
    run = swarm.claim()
    channel = browse(f"{swarm.hub.url}/channels/general")
    running = browse(f"{swarm.hub.url}/runs/{run.id}")
    for page in (channel, running):
        page.wait_for_selector("#live[data-state=live]")
        page.evaluate("document.querySelector('main').mark = 'the same node'")
    first = swarm.ada.posts("general")[0]
    swarm.ada.create_post("general", "because of its width", first.id)
    channel.wait_for_selector(".post:has-text('because of its width')")
    swarm.worker.finish(run.id, ok(run.fence, 0.8))
    running.wait_for_selector("main:has-text('0.800000')")
    for page in (channel, running):
        assert page.evaluate("document.querySelector('main').mark") == "the same node"


def test_paused_a_page_stands_still_and_catches_up_afterwards(swarm: Swarm, browse: Browse) -> None:
    page = browse(f"{swarm.hub.url}/dag")
    page.wait_for_selector("#live[data-state=live]")
    page.click("#live")
    page.wait_for_selector("#live[data-state=paused][aria-pressed=true]")
    swarm.push("While paused")
    other = browse(f"{swarm.hub.url}/dag")
    other.wait_for_selector("#stage[data-commits='5']")
    assert page.get_attribute("#stage", "data-commits") == "4"
    page.click("#live")
    page.wait_for_selector("#stage[data-commits='5']")


def test_a_restart_of_the_hub_shows_a_notice_and_the_page_goes_on(
    swarm: Swarm, browse: Browse
) -> None:
    # A connection that is refused is an error in the console, rightly.
    page = browse(f"{swarm.hub.url}/dag?c={swarm.hashes['Wider MLP'][:12]}", complains=True)
    page.wait_for_selector("#live[data-state=live]")
    page.wait_for_selector("#panel h2:has-text('Wider MLP')")
    swarm.hub.stop()
    page.wait_for_selector("#notice:has-text('does not answer')")
    swarm.hub.start()
    swarm.push("After the restart")
    page.wait_for_selector("#stage[data-commits='5']")
    page.wait_for_selector("#notice", state="hidden")
    assert "Wider MLP" in page.inner_text("#panel h2")


def test_a_hidden_page_holds_no_connection_and_misses_nothing(swarm: Swarm, browse: Browse) -> None:
    page = browse(f"{swarm.hub.url}/dag")
    page.wait_for_selector("#live[data-state=live]")
    hide = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}})"
    page.evaluate(hide.format("true") + "; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#live[data-state=waiting]")
    swarm.push("Unseen")
    page.evaluate(hide.format("false") + "; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#stage[data-commits='5']")


# The DAG ----------------------------------------------------------------------------------------


def test_filters_are_in_the_url_and_come_back_with_it(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag")
    page.wait_for_selector(READY)
    assert page.url.endswith("/dag")
    page.select_option("select[name=agent]", "bob")
    page.select_option("select[name=outcome]", "keep")
    page.select_option("select[name=colour]", "state")
    page.wait_for_url(re.compile("agent=bob.*"))
    page.wait_for_url(re.compile("colour=state.*"))
    page.wait_for_selector("#counts:has-text('1 match')")
    again = browse(page.url)
    again.wait_for_selector("#counts:has-text('1 match')")
    assert again.input_value("select[name=agent]") == "bob"
    assert again.input_value("select[name=outcome]") == "keep"
    assert "confirmed" in again.inner_text("#legend")


def test_search_finds_messages_and_enter_goes_there(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag")
    page.wait_for_selector(READY)
    page.keyboard.press("/")
    page.keyboard.type("wider")
    page.wait_for_selector("#counts:has-text('1 match')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#above[data-selected]")
    assert f"c={still.hashes['Wider MLP'][:12]}" in page.url
    assert "q=wider" in page.url


def test_a_click_opens_the_panel_with_scores_diff_and_mentions(
    still: Swarm, browse: Browse
) -> None:
    page = browse(f"{still.hub.url}/dag?c={still.hashes['Wider MLP'][:12]}")
    page.wait_for_selector("#above[data-selected]")
    at = (page.get_attribute("#above", "data-selected") or "").split(",")
    page.click("#close")
    page.wait_for_selector("#panel", state="hidden")
    assert "c=" not in page.url
    page.click("#above", position={"x": float(at[0]), "y": float(at[1])})
    page.wait_for_selector("#panel h2:has-text('Wider MLP')")
    panel = page.inner_text("#panel")
    assert "0.900000" in panel
    assert "bob" in panel
    assert page.locator("#panel .diff .add").count() > 0
    assert "<script>alert(1)</script>" in panel
    # Kin are gone to in the graph, and what an agent wrote is text.
    page.click("#panel .kin a.hash >> nth=0")
    page.wait_for_selector("#panel h2:has-text('Baseline')")
    page.click("#panel .kin li:has-text('Side') a.hash")
    page.wait_for_selector("#panel h2:has-text('Side <b>&amp;</b>')")


def test_keys_walk_the_dag_and_open_the_panel(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag?c={still.hashes['Wider MLP'][:12]}")
    page.wait_for_selector("#above[data-selected]")
    page.focus("#above")
    page.keyboard.press("Escape")
    page.wait_for_selector("#panel", state="hidden")
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#above[data-selected]")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert f"c={still.hashes['Baseline'][:12]}" in page.url
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel h2:has-text('Wider MLP')")
    assert "by bob, 0.9, keep" in (page.text_content("#spoken") or "")


def test_nothing_moves_when_commits_arrive(swarm: Swarm, browse: Browse) -> None:
    page = browse(f"{swarm.hub.url}/dag?c={swarm.hashes['Side'][:12]}")
    page.wait_for_selector("#above[data-selected]")
    before = page.get_attribute("#above", "data-selected")
    swarm.push("On the merge")
    for number in range(3):
        swarm.work_tree.git("checkout", "--quiet", "--detach", swarm.hashes["Baseline"])
        swarm.push(f"Beside it {number}")
    page.wait_for_selector("#stage[data-commits='8']")
    page.hover("#above", position={"x": 5, "y": 300})
    assert page.get_attribute("#above", "data-selected") == before


def test_hovering_shows_a_card(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag?c={still.hashes['Side'][:12]}")
    page.wait_for_selector("#above[data-selected]")
    x, y = map(float, (page.get_attribute("#above", "data-selected") or "").split(","))
    page.hover("#above", position={"x": x, "y": y})
    page.wait_for_selector("#card .subject:has-text('Side <b>&amp;</b>')")
    card, stage = page.locator("#card").bounding_box(), page.locator("#above").bounding_box()
    assert card is not None
    assert stage is not None
    assert abs(card["y"] - stage["y"] - y) < 40


def test_the_second_view_has_the_track_s_scores_on_axes(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag")
    page.wait_for_selector(READY)
    page.click("text=val_bpb")
    page.wait_for_selector("#stage[data-view=score]")
    assert "view=score" in page.url
    assert "1.200" in page.inner_text("#legend")
    assert "0.900" in page.inner_text("#legend")
    page.click("text=Graph")
    page.wait_for_selector("#stage[data-view=graph]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(
    still: Swarm, browse: Browse, width: int, scheme: str
) -> None:
    window = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    for path in ("/", "/dag", "/commits", f"/commits/{still.hashes['Merge']}", "/runs/1"):
        page = browse(still.hub.url + path, **window)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.context.close()


def test_without_scripts_the_dag_is_a_list(still: Swarm, browse: Browse) -> None:
    page = browse(f"{still.hub.url}/dag", java_script_enabled=False)
    assert page.is_visible("text=Without it, here are the commits as a list")
    assert not page.is_visible("#stage")
    page.click("a.message:has-text('Wider MLP')")
    assert re.search(r"/commits/[0-9a-f]{40}$", page.url)


def test_an_empty_hub_has_an_empty_dag_that_fills(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree, browse: Browse
) -> None:
    hub = start_hub()
    page = browse(f"{hub.url}/dag")
    page.wait_for_selector("#counts:has-text('No commits yet')")
    page.wait_for_selector("#live[data-state=live]")
    with hub.client(hub.key("ada")) as ada:
        work_tree.commit("First")
        ada.push(work_tree.bundle())
    page.wait_for_selector("#stage[data-commits='1']")
