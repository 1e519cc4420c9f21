"""The human's pages: public, whole without scripts, and nothing an agent wrote runs in them."""

import re
from html.parser import HTMLParser

import pytest
from conftest import CLAIM, Clock, Hub, WorkTree, ok
from fastapi.testclient import TestClient

from server import wire
from server.pages.graph import draw_graph
from server.pages.text import clean

GPU = CLAIM.model_copy(update={"platform": "H100", "budget_seconds": 300})
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page as a browser would see it: elements with their attributes, links, ids, text."""

    def __init__(self, http: TestClient, path: str, status: int = 200) -> None:
        super().__init__()
        answer = http.get(path)
        assert answer.status_code == status, (path, answer.text[:500])
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        self.headers = answer.headers
        self.html = answer.text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.feed(self.html)
        self.close()
        assert self.open == [], "unbalanced elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]

    def count(self, tag: str, **attrs: str) -> int:
        wanted = {name.rstrip("_"): value for name, value in attrs.items()}
        return sum(t == tag and wanted.items() <= a.items() for t, a in self.elements)

    @property
    def links(self) -> set[str]:
        return set(self.values("href")) | set(self.values("src"))

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def words(self) -> str:
        """The text with one space between words and between elements."""
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture
def http(hub: Hub) -> TestClient:
    """A browser of somebody the hub does not know."""
    return hub.http(None)


def train(hub: Hub, score: float, claim: wire.Claim = CLAIM, **more: object) -> wire.Run:
    """Let a worker train the next commit."""
    worker = hub.worker()
    run = worker.claim(claim)
    assert run is not None
    worker.finish(run.id, ok(run.fence, score, **more))
    return run


def push(hub: Hub, work_tree: WorkTree, message: str, **files: str) -> str:
    hash = work_tree.commit(message, **files)
    hub.agent().push(work_tree.bundle())
    return hash


@pytest.fixture
def busy(hub: Hub, work_tree: WorkTree, clock: Clock) -> Hub:
    """A hub with one of everything."""
    root = push(hub, work_tree, "Baseline")
    train(hub, 1.1, log_tail="step 1\nstep 2\n", metrics={"peak_vram_mb": 1234.5})
    train(hub, 0.99, GPU)
    clock.advance(minutes=3)
    tip = push(hub, work_tree, "Wider MLP", train_py="WIDTH = 2\n")
    work_tree.git("checkout", "--quiet", "-b", "side", root)
    work_tree.commit("Side", other_py="x\n")
    work_tree.git("merge", "--quiet", "--no-ff", "--message", "Merge both", tip)
    hub.agent().push(work_tree.bundle("HEAD"))
    train(hub, 1.05)
    ada = hub.agent()
    ada.create_channel("general", "Talk")
    post = ada.create_post("general", f"Try {tip[:9]}, not 0123456789.")
    ada.create_post("general", "line\n" * 40, post.id)
    hub.agent("bob").create_post("general", "x" * 5000)
    work_tree.commit("Next")
    ada.push(work_tree.bundle("HEAD"))
    run = hub.worker("gpu2").claim(CLAIM)
    assert run is not None
    beat = wire.Heartbeat(fence=run.fence, progress=0.4, step=1200, loss=3.25)
    hub.worker("gpu2").heartbeat(run.id, beat)
    return hub


def local_pages(page: Page) -> set[str]:
    return {link.partition("#")[0] for link in page.links if link.startswith("/")} - {""}


def walk(http: TestClient) -> dict[str, Page]:
    """Every page that can be reached from the overview."""
    seen: dict[str, Page] = {}
    ahead = {"/"}
    while ahead:
        path = ahead.pop()
        seen[path] = Page(http, path)
        ahead |= {link for link in local_pages(seen[path]) if not link.startswith("/static/")}
        ahead -= seen.keys()
    return seen


# What the overview tells ------------------------------------------------------------------------


def test_an_empty_hub_has_a_page(http: TestClient) -> None:
    page = Page(http, "/")
    assert "No commits yet" in page.text
    assert "Nothing is training" in page.text


def test_numbers_and_leaderboard_after_a_push_and_a_measured_run(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    hash = push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    page = Page(http, "/")
    assert "agents 1 workers 1 1 here now commits 1 1 leaf" in page.words
    assert "runs finished 1 posts 1" in page.words
    board = page.html[page.html.index('<ol class="board">') : page.html.index("</ol>")]
    assert "1.250000" in board
    assert f'<a class="hash" href="/commits/{hash}">{hash[:12]}</a>' in board
    assert '<span class="badge source-measured">measured</span>' in board
    assert "ada" in board
    assert "Baseline" in board


def test_the_gain_is_told_since_the_first_score(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    for message, score in (("a", 1.0), ("b", 0.98), ("c", 1.5)):
        push(hub, work_tree, message)
        train(hub, score)
    page = Page(http, "/")
    assert "▼ 0.020000 (2.00 %) since the first score, 1.000000" in page.words


def test_the_plot_has_a_dot_for_each_keep_and_leaves_out_what_is_worse_than_the_first(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    for message, score in (("a", 1.0), ("b", 0.98), ("c", 0.99), ("d", 1.5), ("e", 0.97)):
        push(hub, work_tree, message)
        train(hub, score)
    page = Page(http, "/")
    assert page.count("circle", class_="keep") == 3
    assert "1 worse than the first not shown" in page.text
    [discards] = [a["d"] for t, a in page.elements if a.get("class") == "discards"]
    assert str(discards).count("M") == 1


def test_two_tracks_get_two_boards(hub: Hub, http: TestClient, work_tree: WorkTree) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    train(hub, 0.99, GPU)
    page = Page(http, "/")
    assert page.count("ol", class_="board") == 2
    first, second = page.html.split('<ol class="board">')[1:]
    assert ("1.250000" in first) != ("0.990000" in first.partition("</ol>")[0])
    assert "1.250000" not in second.partition("</ol>")[0]


def test_a_run_in_flight_shows_how_far_it_is_and_when_its_lease_ends(
    busy: Hub, http: TestClient, clock: Clock
) -> None:
    page = Page(http, "/")
    assert page.count("progress", value="40.0") == 1
    assert "step 1,200 loss 3.2500 lease ends in 60 s" in page.words
    clock.advance(seconds=90)
    assert "lease passed 30 s ago" in Page(http, "/").words


def test_merges_show_all_parents(busy: Hub, http: TestClient) -> None:
    [merge] = [c for c in busy.agent().commits() if c.message == "Merge both"]
    html = Page(http, "/").html
    shown = html[html.index("merges ") :].partition("</div>")[0]
    assert re.findall(r"/commits/([0-9a-f]{40})", shown) == merge.parents


def test_posts_link_the_commits_they_mention(busy: Hub, http: TestClient) -> None:
    [tip] = [c.hash for c in busy.agent().commits() if c.message == "Wider MLP"]
    page = Page(http, "/")
    assert f'<a class="hash" href="/commits/{tip}">{tip[:9]}</a>' in page.html
    assert "not 0123456789." in page.text
    assert "↳ reply to ada" in page.text


# Links ------------------------------------------------------------------------------------------


def test_every_link_leads_somewhere_without_a_key(busy: Hub, http: TestClient) -> None:
    for link in Page(http, "/").links:
        assert http.get(link).status_code == 200, link


def test_every_anchor_is_on_the_page_it_points_to(busy: Hub, http: TestClient) -> None:
    pages = walk(http)
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            assert not anchor or anchor in pages[target or path].values("id"), link


def test_pages_of_commit_channel_agent_run_and_track(busy: Hub, http: TestClient) -> None:
    pages = walk(http)
    kinds = {path.split("/")[1].split("?")[0] for path in pages}
    assert kinds == {"", "commits", "channels", "agents", "runs", "tracks"}
    assert "step 1 step 2" in pages["/runs/1"].words
    assert "peak_vram_mb 1,234.5" in pages["/runs/1"].words
    [tip] = [c.hash for c in busy.agent().commits() if c.message == "Wider MLP"]
    commit = pages[f"/commits/{tip}"]
    assert '<span class="add">+WIDTH = 2</span>' in commit.html
    assert '<span class="del">-# Baseline</span>' in commit.html


def test_a_commit_is_found_by_the_start_of_its_hash(busy: Hub, http: TestClient) -> None:
    hash = busy.agent().commits()[0].hash
    assert hash in Page(http, f"/commits/{hash[:8]}").text


def test_a_channel_is_read_page_by_page(make_hub, clock: Clock) -> None:  # type: ignore[no-untyped-def]
    hub = make_hub(max_posts_per_hour=0)
    ada = hub.agent()
    ada.create_channel("general")
    for number in range(60):
        ada.create_post("general", f"post number {number}.")
    page = Page(hub.http(None), "/channels/general")
    assert "number 59." in page.text
    assert "number 9." not in page.text
    [older] = [link for link in page.links if "before=" in link and "#" not in link]
    assert "number 9." in Page(hub.http(None), older).text


@pytest.mark.parametrize(
    "path",
    [
        "/commits/" + "ab" * 20,
        "/commits/abcd",
        "/channels/none",
        "/channels/none?before=x",
        "/agents/nobody",
        "/agents/%3Cscript%3E",
        "/runs/7",
        "/runs/seven",
        "/runs/99999999999999999999",
        "/tracks/7",
        "/static/none.css",
    ],
)
def test_what_is_not_there_is_a_404_in_html(http: TestClient, path: str) -> None:
    page = Page(http, path, 404)
    assert "404" in page.text
    assert page.count("script") == 0


def test_packaged_files_are_served_and_kept(http: TestClient) -> None:
    [style] = [link for link in Page(http, "/").links if ".css" in link]
    answer = http.get(style)
    assert answer.headers["Content-Type"].startswith("text/css")
    assert "immutable" in answer.headers["Cache-Control"]
    assert http.get("/static/hub.css").headers["Cache-Control"] == "no-cache"
    for outside in ("/static/..%2froutes.py", "/static/%2fetc%2fpasswd", "/static/routes.py"):
        assert http.get(outside).status_code == 404


# Hostile text -----------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x1b[31mred\x1b[0m \u202egnp.exe"


@pytest.fixture
def hostile(hub: Hub, work_tree: WorkTree) -> Hub:
    """A hub where everything an agent or worker may write is an attack."""
    name = "A.._-" + "a" * 58
    agent = hub.agent(name)
    work_tree.commit("root", train_py="x\n")
    body = f"{EVIL} {'W' * 10_000}\n\n{EVIL}\n{'V' * 10_000}"
    work_tree.commit(body, train_py=f"{EVIL}\n{'B' * 10_000}\na\rb\n")
    agent.push(work_tree.bundle())
    agent.create_channel("0_-", EVIL)
    agent.create_post("0_-", EVIL)
    agent.create_post("0_-", f"{EVIL} {'W' * 10_000} \x07 \u2066 {'0' * 40}")
    worker = hub.worker()
    run = worker.claim(CLAIM)
    assert run is not None
    metrics = {"<b>": "</dd><script>x</script>"}
    worker.finish(
        run.id,
        ok(run.fence, 1.0, description=EVIL, log_tail=f"{EVIL}\r{EVIL}", metrics=metrics),
    )
    hub.agent().request_runs(run.commit, wire.RunRequest())
    run = worker.claim(CLAIM)
    assert run is not None
    crash = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.CRASH, description=EVIL)
    worker.finish(run.id, crash)
    return hub


def test_hostile_text_is_shown_as_text(hostile: Hub, http: TestClient) -> None:
    pages = walk(http)
    assert len(pages) > 6
    for page in pages.values():
        assert page.count("script") == page.count("b") == 0
        assert {a["src"] for t, a in page.elements if t == "img"} == {page.values("src")[0]}
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.html)
    assert "<script>alert(1)</script>\"'><img src=x" in pages["/"].text
    assert "red [U+202E]gnp.exe" in pages["/"].text
    assert "<script>alert(1)" in pages["/runs/1"].text
    assert "</dd><script>x</script>" in pages["/runs/1"].text


def test_hostile_text_in_a_diff_stays_in_its_line(hostile: Hub, http: TestClient) -> None:
    page = Page(http, f"/commits/{hostile.agent().commits()[0].hash}")
    assert "+&lt;script&gt;alert(1)&lt;/script&gt;" in page.html
    assert '<span class="add">+a[U+000D]b</span>' in page.html


def test_no_page_needs_what_its_policy_forbids(hostile: Hub, busy: Hub, http: TestClient) -> None:
    pages = [*walk(http).values(), Page(http, "/runs/0", 404)]
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        names = {name for _, attrs in page.elements for name in attrs}
        assert not {name for name in names if name == "style" or name.startswith("on")}
        assert page.count("style") == page.count("script") == page.count("form") == 0
        assert all(link.startswith("/") and not link.startswith("//") for link in page.links)


def test_long_posts_are_folded(busy: Hub, http: TestClient) -> None:
    page = Page(http, "/")
    assert page.count("details") == 2
    assert "1,000 more characters" in page.text


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("a\r\nb\tc", "a\nb\tc"),
        ("10%\r20%", "10%\n20%"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x00b\x7fc\x9bd", "a[U+0000]b[U+007F]c[U+009B]d"),
        ("\u202eabc\u202c \u2066x\u2069", "[U+202E]abc[U+202C] [U+2066]x[U+2069]"),
        ("naïve 😀 مرحبا", "naïve 😀 مرحبا"),
    ],
)
def test_controls_are_made_visible(raw: str, seen: str) -> None:
    assert clean(raw) == seen


# The graph --------------------------------------------------------------------------------------


def node(hash: str, *parents: str, children: int = 1) -> wire.Commit:
    return wire.Commit(
        hash=hash,
        parent_hash=next(iter(parents), ""),
        agent_id="ada",
        message=hash,
        created_at=Clock().moment,
        parents=list(parents),
        child_count=children,
    )


def test_a_straight_line_of_commits_needs_one_lane() -> None:
    graph = draw_graph([node("c", "b", children=0), node("b", "a"), node("a")])
    lines = [row.lines for row in graph.rows]
    assert lines == ["M7.0 50V100", "M7.0 0V50 M7.0 50V100", "M7.0 0V50"]
    assert graph.width == 14


def test_leaves_of_one_parent_share_its_lane() -> None:
    leaves = [node(f"leaf{n}", "root", children=0) for n in range(50)]
    assert draw_graph([*leaves, node("root", children=50)]).width == 28


def test_a_merge_leads_to_every_parent() -> None:
    graph = draw_graph([node("m", "a", "b", children=0), node("b", "r"), node("a", "r"), node("r")])
    merge, side, main, root = graph.rows
    assert merge.lines == "M7.0 50V100 M7.0 50C7.0 80 21.0 60 21.0 100"
    assert (side.x, main.x, root.x) == (21, 7, 21)


def test_lines_from_an_earlier_page_come_in_at_the_top() -> None:
    assert draw_graph([node("a", "r", children=2)]).rows[0].lines == "M7.0 0V50 M7.0 50V100"


def test_an_unknown_path_outside_the_api_is_an_html_404(hub: Hub) -> None:
    answer = hub.http(None).get("/foo")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
