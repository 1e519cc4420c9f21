"""The human's pages: whole without scripts, and nothing an agent wrote runs in them."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from conftest import CLAIM, Clock, Hub, WorkTree, ok
from fastapi.testclient import TestClient

from server import wire
from server.pages.graph import draw_graph
from server.pages.text import clean

GPU = CLAIM.model_copy(update={"platform": "H100", "budget_seconds": 300})
VOID = {"meta", "link", "img", "br", "hr", "input"}


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

    @property
    def diff(self) -> list[tuple[str, ...]]:
        """Kind, number, sign and text of the lines of a diff in one column."""
        row = re.compile(
            r'<tr class="(\w+)">.*?data-n="(\d+)".*?'
            r'<td class="sign">(.?)</td><td class="src">(.*?)</td></tr>'
        )
        found = (row.match(line) for line in self.html.split("\n"))
        return [
            (*one.groups()[:3], unescape(re.sub("<[^>]*>", "", one[4]))) for one in found if one
        ]

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]

    def count(self, tag: str, **attrs: str) -> int:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attrs.items()}
        return sum(t == tag and wanted.items() <= a.items() for t, a in self.elements)

    def sources(self, tag: str) -> list[str]:
        """Where elements come from; "" for one that is written in the page."""
        return [attrs.get("src") or "" for t, attrs in self.elements if t == tag]

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


def modules(page: Page) -> list[str]:
    """The hub's own scripts; whatever else is a script is none of these."""
    scripts = [attrs.get("src") or "" for tag, attrs in page.elements if tag == "script"]
    return [src for src in scripts if re.fullmatch(r"/static/[0-9a-f]{12}/[a-z-]+\.js", src)]


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


def is_page(path: str) -> bool:
    """Else it is a file, a picture, a piece that a script fetches, or depends on the way to it."""
    others = ("/static/", "/progress.", "/dag/", "/login")
    return not path.startswith(others) and ".json" not in path


def walk(http: TestClient) -> dict[str, Page]:
    """Every page that can be reached from the overview."""
    seen: dict[str, Page] = {}
    ahead = {"/"}
    while ahead:
        path = ahead.pop()
        seen[path] = Page(http, path)
        ahead |= {page for page in local_pages(seen[path]) if is_page(page)}
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
    assert '<span class="badge score-baseline">baseline</span>' in board
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
    # The wide drawing and the one for phones.
    assert page.count("circle", class_="keep") == 2 * 3
    assert "1 worse than the first not shown" in page.text
    discards = [a["d"] for t, a in page.elements if a.get("class") == "discards"]
    assert [str(path).count("M") for path in discards] == [1, 1]


def test_two_tracks_get_two_tabs(hub: Hub, http: TestClient, work_tree: WorkTree) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    train(hub, 0.99, GPU)
    for track, own, other in (("1", "1.250000", "0.990000"), ("2", "0.990000", "1.250000")):
        page = Page(http, f"/?track={track}")
        board = page.html.split('<ol class="board">')[1].partition("</ol>")[0]
        assert own in board
        assert other not in board
        assert page.count("a", href=f"/?track={track}", aria_current="page") == 1


def test_a_run_in_flight_shows_how_far_it_is_and_when_its_lease_ends(
    busy: Hub, http: TestClient, clock: Clock
) -> None:
    page = Page(http, "/")
    # Of the run, and of the worker that has it.
    assert page.count("progress", value="40.0") == 2
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
    assert re.search(f'<a class="hash" href="/commits/{tip}"[^>]*>{tip[:9]}</a>', page.html)
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
    assert kinds == {
        *("", "commits", "compare", "channels", "posts", "agents", "workers", "runs", "tracks"),
        *("search", "dag", "results", "leaderboard"),
    }
    assert "step 1 step 2" in pages["/runs/1"].words
    assert "peak_vram_mb 1,234.5" in pages["/runs/1"].words
    [tip] = [c.hash for c in busy.agent().commits() if c.message == "Wider MLP"]
    commit = pages[f"/commits/{tip}"]
    assert ("add", "1", "+", "WIDTH = 2") in commit.diff
    assert ("del", "1", "\N{MINUS SIGN}", "# Baseline") in commit.diff


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
    seen = page.text
    for _ in range(2):
        [older] = [link for link in page.links if "before=" in link]
        page = Page(hub.http(None), older)
        seen += page.text
    assert all(seen.count(f"number {number}.") == 1 for number in range(60))


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
    assert page.count("script") == len(modules(page))


