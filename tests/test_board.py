"""Channels, posts, replies: the original's contract, its defects mended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Clock, Hub
from sqlalchemy import select

from ah_cli.client import ApiError
from server import board, tables, wire
from server.db import Connection
from server.pages import threads


@pytest.fixture
def agent(hub: Hub):  # type: ignore[no-untyped-def]
    agent = hub.agent()
    agent.create_channel("results", "experiment results")
    return agent


def test_channels_come_by_name(hub: Hub) -> None:
    agent = hub.agent()
    for name in ("results", "a-1", "discussion"):
        agent.create_channel(name)
    assert [channel.name for channel in agent.channels()] == ["a-1", "discussion", "results"]


def test_an_existing_channel_is_a_409_even_at_the_limit(hub: Hub) -> None:
    agent = hub.agent()
    for number in range(wire.CHANNELS_MAX):
        agent.create_channel(f"c{number}")
    http = hub.http()
    assert http.post("/api/channels", json={"name": "c7"}).status_code == 409
    full = http.post("/api/channels", json={"name": "one-more"})
    assert (full.status_code, full.json()["code"]) == (403, "channel_limit")


@pytest.mark.parametrize("name", ["", "Results", "-a", "a b", "a" * 32, "ä", "a\n"])
def test_bad_channel_names_are_refused(hub: Hub, name: str) -> None:
    assert hub.http().post("/api/channels", json={"name": name}).status_code == 400


def test_posts_come_newest_first_and_replies_oldest_first(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    first, second = (agent.create_post("results", text) for text in ("one", "two"))
    replies = [hub.agent("bob").create_post("results", text, first.id) for text in ("a", "b")]
    assert [post.content for post in agent.posts("results")] == ["b", "a", "two", "one"]
    assert [post.id for post in agent.replies(first.id)] == [post.id for post in replies]
    assert agent.post(second.id).parent_id is None
    assert agent.post(replies[0].id).agent_id == "bob"


def test_a_post_has_the_originals_fields_in_order(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    answer = hub.http().post("/api/channels/results/posts", json={"content": "hi"})
    assert answer.status_code == 201
    assert list(answer.json()) == [
        "id",
        "channel_id",
        "agent_id",
        "parent_id",
        "content",
        "created_at",
    ]
    assert answer.json()["created_at"] == "2026-03-09T19:29:59Z"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"content": ""}, "invalid_request"),
        ({}, "invalid_request"),
        ({"content": "x" * (40 * 1024)}, "invalid_request"),
        ({"content": "é" * (16 * 1024 + 1)}, "invalid_request"),
        ({"content": "a\x00b"}, "invalid_request"),
        ({"content": "hi", "parent_id": 999}, "parent_not_found"),
        ({"content": "hi", "parent_id": 10**30}, "invalid_request"),
    ],
)
def test_bad_posts_are_refused_and_leave_nothing(agent, hub: Hub, body: object, code: str) -> None:  # type: ignore[no-untyped-def]
    answer = hub.http().post("/api/channels/results/posts", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert agent.posts("results") == []


def test_a_parent_of_another_channel_is_refused(agent) -> None:  # type: ignore[no-untyped-def]
    agent.create_channel("discussion")
    post = agent.create_post("results", "here")
    with pytest.raises(ApiError) as refusal:
        agent.create_post("discussion", "there", post.id)
    assert refusal.value.status == 400


def test_content_is_kept_to_the_byte(agent) -> None:  # type: ignore[no-untyped-def]
    for text in (" \n\t", "x" * 32 * 1024, "<script>\u202e\x1b[31m🙂", "line\r\nline"):
        post = agent.create_post("results", text)
        assert agent.post(post.id).content == text


def test_unknown_channels_and_posts_are_404(hub: Hub) -> None:
    http = hub.http()
    for path in ("/api/channels/no/posts", "/api/posts/5", "/api/posts/5/replies"):
        assert http.get(path).status_code == 404, path
    assert http.post("/api/channels/no/posts", json={"content": "hi"}).status_code == 404
    assert http.get(f"/api/channels/no/posts?before={10**30}").status_code == 400
    for bad in ("x", "-1", "1.5", "9" * 30):
        assert http.get(f"/api/posts/{bad}").status_code == 400, bad


@pytest.mark.parametrize("limit", ["0", "-3", "many", ""])
def test_a_senseless_limit_means_the_default(agent, hub: Hub, limit: str) -> None:  # type: ignore[no-untyped-def]
    for number in range(60):
        agent.create_post("results", str(number))
    answer = hub.http().get(f"/api/channels/results/posts?limit={limit}")
    assert len(answer.json()) == 50


def test_pages_follow_each_other_by_offset_and_by_cursor(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    for number in range(5):
        agent.create_post("results", str(number))
    http = hub.http()
    by_offset = http.get("/api/channels/results/posts?limit=2&offset=2")
    assert [post["content"] for post in by_offset.json()] == ["2", "1"]
    seen, url = [], "/api/channels/results/posts?limit=2"
    while url:
        page = http.get(url)
        seen += [post["content"] for post in page.json()]
        url = page.links.get("next", {}).get("url", "")
    assert seen == ["4", "3", "2", "1", "0"]


def test_a_hundred_posts_an_hour(make_hub: Callable[..., Hub], clock: Clock) -> None:
    hub = make_hub(max_posts_per_hour=3)
    agent = hub.agent()
    agent.create_channel("results")
    for _ in range(3):
        agent.create_post("results", "hi")
    answer = hub.http().post("/api/channels/results/posts", json={"content": "hi"})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    clock.advance(minutes=61)
    assert agent.create_post("results", "hi")


def test_sixteen_agents_posting_at_once_lose_nothing(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    clients = [hub.agent(f"agent{number}") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        jobs = [
            pool.submit(client.create_post, "results", f"{number}")
            for client in clients
            for number in range(10)
        ]
        ids = {job.result().id for job in jobs}
    assert len(ids) == 160
    assert len(agent.posts("results", limit=1000)) == 160


def test_every_change_is_an_event(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    post = agent.create_post("results", "hi")
    told = [(event.kind, event.actor, event.subject) for event in agent.events()]
    assert told == [
        ("agent", "ada", "ada"),
        ("channel", "ada", "results"),
        ("post", "ada", str(post.id)),
    ]


def test_threads_and_channels_are_counted_as_posts_come(agent, hub: Hub) -> None:  # type: ignore[no-untyped-def]
    agent.create_channel("talk")
    first = agent.create_post("talk", "one")
    reply = agent.create_post("talk", "two", first.id)
    agent.create_post("results", "elsewhere")
    agent.create_post("talk", "three", reply.id)
    alone = agent.create_post("talk", "four")
    channel = next(one.id for one in agent.channels() if one.name == "talk")
    with hub.app.state.hub.db.write() as conn:
        kept = _read_counts(conn)
        board.index_threads(conn)
        assert kept == _read_counts(conn)
        found = threads.list_threads(conn, channel, 10)
    assert [(one.root.post.id, one.count) for one in found] == [(alone.id, 0), (first.id, 2)]


def _read_counts(conn: Connection) -> list[object]:
    return [conn.execute(select(table)).all() for table in (tables.threads, tables.activity)]
