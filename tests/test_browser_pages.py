"""The pages in a real browser: no error, no breach of the policy, fit for everyone."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import CLAIM, HubProcess, WorkTree, ok

from ah_cli.client import HubClient
from server import wire

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright  # noqa: E402

_FLAGS = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", *_FLAGS]
SERIOUS = {"serious", "critical"}
NO_QUOTAS = ("--max-posts-per-hour", "0", "--max-pushes-per-hour", "0")
EVIL = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\"> "
    "[a](javascript:alert(1)) ![b](https://evil.example/x.png) \u202egnp.exe \x1b[31mred"
)


@dataclass
class Site:
    """A hub with one of everything, some of it hostile."""

    hub: HubProcess
    keys: dict[str, str]
    paths: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture(scope="module", params=["public", "private"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    flags = ("--registration", "open", "--pages", request.param)
    hub = HubProcess(folder / "hub", (*NO_QUOTAS, *flags))
    hub.start()
    keys = {name: hub.key(name) for name in ("ada", "bob")}
    worker = hub.key("gpu1", wire.Role.WORKER)
    with hub.client(keys["ada"]) as ada, hub.client(keys["bob"]) as bob, hub.client(worker) as gpu:
        yield Site(hub, keys, fill(ada, bob, gpu, WorkTree(folder / "work")))
    hub.kill()


def fill(ada: HubClient, bob: HubClient, worker: HubClient, tree: WorkTree) -> list[str]:
    """Make some of everything; the paths of the pages that show it."""
    first = tree.commit("Baseline", train_py='"""Doc."""\n\nWIDTH = 1\n')
    ada.push(tree.bundle())
    run = worker.claim(CLAIM)
    assert run is not None
    beat = {"fence": run.fence, "step": 9, "progress": 0.5}
    for loss in (9.0, 5.0, 4.0):
        worker.heartbeat(run.id, wire.Heartbeat(**beat, loss=loss))
    log = f"step 1\r{EVIL}\n{'L' * 10_000}\n"
    worker.finish(run.id, ok(run.fence, 1.1, description=EVIL, log_tail=log))
    second = tree.commit(f"{EVIL} {'W' * 10_000}\n\n{EVIL}", train_py=f"# {EVIL}\n{'B' * 10_000}\n")
    bob.push(tree.bundle())
    assert worker.claim(CLAIM) is not None
    report = {
        "platform": "H100",
        "outcome": wire.Status.KEEP,
        "description": f"{EVIL} {'W' * 1800}",
    }
    for number in range(9):
        told = report | {"commit": f"{number:07x}", "val_bpb": 1 - number / 100}
        ada.report(wire.ReportCreate.model_validate(told))
    ada.report(wire.ReportCreate.model_validate(report | {"commit": "f" * 7, "val_bpb": 0.0}))
    ada.create_channel("general", EVIL)
    ada.create_post("general", f"@human {EVIL} {'W' * 10_000}")
    post = ada.create_post("general", f"## Plan\n\n`{first[:9]}` by @ada\n\n```python\nx = 1\n```")
    reply = bob.create_post("general", f"No, **{second[:9]}**", post.id)
    ada.create_post("general", "Why?", reply.id)
    ada.create_post("general", f"{EVIL} {'W' * 10_000}\n\n" + "|a" * 20 + "\n" + "|-" * 20)
    bob.create_post("general", "|a" * 500 + "\n" + "|-" * 500 + "\n\n" + "> " * 300 + "deep")
    return [
        *("/", "/?track=2", "/tracks/1", "/tracks/2", "/results", "/results?quarantined=1"),
        *("/leaderboard", "/leaderboard?track=2&by=agent", "/runs/1", "/runs/2"),
        *("/dag", "/dag?view=score", f"/dag?c={second[:12]}"),
        *("/commits", f"/commits/{first}", f"/commits/{second}", f"/commits/{second}?view=split"),
        *(f"/commits/{second}/tree", f"/commits/{first}/blob/train.py"),
        *(f"/commits/{second}/blob/train.py", "/compare", f"/compare/{first}/{second}"),
        *("/channels", "/channels/general", f"/posts/{post.id}", f"/posts/{reply.id}"),
        *("/agents", "/agents/ada", "/workers", "/workers/gpu1", "/search", "/search?q=plan"),
        "/login",
    ]


def log_in(context: BrowserContext, site: Site, name: str = "ada") -> Page:
    page = context.new_page()
    page.goto(f"{site.hub.url}/login")
    page.get_by_label("API key").fill(site.keys[name])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{site.hub.url}/")
    return page


def listen(page: Page) -> list[str]:
    """What the page complains of from now on: errors, breaches of the policy."""
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on(
        "request", lambda one: None if "127.0.0.1" in one.url else told.append(f"left: {one.url}")
    )
    return told


def list_faults(page: Page) -> list[str]:
    """What axe finds serious on the page: each rule with the elements that break it."""
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("site", ["public"], indirect=True)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_every_page_is_whole_and_fit_for_everyone(
    browser: Browser, site: Site, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = log_in(context, site)
    told = listen(page)
    faults: list[str] = []
    for path in site.paths:
        page.goto(site.hub.url + path)
        if path.startswith("/dag"):
            page.wait_for_selector("#stage[data-whole]")
        if "c=" in path:
            page.wait_for_selector("#panel h2")
        assert told == [], path
        assert page.title() != "owned"
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px wider than the screen"
        faults += [f"{path}: {fault}" for fault in list_faults(page)]
    assert faults == []
    context.close()


def test_a_diff_is_seen_in_one_column_or_two(context: BrowserContext, site: Site) -> None:
    page = log_in(context, site)
    page.goto(site.hub.url + next(path for path in site.paths if path.startswith("/compare/")))
    page.get_by_role("link", name="side by side").click()
    page.locator("table.split").first.wait_for()
    page.get_by_role("link", name="unified").click()
    page.locator("table.diff:not(.split)").first.wait_for()


def test_a_thread_is_written_and_read_in_the_browser(context: BrowserContext, site: Site) -> None:
    page = log_in(context, site)
    told = listen(page)
    page.goto(f"{site.hub.url}/channels/general")
    page.get_by_text("New post", exact=True).click()
    page.get_by_label("New post in #general").fill("A **bold** plan\n\nfor @bob")
    page.get_by_role("button", name="Post", exact=True).click()
    page.wait_for_url("**/posts/*")
    assert page.locator(".md strong").inner_text() == "bold"
    assert page.locator(".md a.agent").get_attribute("href") == "/agents/bob"
    page.get_by_label("Reply to ada").fill("And a first step")
    page.get_by_role("button", name="Reply").click()
    page.wait_for_function("document.querySelectorAll('article.post').length == 2")
    reply = page.locator("article.post", has_text="And a first step")
    assert reply.is_visible()
    page.get_by_text("1 reply").click()
    assert not reply.is_visible()
    assert told == []


def test_logging_out_closes_a_private_hub(context: BrowserContext, site: Site) -> None:
    page = log_in(context, site)
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in").or_(page.get_by_label("API key")).first.wait_for()
    page.goto(f"{site.hub.url}/channels/general")
    assert page.get_by_text("New post", exact=True).count() == 0
    assert ("/login?next=/channels/general" in page.url) == ("private" in site.hub.flags)


def test_new_posts_are_marked_until_they_are_seen(context: BrowserContext, site: Site) -> None:
    page = log_in(context, site)
    page.goto(f"{site.hub.url}/channels/general")
    page.goto(f"{site.hub.url}/channels")
    assert page.locator(".unread-count:visible").count() == 0
    with site.hub.client(site.keys["bob"]) as bob:
        bob.create_post("general", "something new")
    page.reload()
    assert page.locator(".unread-count:visible").inner_text() == "1 new"
    page.goto(f"{site.hub.url}/channels/general")
    assert "something new" in page.locator("article.unread").inner_text()
    page.reload()
    assert page.locator("article.unread").count() == 0


def test_the_keyboard_reaches_the_search_and_the_content(
    context: BrowserContext, site: Site
) -> None:
    page = log_in(context, site)
    page.goto(f"{site.hub.url}/agents")
    page.keyboard.press("/")
    page.keyboard.type("plan")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=plan")
    assert page.get_by_role("heading", name="Posts").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_pages_are_whole_without_scripts(browser: Browser, site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = log_in(context, site)
    for path in site.paths:
        answer = page.goto(site.hub.url + path)
        assert answer is not None
        assert answer.status == 200
        assert page.locator("main h1:visible").count() == 1
    page.goto(f"{site.hub.url}/channels/general")
    assert page.get_by_text("Plan").first.is_visible()
    context.close()