def test_packaged_files_are_served_and_kept(http: TestClient) -> None:
    packaged = [link for link in Page(http, "/").links if link.startswith("/static/")]
    kinds = {link.partition("?")[0].rpartition(".")[2] for link in packaged}
    assert kinds == {"css", "svg", "js"}
    for link in packaged:
        assert "immutable" in http.get(link).headers["Cache-Control"]
    assert http.get("/static/keys.js").headers["Content-Type"].startswith("text/javascript")
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
        assert page.count("script") == len(modules(page))
        assert page.count("b") == page.count("iframe") == 0
        assert {source.partition("?")[0] for source in page.sources("img")} == {"/static/icon.svg"}
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.html)
    assert "<script>alert(1)</script>\"'><img src=x" in pages["/"].text
    assert "red [U+202E]gnp.exe" in pages["/"].text
    assert "<script>alert(1)" in pages["/runs/1"].text
    assert "</dd><script>x</script>" in pages["/runs/1"].text


def test_hostile_text_in_a_diff_stays_in_its_line(hostile: Hub, http: TestClient) -> None:
    page = Page(http, f"/commits/{hostile.agent().commits()[0].hash}")
    texts = [text for *_, text in page.diff]
    assert any(text.startswith("<script>alert(1)</script>") for text in texts)
    assert ("add", "3", "+", "a") not in page.diff
    assert "a[U+000D]b" in texts


def test_no_page_needs_what_its_policy_forbids(hostile: Hub, busy: Hub, http: TestClient) -> None:
    pages = [*walk(http).values(), Page(http, "/runs/0", 404)]
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        # Forms would hide where they come from under `no-referrer`.
        assert page.headers["Referrer-Policy"] == "same-origin"
        names = {name for _, attrs in page.elements for name in attrs}
        assert not {name for name in names if name == "style" or name.startswith("on")}
        assert page.count("style") == 0
        assert page.count("script") == len(modules(page)) > 0
        assert all(action.startswith("/") for action in page.values("action"))
        assert all(re.match("/(?!/)|#", link) for link in page.links)


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


# The board --------------------------------------------------------------------------------------


@pytest.fixture
def general(make_hub, clock: Clock) -> Hub:  # type: ignore[no-untyped-def]
    """A hub without quotas that has a channel."""
    hub = make_hub(max_posts_per_hour=0)
    hub.agent().create_channel("general", "Talk")
    return hub


def shown(hub: Hub, content: str) -> Page:
    """The page of one post."""
    post = hub.agent().create_post("general", content)
    return Page(hub.http(None), f"/posts/{post.id}")


def body(page: Page) -> str:
    """The HTML of the first post on a page."""
    return page.html.partition('<div class="md" dir="auto">')[2].partition("</article>")[0]


def test_channels_are_listed_with_their_numbers_the_busiest_first(busy: Hub) -> None:
    busy.agent().create_channel("quiet", "Nothing yet")
    page = Page(busy.http(None), "/channels")
    assert "#general Talk 3 posts 2 threads last by bob now" in page.words
    assert page.words.index("#general") < page.words.index("#results") < page.words.index("#quiet")


def test_a_thread_nests_replies_and_stands_where_its_newest_post_is(general: Hub) -> None:
    ada = general.agent()
    first = ada.create_post("general", "first idea")
    ada.create_post("general", "second idea")
    reply = general.agent("bob").create_post("general", "I doubt it", first.id)
    ada.create_post("general", "why?", reply.id)
    ada.create_post("general", "or not", first.id)
    page = Page(general.http(None), "/channels/general")
    order = [page.text.index(t) for t in ("first idea", "I doubt it", "why?", "or not", "second")]
    assert order == sorted(order)
    assert "3 replies" in page.words
    assert page.count("details", class_="replies") == 2


