"""Hot calls: the same answers as FastAPI's routes, at once after every change, whoever makes it."""

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
import pytest
from conftest import CLAIM, Hub, ok
from fastapi.testclient import TestClient
from forge import Forge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from server import tables, wire
from server.hot import HotRoom, large
from server.hot.answers import Answer, Memory
from server.kept import Room

MOMENT = datetime(2026, 3, 9, 19, 29, 59, 999_999, tzinfo=UTC)
POSTS = 130
LEAVES = 1_234


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def cold(hub: Hub) -> Hub:
    """The same hub without the room in front."""
    hub.app.user_middleware = [m for m in hub.app.user_middleware if m.cls is not HotRoom]
    return hub


def is_hot(answer: httpx.Response) -> bool:
    return "etag" in answer.headers


def warm(http: TestClient) -> TestClient:
    """Its key is in the hub's memory: FastAPI gets to know it first."""
    http.get("/api/whoami")
    return http


# The same answers -------------------------------------------------------------------------------


class Twins:
    """The same data behind a hub with the room in front and one without."""

    def __init__(self, make_hub: Callable[..., Hub], forge: Forge) -> None:
        limits = {"max_posts_per_hour": 0}
        self.hub, other = make_hub(**limits), cold(make_hub(**limits))
        key = self.hub.key("ada")
        self.hashes = push_some(self.hub, forge)
        self.posts = post_some(self.hub)
        self.hot = warm(self.hub.http(None, key))
        self.cold = other.http(None, key)

    def compare(self, path: str, may_be_cold: bool = True) -> None:
        asked, expected = self.hot.get(path), self.cold.get(path)
        again = self.hot.get(path)
        for answer in (asked, again):
            assert answer.status_code == expected.status_code, path
            assert answer.json() == expected.json(), path
            for name in ("content-type", "link", "retry-after", "www-authenticate"):
                assert answer.headers.get(name) == expected.headers.get(name), (path, name)
        assert expected.status_code != 200 or may_be_cold or is_hot(again), path
        head = self.hot.head(path)
        assert (head.status_code, head.content) == (expected.status_code, b"")
        assert head.headers.get("content-length") == asked.headers.get("content-length")


def push_some(hub: Hub, forge: Forge) -> list[str]:
    """A line, a fork, an octopus merge, a second root; by two agents, some with scores."""
    ada, bob, worker = hub.agent("ada"), hub.agent("bob"), hub.worker()
    base = forge.commit(forge.tree(), tail='\nquotes " \\ and \U0001f600 é\n'.encode())
    sides = [forge.commit(forge.tree(), base, tail=b"\nside %d\n" % n) for n in range(4)]
    merge = forge.commit(forge.tree(), *sides[:3], tail=b"\nmerge\n")
    root = forge.commit(forge.tree(), tail=b"\nanother root\n")
    ada.push(forge.bundle(merge))
    bob.push(forge.bundle(sides[3], root))
    for platform, bpb in (("h100", 1.5), ("a100", 1.25)):
        report = {"commit": base, "platform": platform, "outcome": "keep", "val_bpb": bpb}
        ada.report(wire.ReportCreate.model_validate(report))
    run = worker.claim(CLAIM)
    assert run is not None
    worker.finish(run.id, ok(run.fence, 0.9977))
    return [base, *sides, merge, root]


def post_some(hub: Hub) -> list[int]:
    ada = hub.agent("ada")
    ada.create_channel("general", 'with "quotes"')
    ada.create_channel("empty")
    first = ada.create_post("general", "first \u2028 line\n\ttab \U0001f600")
    ids = [first.id]
    for number in range(POSTS):
        parent = first.id if number < 105 else None
        ids.append(ada.create_post("general", f"post {number}", parent).id)
    return ids


@pytest.fixture
def twins(make_hub: Callable[..., Hub], forge: Forge) -> Twins:
    return Twins(make_hub, forge)


def list_paths(twins: Twins) -> Iterator[str]:
    yield from ("/api/channels", "/api/git/leaves", "/api/git/commits", "/api/events")
    for hash in (*twins.hashes, twins.hashes[0][:7], "0" * 40, "0000", "xyz", "ABCD", "abc"):
        for what in ("", "/children", "/lineage", "/", "//children", "/nothing"):
            yield f"/api/git/commits/{hash}{what}"
    for id in (*twins.posts[:2], twins.posts[-1], 0, 999, 10**18, 10**19, "x", "-1", "1.0", "%31"):
        yield f"/api/posts/{id}"
        yield f"/api/posts/{id}/replies"
    for query in ("", "?wait=0", "?after=3&limit=2", "?after=x", "?after=10000", "?other=1"):
        yield f"/api/events{query}"
    yield from (
        "/api/channels?x=1",
        "/api/channels/",
        "/api//channels",
        "/api/git/leaves?limit=1",
    )
    yield "/api/channels/nowhere/posts"


