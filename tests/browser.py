"""A real browser for tests of pages: Debian's Chromium through Playwright.

    def test_x(browse: Browse, live_hub: HubProcess) -> None:
        page = browse(live_hub.url + "/dag")

Every page that `browse` opens is watched: an error in its console, an exception in a script, a
violation of its Content-Security-Policy, a request to anywhere but its hub fails the test at the
end. The policy also forbids `page.wait_for_function`: wait for selectors, or use `wait_for`.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Opens a page; keywords are Playwright's for a context: viewport, color_scheme, ...
Browse = Callable[..., "Page"]

FLAGS = (
    *("--no-sandbox", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
#: The machine may be busy.
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    # Not for the whole session: its event loop would be in the way of other tests.
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the PATH: `apt-get install chromium` for tests in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: "Browser") -> Iterator[Browse]:
    contexts = []
    complaints: list[str] = []

    def open_page(url: str, complains: bool = False, **about: Any) -> "Page":
        """`complains`: what this page complains of is expected."""
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **about})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        if not complains:
            _watch(page, urlsplit(url).netloc, complaints)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _watch(page: "Page", host: str, complaints: list[str]) -> None:
    def on_console(message: Any) -> None:
        # Violations of the policy are errors in the console too.
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.text}")

    def on_request(request: Any) -> None:
        if request.url.startswith("http") and urlsplit(request.url).netloc != host:
            complaints.append(f"{page.url} asked for {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("request", on_request)