def test_long_threads_show_their_latest_replies_and_lead_to_the_rest(general: Hub) -> None:
    ada = general.agent()
    first = ada.create_post("general", "idea")
    for number in range(20):
        ada.create_post("general", f"reply number {number}.", first.id)
    page = Page(general.http(None), "/channels/general")
    assert "number 19." in page.text
    assert "number 13." not in page.text
    assert "the whole thread: 14 earlier replies" in page.words
    assert f"/posts/{first.id}" in page.links
    assert "number 0." in Page(general.http(None), f"/posts/{first.id}").text


def test_a_chain_of_replies_deeper_than_any_page_is_read_page_by_page(general: Hub) -> None:
    ada = general.agent()
    last = None
    for number in range(450):
        last = ada.create_post("general", f"level {number}.", None if last is None else last.id).id
        last = general.agent().post(last)
    path, seen = "/posts/1", ""
    for _ in range(3):
        page = Page(general.http(None), path)
        seen += page.text
        later = [link for link in page.links if "after=" in link]
        path = max(later, key=lambda link: int(link.partition("=")[2]))
    assert all(f"level {number}." in seen for number in range(450))
    end = Page(general.http(None), "/posts/450")
    assert 'class="post this" id="post-450"' in end.html
    assert len(end.html) < 400_000


def test_every_post_has_a_page_that_marks_it_in_its_thread(busy: Hub, http: TestClient) -> None:
    post, reply, *_ = reversed(busy.agent().posts("general"))
    page = Page(http, f"/posts/{reply.id}")
    assert f'class="post this" id="post-{reply.id}"' in page.html
    assert f'id="post-{post.id}"' in page.html
    assert "line line" in page.words


def test_markdown_is_shown(general: Hub) -> None:
    text = """# Title

Some **bold**, *slanted*, ~~gone~~ and `code`.

- one
- two

| a | b |
|---|--:|
| 1 | 2 |

> said

```python
def f(x: int) -> str:
    return "s"  # why
```
"""
    html = body(shown(general, text))
    for piece in (
        *('<p class="heading h1">Title</p>', "<strong>bold</strong>", "<em>slanted</em>"),
        *("<s>gone</s>", "<code>code</code>", "<li>one</li>", '<td class="right">2</td>'),
        *("<blockquote>", '<span class="k">def</span>', '<span class="c"># why</span>'),
    ):
        assert piece in html, piece


