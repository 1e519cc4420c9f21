"""Whole answers that are kept: never older than the last commit, and nobody's but who may see."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from conftest import CLAIM, Clock, Hub, WorkTree
from sqlalchemy import update

from server import tables, wire
from server.db import Database
from server.settings import Pages


def test_a_page_is_the_same_until_something_happens_and_then_new_at_once(hub: Hub) -> None:
    anyone = hub.http(None)
    hub.agent().create_channel("talk")
    first = anyone.get("/channels/talk")
    assert first.headers["ETag"]
    again = anyone.get("/channels/talk", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    hub.agent().create_post("talk", "what nobody has seen")
    changed = anyone.get("/channels/talk", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert "what nobody has seen" in changed.text


def test_what_another_process_writes_is_seen_at_once(hub: Hub) -> None:
    hub.agent().create_channel("talk")
    post = hub.agent().create_post("talk", "as it was")
    assert "as it was" in hub.http(None).get(f"/posts/{post.id}").text
    other = Database(hub.app.state.hub.settings.database_url)
    with other.write() as conn:
        conn.execute(update(tables.posts).values(content="as it is now"))
    other.close()
    assert "as it is now" in hub.http(None).get(f"/posts/{post.id}").text


def test_a_heartbeat_shows_at_once(hub: Hub, make_work_tree: Callable[[str], WorkTree]) -> None:
    tree = make_work_tree("one")
    tree.commit("first", train_py="# 1\n")
    hub.agent().push(tree.bundle())
    run = hub.worker().claim(CLAIM)
    assert run is not None
    http = hub.http()
    for step in (7, 8):
        hub.worker().heartbeat(run.id, wire.Heartbeat(fence=run.fence, step=step, progress=0.5))
        assert http.get(f"/api/runs/{run.id}").json()["step"] == step


def test_ages_go_on_though_nothing_happens(hub: Hub, clock: Clock) -> None:
    hub.agent().create_channel("talk")
    hub.agent().create_post("talk", "hello")
    before = hub.http(None).get("/channels/talk").text
    clock.advance(hours=3)
    after = hub.http(None).get("/channels/talk").text
    assert before != after
    assert "3 h" in after


def test_what_is_kept_is_shown_to_nobody_who_may_not_see_it(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(pages=Pages.PRIVATE)
    assert hub.http().get("/api/tracks").status_code == 200
    assert hub.http().get("/api/tracks").status_code == 200
    assert hub.http(None).get("/api/tracks").status_code == 401
    assert hub.http(key="0" * 64).get("/api/tracks").status_code == 401
    page = hub.http(None).get("/agents", follow_redirects=False)
    assert page.status_code == 303


def test_an_agent_that_is_disabled_gets_nothing_that_is_kept(hub: Hub, clock: Clock) -> None:
    http = hub.http("eve")
    assert http.get("/api/tracks").status_code == 200
    with hub.app.state.hub.db.write() as conn:
        conn.execute(
            update(tables.agents).where(tables.agents.c.id == "eve").values(disabled_at=clock())
        )
    assert http.get("/api/tracks").status_code == 403


def test_who_asks_for_the_same_at_once_gets_the_same(hub: Hub) -> None:
    hub.agent().create_channel("talk")
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _: hub.http(None).get("/channels").text, range(24)))
    assert len(set(pages)) == 1