def test_every_path_is_answered_as_without_the_room(twins: Twins) -> None:
    for path in list_paths(twins):
        twins.compare(path)


def test_the_common_paths_are_hot(twins: Twins) -> None:
    hash, post = twins.hashes[0], twins.posts[1]
    of_commit = (f"/api/git/commits/{hash}{what}" for what in ("", "/children", "/lineage"))
    of_post = (f"/api/posts/{post}", f"/api/posts/{post}/replies")
    lists = ("/api/channels", "/api/git/leaves", "/api/git/commits?limit=20")
    posts = ("/api/channels/general/posts?limit=50", f"/api/channels/general/posts?before={post}")
    for path in (*of_commit, *of_post, *lists, *posts, "/api/events?after=2"):
        twins.compare(path, may_be_cold=False)


ODD = st.sampled_from(["", "0", "-1", "1", "2", "7", "50", "100", "101", "5000", "x", "1e3", " 3"])
NUMBER = st.one_of(ODD, st.integers(-5, 2**70).map(str), st.integers(1, POSTS + 5).map(str))
COMMITS = st.fixed_dictionaries(
    {},
    optional={
        "limit": NUMBER,
        "offset": NUMBER,
        "agent": st.sampled_from(["ada", "bob", "nobody", "", "a%b", "é"]),
        "before": st.one_of(ODD, st.integers(0, 6), st.text(max_size=5)),
        "more": ODD,
    },
)
PAGES = st.fixed_dictionaries(
    {}, optional={"limit": NUMBER, "offset": NUMBER, "before": NUMBER, "more": ODD}
)
FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_every_query_of_the_log_is_answered_as_without_the_room(twins: Twins) -> None:
    @FEW
    @given(COMMITS)
    def check(query: dict[str, object]) -> None:
        if isinstance(before := query.get("before"), int):
            query["before"] = twins.hashes[before]
        twins.compare(f"/api/git/commits?{urlencode(query)}")

    check()


def test_every_query_of_posts_is_answered_as_without_the_room(twins: Twins) -> None:
    @FEW
    @given(st.sampled_from(["general", "empty", "none", "é"]), PAGES, PAGES)
    def check(channel: str, query: dict[str, str], twice: dict[str, str]) -> None:
        words = urlencode([*query.items(), *twice.items()])
        twins.compare(f"/api/channels/{quote(channel)}/posts?{words}")

    check()


def test_callers_are_refused_as_without_the_room(twins: Twins) -> None:
    good = twins.hot.headers["authorization"].removeprefix("Bearer ")
    given = (
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {good}",
        f"bearer  {good} ",
        f"BEARER {good}",
    )
    for authorization in given:
        for path in ("/api/channels", "/api/posts/1", "/api/posts/x"):
            headers = {"Authorization": authorization}
            answers = [http.get(path, headers=headers) for http in (twins.hot, twins.cold)]
            assert answers[0].status_code == answers[1].status_code, (authorization, path)
            assert answers[0].json() == answers[1].json()
            assert (answers[0].status_code == 401) == (
                good not in authorization or "Basic" in authorization
            )


# As soon as it is acknowledged ------------------------------------------------------------------


def test_a_disabled_agent_is_refused_at_once_by_every_process(
    make_hub: Callable[..., Hub],
) -> None:
    here, there = make_hub(), make_hub()
    key = here.key("ada")
    clients = [warm(hub.http(None, key)) for hub in (here, there)]
    assert all(is_hot(http.get("/api/channels")) for http in clients)
    with there.app.state.hub.db.write() as conn:
        conn.execute(update(tables.agents).values(disabled_at=MOMENT))
    for http in clients:
        assert http.get("/api/channels").status_code == 403
        assert http.get("/api/whoami").status_code == 403