def test_what_a_post_names_is_a_link_if_it_is_there(hub: Hub, work_tree: WorkTree) -> None:
    hash = push(hub, work_tree, "Baseline")
    train(hub, 1.0)
    hub.agent("c-3.po").create_channel("general")
    text = (
        f"@ada, @c-3.po. @nobody #general #results #none #1 #99 run 1. run 7 `{hash[:8]}` "
        f"{hash[:12]} {hash[:6]} 1234567890 x@ada https://example.org/a?b=1&c=2, "
        f"[{hash[:9]}](/commits) _#general_"
    )
    page = shown(hub, text)
    html = body(page)
    assert set(re.findall('href="([^"]*)"', html)) == {
        *("/agents/ada", "/agents/c-3.po", "/channels/general", "/channels/results", "/posts/1"),
        *("/runs/1", f"/commits/{hash}", "https://example.org/a?b=1&amp;c=2", "/commits"),
    }
    assert html.count(f"/commits/{hash}") == 2
    assert "@nobody" in page.text
    assert ">@c-3.po</a>. @nobody" in html


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "event": "<img src=x onerror=alert(1)><svg onload=alert(1)><a href=x onclick=alert(1)>y</a>",
    "javascript": "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) <javascript:alert(1)>",
    "entity": "[a](&#106;avascript:alert(1)) [b](java\nscript:alert(1)) [c](data:text/html,x)",
    "vbscript": "[a](vbscript:x) [b](file:///etc/passwd) [c](\x01javascript:alert(1))",
    "image": "![a](https://evil.example/x.png) ![b](javascript:alert(1)) ![c](data:image/png;x)",
    "reference": '[a]: javascript:alert(1) "t"\n[a] ![a]',
    "title": '[a](/x "\\"onmouseover=alert(1) x=\\"")',
    "fence": '```"><script>alert(1)</script>\nx\n```\n~~~ python" onload="x\ny\n~~~',
    "comment": "<!-- x --> <![CDATA[ x ]]> <?php x ?> <!doctype x>",
    "frame": "<iframe src=//evil.example></iframe><style>*{display:none}</style><base href=//x>",
    "style": '<p style="position:fixed;inset:0">x</p><form action=//x><input name=key></form>',
    "null": "\x01\x02\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07 \x9b31m",
    "bidi": "\u202egnp.exe \u2066x\u2069 \u200fy",
    "word": "W" * 10_000 + " " + "`" + "c" * 10_000 + "`",
    "emoji": "\N{ROCKET}" * 3_000 + "e" + "\u0301" * 500,
    "table": "|a" * 1000 + "\n" + "|-" * 1000 + "\n" + "|b" * 1000,
    "tall": "|a|b|\n|-|-|\n" + "|c|d|\n" * 4_000,
    "deep": "> " * 500 + "deep " + "- " * 500 + "deep",
    "stars": "*" * 10_000 + "_" * 10_000 + "[" * 10_000,
    "lines": "a\n\n" * 10_000,
    "marks": "@" * 5_000 + "#" * 5_000 + "@ada" * 1_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_posts_are_shown_as_text(general: Hub, name: str) -> None:
    page = shown(general, HOSTILE[name])
    html = body(page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e\u2066-\u2069]", html)
    tags = set(re.findall(r"<([a-z0-9]+)", html))
    assert tags <= {
        *("p", "br", "a", "em", "strong", "s", "code", "pre", "span", "blockquote", "ul", "ol"),
        *("li", "table", "thead", "tbody", "tr", "th", "td", "div", "hr"),
    }
    names = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    for link in re.findall('href="([^"]*)"', html):
        assert re.match("https?://|/(?!/)", unescape(link)), link


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("script", "<script>alert(1)</script>"),
        ("javascript", "[a](javascript:alert(1))"),
        ("frame", "<iframe src=//evil.example></iframe>"),
        ("bidi", "[U+202E]gnp.exe [U+2066]x[U+2069] [U+200F]y"),
        ("null", "[U+0001][U+0002]red link"),
        ("table", "|a|a|a"),
        ("deep", "deep - - - "),
        ("comment", "<!-- x --> <![CDATA[ x ]]> <?php x ?>"),
    ],
)
def test_nothing_of_a_hostile_post_is_swallowed(general: Hub, name: str, text: str) -> None:
    assert text in shown(general, HOSTILE[name]).text


def test_a_picture_is_a_link_and_nothing_is_fetched_from_elsewhere(general: Hub) -> None:
    page = shown(general, "![a chart](https://evil.example/x.png)")
    assert '<a class="outside" href="https://evil.example/x.png"' in page.html
    assert [source for source in page.sources("img") if not source.startswith("/static/")] == []
    assert "img-src 'self' data:" in page.headers["Content-Security-Policy"]


# Files, diffs, comparisons ----------------------------------------------------------------------


@pytest.fixture
def two(hub: Hub, work_tree: WorkTree) -> tuple[str, str]:
    """Two commits that differ in several ways."""
    (work_tree.path / "src" / "sub dir").mkdir(parents=True)
    (work_tree.path / "src" / "sub dir" / "a&b.py").write_text("x = 1\n")
    (work_tree.path / "data.bin").write_bytes(b"\0\1" * 50)
    (work_tree.path / "link").symlink_to("train.py")
    old = "".join(f"line_{n} = {n}\n" for n in range(1, 21))
    first = work_tree.commit("First", train_py=f'"""Doc\n{old}"""\n', gone_py="bye\n")
    (work_tree.path / "gone.py").unlink()
    (work_tree.path / "data.bin").write_bytes(b"\0\2" * 50)
    new = old.replace("line_9 = 9\n", "line_9 = 90\nline_9b = 91\n")
    second = work_tree.commit("Second", train_py=f'"""Doc\n{new}"""\n', new_py="x = 1\n")
    hub.agent().push(work_tree.bundle())
    return first, second


