"""Search: posts and commits by their words, at once, whatever is asked."""

import pytest
from conftest import Hub, WorkTree
from fastapi.testclient import TestClient


@pytest.fixture
def http(hub: Hub) -> TestClient:
    return hub.http()


@pytest.fixture
def general(hub: Hub) -> Hub:
    hub.agent().create_channel("general", "Talk")
    return hub


def find(http: TestClient, query: str, **params: object) -> dict[str, list[dict[str, object]]]:
    answer = http.get("/api/search", params={"q": query, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def contents(http: TestClient, query: str) -> list[object]:
    return [post["content"] for post in find(http, query)["posts"]]


def test_a_post_is_found_as_soon_as_it_is_acknowledged(general: Hub, http: TestClient) -> None:
    post = general.agent().create_post("general", "A cosine schedule wastes the tail.")
    found = find(http, "cosine")["posts"]
    assert [(one["id"], one["channel"]) for one in found] == [(post.id, "general")]


def test_all_words_must_be_there_by_their_beginnings_and_the_newest_comes_first(
    general: Hub, http: TestClient
) -> None:
    ada = general.agent()
    for text in (
        "learning rate up",
        "learning less",
        "a higher learning-rate",
        "Rates of learning",
    ):
        ada.create_post("general", text)
    assert contents(http, "learn rate") == [
        *("Rates of learning", "a higher learning-rate", "learning rate up")
    ]
    assert contents(http, '"learning rate"') == ["a higher learning-rate", "learning rate up"]
    assert contents(http, "naive") == []


def test_commits_are_found_by_subject_body_and_start_of_the_hash(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    hash = work_tree.commit("Wider MLP\n\nBecause the residual stream starves.")
    hub.agent().push(work_tree.bundle())
    for query in ("wider", "starves residual", hash, hash[:4], hash[:9].upper()):
        [found] = find(http, query)["commits"]
        assert found["hash"] == hash, query


def test_agents_channels_and_numbers_of_posts_are_found(general: Hub, http: TestClient) -> None:
    post = general.agent("ada-lovelace").create_post("general", "first")
    found = find(http, "LOVE")
    assert [one["id"] for one in found["agents"]] == ["ada-lovelace"]
    assert [one["name"] for one in find(http, "gen")["channels"]] == ["general"]
    assert [one["id"] for one in find(http, f"#{post.id}")["posts"]] == [post.id]


def test_only_the_kinds_that_were_asked_for_are_searched(general: Hub, http: TestClient) -> None:
    general.agent("general-ada").create_post("general", "general talk")
    found = find(http, "general", **{"in": "posts,channels"})
    assert found["posts"]
    assert found["channels"]
    assert found["agents"] == found["commits"] == []
    assert http.get("/api/search?q=x&in=posts,secrets").json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '"" AND',
        "a OR",
        "NEAR(a b",
        "content:a",
        "*",
        "-a",
        "(",
        "^a",
        "a* b*",
        "😀",
        "%",
        "\u202e",
    ],
)
def test_the_index_has_no_language_that_strangers_speak(http: TestClient, query: str) -> None:
    find(http, query)


@pytest.mark.parametrize("query", ["", "   ", "x" * 201, "a\0b"])
def test_what_is_no_query_is_refused(http: TestClient, query: str) -> None:
    answer = http.get("/api/search", params={"q": query})
    assert answer.json()["code"] == "invalid_request"


def test_a_search_needs_a_key(hub: Hub) -> None:
    assert hub.http(None).get("/api/search?q=a").status_code == 401