def test_a_new_key_counts_at_once_and_the_old_one_no_more(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    old, other = warm(hub.http("ada")), hub.key("bob")
    with hub.app.state.hub.db.write() as conn:
        t = tables.agents
        digest = conn.scalar(select(t.c.key_hash).where(t.c.id == "bob"))
        conn.execute(update(t).where(t.c.id == "bob").values(key_hash="gone"))
        conn.execute(update(t).where(t.c.id == "ada").values(key_hash=digest))
    assert old.get("/api/channels").status_code == 401
    assert hub.http(None, other).get("/api/whoami").json()["id"] == "ada"


def test_what_one_process_acknowledged_the_other_shows(
    make_hub: Callable[..., Hub], forge: Forge
) -> None:
    here, there = make_hub(), make_hub()
    key = here.key("ada")
    writer, readers = here.client(key), [warm(hub.http(None, key)) for hub in (here, there)]
    writer.create_channel("general")
    tip = forge.commit(forge.tree())
    paths = ("/api/channels/general/posts", "/api/git/commits", "/api/git/leaves", "/api/events")
    for number in range(4):
        before = {(http, path): http.get(path) for http in readers for path in paths}
        writer.create_post("general", f"post {number}")
        tip = forge.commit(forge.tree(), tip, tail=b"\nnumber %d\n" % number)
        writer.push(forge.bundle(tip))
        for http in readers:
            posts, log, leaves, _ = (http.get(path).json() for path in paths)
            assert posts[0]["content"] == f"post {number}"
            assert log[0]["hash"] == tip
            assert [leaf["hash"] for leaf in leaves] == [tip]
            assert http.get(f"/api/git/commits/{tip}").json()["child_count"] == 0
        for (http, path), answer in before.items():
            tags = {"If-None-Match": answer.headers["etag"]}
            assert http.get(path, headers=tags).status_code == 200


def test_a_score_shows_at_once(make_hub: Callable[..., Hub], forge: Forge) -> None:
    hub = make_hub()
    hash = forge.commit(forge.tree())
    hub.agent().push(forge.bundle(hash))
    http = warm(hub.http())
    assert http.get(f"/api/git/commits/{hash}").json()["best"] is None
    run = hub.worker().claim(CLAIM)
    assert run is not None
    hub.worker().finish(run.id, ok(run.fence, 0.9977))
    for path in (f"/api/git/commits/{hash}", "/api/git/leaves", "/api/git/commits"):
        found = http.get(path).json()
        commit = found[0] if isinstance(found, list) else found
        assert commit["best"] == {
            "val_bpb": 0.9977,
            "track": run.track,
            "source": "measured",
            "n": 1,
        }


def test_what_changes_nothing_on_the_wire_leaves_answers_in_memory(
    make_hub: Callable[..., Hub], forge: Forge
) -> None:
    hub = make_hub()
    hub.agent().push(forge.bundle(forge.commit(forge.tree())))
    run = hub.worker().claim(CLAIM)
    assert run is not None
    topics = hub.app.state.hub.topics
    before = topics.read()
    hub.worker().heartbeat(run.id, wire.Heartbeat(fence=run.fence, progress=0.5, loss=3.0))
    assert topics.read() is before
    hub.agent().create_channel("general")
    assert topics.read() == {**before, "channels": topics.read()["channels"]}
    assert topics.read()["channels"] != before["channels"]


def test_readers_never_see_less_than_was_acknowledged(make_hub: Callable[..., Hub]) -> None:
    here, there = make_hub(max_posts_per_hour=0), make_hub(max_posts_per_hour=0)
    key = here.key("ada")
    here.client(key).create_channel("general")
    acknowledged, is_over = [0], threading.Event()

    def read(hub: Hub) -> int:
        http, looks = warm(hub.http(None, key)), 0
        while not is_over.is_set():
            least = acknowledged[0]
            posts = http.get("/api/channels/general/posts?limit=1").json()
            assert (posts[0]["id"] if posts else 0) >= least
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, hub) for hub in (here, there)]
        try:
            for number in range(40):
                acknowledged[0] = here.client(key).create_post("general", f"{number}").id
        finally:
            is_over.set()
        assert all(reader.result() for reader in readers)


# Long lists -------------------------------------------------------------------------------------


def add_leaves(hub: Hub, count: int = LEAVES) -> None:
    """Rows of commits that nobody pushed."""
    row = {"tree": "0" * 40, "message": "a leaf", "body": "", "generation": 1}
    with hub.app.state.hub.db.write() as conn:
        rows = [
            {**row, "hash": f"{n:040x}", "authored_at": MOMENT, "created_at": MOMENT}
            for n in range(count)
        ]
        conn.execute(insert(tables.commits), rows)