def test_trees_and_files_can_be_walked(two: tuple[str, str], http: TestClient) -> None:
    _, hash = two
    tree = Page(http, f"/commits/{hash}/tree")
    assert "src / data.bin 100 B link symlink 8 B" in tree.words
    folder = Page(http, f"/commits/{hash}/tree/src/sub%20dir")
    [file] = [link for link in folder.links if "/blob/" in link]
    page = Page(http, file)
    assert "a&b.py" in page.text
    assert '<tr id="L1">' in page.html
    assert '<span class="m">1</span>' in page.html
    for target in folder.links - {link for link in folder.links if link.startswith("#")}:
        assert http.get(target).status_code == 200, target
    assert "train.py" in Page(http, f"/commits/{hash}/blob/link").text
    assert "Not text" in Page(http, f"/commits/{hash}/blob/data.bin").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tree/none", 404),
        ("blob/src", 404),
        ("tree/train.py", 404),
        ("blob/a/%2e%2e/train.py", 400),
    ],
)
def test_paths_that_lead_nowhere(
    two: tuple[str, str], http: TestClient, path: str, status: int
) -> None:
    Page(http, f"/commits/{two[1]}/{path}", status)


def test_a_file_with_any_name_has_a_page(hub: Hub, http: TestClient, work_tree: WorkTree) -> None:
    names = [b"<b>.py", b"a\nb", b"\xff\xfe.py", "\u202egnp.py".encode(), b"100%.py", b"#?.py"]
    for name in names:
        path = work_tree.path.joinpath(name.decode(errors="surrogateescape"))
        path.write_text("inside = 1\n")
    hash = push(hub, work_tree, "Names")
    tree = Page(http, f"/commits/{hash}/tree")
    files = [link for link in tree.links if "/blob/" in link]
    assert len(files) == len(names) + 1
    assert sum("inside = 1" in Page(http, file).words for file in files) == len(names)
    assert len(Page(http, f"/commits/{hash}").html) > 0


def test_a_diff_in_two_columns_pairs_what_changed(two: tuple[str, str], http: TestClient) -> None:
    _, hash = two
    page = Page(http, f"/compare/{two[0]}/{hash}?view=split")
    row = next(line for line in page.html.split("\n") if "line_9 = 9<" in line)
    assert 'class="no del" data-n="10"' in row
    assert 'class="no add" data-n="10"' in row
    assert "line_9 = 90" in row
    assert f"/compare/{two[0]}/{hash}?view=unified" in page.links


def test_lines_of_a_hunk_have_the_colours_of_the_whole_file(
    two: tuple[str, str], http: TestClient
) -> None:
    page = Page(http, f"/compare/{two[0]}/{two[1]}")
    # The hunk begins and ends within a docstring.
    assert '<td class="src"><span class="c">line_9 = 90</span></td>' in page.html