def numbers(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200
    return [int(leaf["hash"], 16) for leaf in answer.json()]


ALL = list(range(LEAVES))[::-1]


def test_a_long_list_is_whole_and_the_same_in_every_process(make_hub: Callable[..., Hub]) -> None:
    hubs = make_hub(), make_hub(), cold(make_hub())
    key = hubs[0].key("ada")
    add_leaves(hubs[0])
    first, second, plain = (warm(hub.http(None, key)).get("/api/git/leaves") for hub in hubs)
    assert first.json() == second.json() == plain.json()
    assert numbers(first) == ALL
    assert first.headers["etag"] == second.headers["etag"]
    add_leaves_again = {"If-None-Match": first.headers["etag"]}
    http = hubs[1].http(None, key)
    assert http.get("/api/git/leaves", headers=add_leaves_again).status_code == 304
    with hubs[0].app.state.hub.db.write() as conn:
        conn.execute(update(tables.commits).where(tables.commits.c.seq == 1).values(child_count=1))
    assert numbers(http.get("/api/git/leaves", headers=add_leaves_again)) == ALL[:-1]


def test_a_list_too_large_to_be_kept_is_streamed(
    make_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "WHOLE_BYTES", 50_000)
    hub = make_hub()
    add_leaves(hub)
    http = warm(hub.http())
    for _ in range(2):
        answer = http.get("/api/git/leaves")
        assert numbers(answer) == ALL
        assert "content-length" not in answer.headers
        assert answer.headers["content-encoding"] == "gzip"
    plain = http.get("/api/git/leaves", headers={"Accept-Encoding": "identity"})
    assert numbers(plain) == ALL
    assert "content-encoding" not in plain.headers
    assert http.head("/api/git/leaves").content == b""
    tags = {"If-None-Match": plain.headers["etag"]}
    assert http.get("/api/git/leaves", headers=tags).status_code == 304
    hub.agent().create_channel("general")
    assert http.get("/api/git/leaves", headers=tags).status_code == 304
    with hub.app.state.hub.db.write() as conn:
        conn.execute(update(tables.commits).where(tables.commits.c.seq == 1).values(child_count=1))
    assert numbers(http.get("/api/git/leaves", headers=tags)) == ALL[:-1]


def test_a_deep_lineage_and_many_children_are_whole(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    add_leaves(hub)
    with hub.app.state.hub.db.write() as conn:
        half = LEAVES // 2
        line = [{"child": seq, "position": 0, "parent": seq - 1} for seq in range(2, half)]
        fan = [{"child": seq, "position": 0, "parent": 1} for seq in range(half, LEAVES + 1)]
        conn.execute(insert(tables.commit_parents), [*line, *fan])
    http = warm(hub.http())
    assert numbers(http.get(f"/api/git/commits/{half - 2:040x}/lineage")) == ALL[-half + 1 :]
    children = [*ALL[: LEAVES - half + 1], 1]
    assert numbers(http.get(f"/api/git/commits/{0:040x}/children")) == children


def test_many_who_ask_for_a_long_list_at_once_get_it(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    add_leaves(hub)
    warm(hub.http())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: hub.http().get("/api/git/leaves"), range(24)))
    assert all(numbers(answer) == ALL for answer in answers)


# Over the wire ----------------------------------------------------------------------------------


def test_large_answers_come_gzipped_to_who_takes_it(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    add_leaves(hub, 60)
    http = warm(hub.http())
    for _ in range(2):
        plain = http.get("/api/git/leaves", headers={"Accept-Encoding": "identity"})
        with http.stream("GET", "/api/git/leaves", headers={"Accept-Encoding": "gzip"}) as packed:
            raw = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["content-length"] == str(len(raw))
        assert gzip.decompress(raw) == plain.content
        assert packed.headers["etag"] != plain.headers["etag"]
        assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
        for answer in (plain, packed):
            headers = {"If-None-Match": answer.headers["etag"]}
            assert http.get("/api/git/leaves", headers=headers).status_code == 304
    small = http.get("/api/channels", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_an_etag_outlives_the_hub(make_hub: Callable[..., Hub]) -> None:
    http = warm(make_hub().http())
    http.post("/api/channels", json={"name": "one"})
    tags = {"If-None-Match": http.get("/api/channels").headers["etag"]}
    again = warm(make_hub().http(None, http.headers["authorization"].split()[1]))
    unchanged = again.get("/api/channels", headers=tags)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert again.get("/api/channels", headers={"If-None-Match": "*"}).status_code == 304
    assert again.get("/api/channels", headers={"If-None-Match": 'W/"x", "y"'}).status_code == 200
    again.post("/api/channels", json={"name": "two"})
    assert len(again.get("/api/channels", headers=tags).json()) == 2


# Memory -----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20_000))))
def test_the_memory_is_bounded_in_bytes(asked: list[tuple[int, int]]) -> None:
    room = Room(40_000)
    memory: Memory[Answer] = Memory(room)
    kept = {}
    for key, length in asked:
        kept[key] = Answer(200, b"x" * length)
        memory.put(key, 1, kept[key])
        held = [memory.get(key, 1) for key in range(31)]
        assert sum(answer.size for answer in held if answer) <= room.bytes <= 40_000
        assert all(answer is None or answer is kept[key] for key, answer in enumerate(held))


def test_another_version_is_not_answered_from_memory() -> None:
    memory = Memory()
    memory.put("key", (1, 2), Answer(200, b"old"))
    assert memory.get("key", (1, 3)) is None
    assert memory.get("key", (1, 2)) is not None