def test_strings_that_go_on_are_coloured_to_their_end(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    lines = [
        "a = '''one",  # 1
        "two 2 # no comment",
        "three''' + \"\"\"",  # 3
        'four""" + 5',
        "b = 6  # it's no '''string",  # 5
        "c = \"no ''' either\"",
        "d = 'on \\",  # 7
        "and 8'",
        'e = 9 + """',  # 9
        "to the end",
    ]
    hash = push(hub, work_tree, "Strings", strings_py="\n".join(lines))
    page = Page(http, f"/commits/{hash}/blob/strings.py")
    shown = re.findall(r'<td class="src">(.*?)</td>', page.html)
    assert shown[1] == '<span class="s">two 2 # no comment</span>'
    assert shown[2].endswith('<span class="s">&#34;&#34;&#34;</span>')
    assert shown[3] == '<span class="s">four&#34;&#34;&#34;</span> + <span class="m">5</span>'
    assert '<span class="m">6</span>  <span class="c"># it' in shown[4]
    assert shown[5].startswith('c = <span class="s">')
    assert shown[7] == '<span class="s">and 8&#39;</span>'
    assert shown[9] == '<span class="s">to the end</span>'


def test_new_gone_and_binary_files_are_told(two: tuple[str, str], http: TestClient) -> None:
    words = Page(http, f"/compare/{two[0]}/{two[1]}").words
    assert "4 files" in words
    assert "data.bin binary +0" in words
    assert "gone.py deleted +0" in words
    assert "new.py new +1" in words


def test_one_file_of_a_diff_can_be_seen_alone(two: tuple[str, str], http: TestClient) -> None:
    page = Page(http, f"/compare/{two[0]}/{two[1]}?file=new.py&view=split")
    assert page.count("details", class_="file") == 1
    assert f"/compare/{two[0]}/{two[1]}?view=unified&file=new.py" in page.links


def test_long_diffs_show_what_fits_and_lead_to_the_rest(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    first = push(hub, work_tree, "First", a_py="a\n", b_py="b\n")
    second = push(
        hub, work_tree, "Second", a_py="a = 1\n" * 3_000, b_py="b = 1\n" * 1_500, z_py="z = 1\n"
    )
    page = Page(http, f"/commits/{second}")
    assert "+3,000" in page.text
    assert len(page.diff) == 2_000 - 2
    assert "this file alone" in page.words
    [a] = [link for link in page.links if "file=a.py" in link and "view" not in link]
    assert len(Page(http, a).diff) == 3_001
    assert http.get(f"/compare/{first}/{second}").status_code == 200


def test_two_commits_are_picked_by_a_form(two: tuple[str, str], http: TestClient) -> None:
    page = Page(http, "/compare")
    assert page.count("form", action="/compare") == 1
    answer = http.get(f"/compare?a={two[0][:8]}&b={two[1][:8].upper()}")
    assert answer.url.path == f"/compare/{two[0][:8]}/{two[1][:8]}"
    assert "First" in answer.text
    Page(http, "/compare?a=zzzz&b=../..", 404)
    assert Page(http, f"/compare/{two[0]}/{two[0]}").text.count("No file changed") == 1


def test_a_commit_shows_the_posts_that_mention_it(busy: Hub, http: TestClient) -> None:
    [tip] = [c.hash for c in busy.agent().commits() if c.message == "Wider MLP"]
    page = Page(http, f"/commits/{tip}")
    mentions = page.html.partition("Mentioned in")[2]
    assert "not 0123456789." in mentions


def test_a_merge_can_be_compared_with_each_parent(busy: Hub, http: TestClient) -> None:
    [merge] = [c for c in busy.agent().commits() if c.message == "Merge both"]
    assert f"/compare/{merge.parents[1]}/{merge.hash}" in Page(http, f"/commits/{merge.hash}").links


# People and search ------------------------------------------------------------------------------


def test_agents_and_workers_are_listed(busy: Hub, http: TestClient, clock: Clock) -> None:
    assert "ada 5 2 now" in Page(http, "/agents").words
    page = Page(http, "/workers")
    assert "gpu2 ● running" in page.words
    assert "gpu1 ○ idle" in page.words
    assert page.count("progress", value="40.0") == 1
    clock.advance(minutes=4)
    assert "gpu2 ▲ silent" in Page(http, "/workers").words
    clock.advance(minutes=4)
    assert "gpu1 ◌ away" in Page(http, "/workers").words


def test_a_worker_tells_its_machine_and_its_speed(hub: Hub, work_tree: WorkTree) -> None:
    push(hub, work_tree, "Baseline")
    claim = CLAIM.model_copy(update={"device": "NVIDIA <H100>", "vram_mb": 81920})
    run = hub.worker().claim(claim)
    assert run is not None
    hub.worker().heartbeat(run.id, wire.Heartbeat(fence=run.fence, tokens=12_000_000))
    hub.clock.advance(seconds=10)
    page = Page(hub.http(None), "/workers/gpu1")
    assert "NVIDIA <H100> 80 GiB" in page.words
    assert "1,200,000 tokens/s" in page.words
    assert Page(hub.http(None), "/agents/gpu1").words == page.words


def test_everything_is_found_on_one_page(busy: Hub, http: TestClient) -> None:
    page = Page(http, "/search?q=wider")
    assert "Wider MLP" in page.html.partition("Commits")[2]
    assert "0 new" not in page.text
    assert "/agents/ada" in Page(http, "/search?q=ada").links
    assert "/channels/general" in Page(http, "/search?q=%23gene").links
    assert "Nothing has these words" in Page(http, "/search?q=zebra").text
    for query in ("", "%20", "x" * 300, "<script>", "%22", "a%00b"):
        Page(http, f"/search?q={query}")


def test_many_finds_are_read_page_by_page(general: Hub) -> None:
    for number in range(70):
        general.agent().create_post("general", f"same words, number {number}.")
    page = Page(general.http(None), "/search?q=same")
    assert "number 69." in page.text
    seen = ""
    for _ in range(2):
        [more] = [link for link in page.links if "kind=posts" in link]
        page = Page(general.http(None), more)
        seen += page.text
    assert all(seen.count(f"number {number}.") == 1 for number in range(70))


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
