"""The feed of events as a stream: nothing missed, nobody held up, and it ends with the hub."""

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import DEADLINE_SECONDS, Clock, Hub, HubProcess, wait_for

from ah_cli.client import HubClient
from server import events, wire
from server.db import Database, sqlite_url


class Listener:
    """One end of a stream; each event comes with the id it was sent under."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()
        self.last_id = 0
        self.position = self._read_position()

    def _read_position(self) -> int:
        for line in self._lines:
            if line.startswith("data: "):
                return int(line.removeprefix("data: "))
        pytest.fail("the stream said nothing")

    def next(self) -> wire.Event:
        for line in self._lines:
            if line.startswith("id: "):
                self.last_id = int(line.removeprefix("id: "))
            if line.startswith("data: "):
                return wire.Event.model_validate(json.loads(line.removeprefix("data: ")))
        pytest.fail("the stream ended")


@contextmanager
def listen(
    url: str, path: str = "/live", key: str = "", last_event_id: int | None = None
) -> Iterator[Listener]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    with httpx.stream("GET", url + path, headers=headers, timeout=DEADLINE_SECONDS) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield Listener(answer)


@pytest.fixture
def live(start_hub: Callable[..., HubProcess]) -> HubProcess:
    return start_hub()


@pytest.fixture
def ada(live: HubProcess) -> Iterator[HubClient]:
    with live.client(live.key("ada")) as client:
        client.create_channel("general")
        yield client


def test_what_happens_arrives_and_reads_like_the_log(live: HubProcess, ada: HubClient) -> None:
    with listen(live.url) as listener:
        assert listener.position == ada.events()[-1].id
        post = ada.create_post("general", "line one\nline two\n\nid: 7\ndata: forged")
        event = listener.next()
    assert (event.kind, event.actor, event.subject) == ("post", "ada", str(post.id))
    assert event == ada.events()[-1]
    assert listener.last_id == event.id


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_listener_that_comes_back_misses_nothing(
    live: HubProcess, ada: HubClient, how: str
) -> None:
    seen = ada.events()[-1].id
    posts = [ada.create_post("general", f"{n}") for n in range(5)]
    path, header = ("/live", seen) if how == "header" else (f"/live?after={seen}", None)
    with listen(live.url, path, last_event_id=header) as listener:
        assert [listener.next().subject for _ in posts] == [str(post.id) for post in posts]


def test_more_events_than_are_kept_come_from_the_database(hub_of_events: HubProcess) -> None:
    with listen(hub_of_events.url, "/live?after=0") as listener:
        ids = [listener.next().id for _ in range(2500)]
    assert ids == list(range(1, 2501))


def test_a_position_the_log_has_not_reached_waits_for_what_comes(
    live: HubProcess, ada: HubClient
) -> None:
    with listen(live.url, "/live?after=999999") as listener:
        post = ada.create_post("general", "now")
        assert listener.next().subject == str(post.id)


def test_agents_listen_with_their_key_and_nobody_without(live: HubProcess, ada: HubClient) -> None:
    refused = httpx.get(f"{live.url}/api/events/stream")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    with listen(live.url, "/api/events/stream", live.key("bob")) as listener:
        post = ada.create_post("general", "hello")
        assert listener.next().subject == str(post.id)


def test_a_process_tells_what_another_one_wrote(live: HubProcess, ada: HubClient) -> None:
    other = HubProcess(live.data, live.flags)
    other.start()
    try:
        with listen(other.url) as listener:
            post = ada.create_post("general", "written elsewhere")
            assert listener.next().subject == str(post.id)
    finally:
        other.stop()


def test_the_bell_rings_for_what_another_process_wrote(hub: Hub) -> None:
    bell = hub.app.state.hub.bell
    other = Database(sqlite_url(hub.data / "hub.db"))

    async def hear() -> None:
        for number in range(3):
            rings = bell.rings
            with other.write() as conn:
                events.append(conn, "post", "ada", str(number), {}, hub.clock())
            await bell.wait(DEADLINE_SECONDS, rings)
            # Else it was only the time that passed.
            assert bell.rings > rings

    asyncio.run(hear())
    other.close()


def test_a_hundred_listeners_get_every_event_in_order(live: HubProcess, ada: HubClient) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen(live.url)) for _ in range(100)]
        with ThreadPoolExecutor(4) as pool:
            posts = list(pool.map(lambda n: ada.create_post("general", str(n)).id, range(20)))
        for listener in listeners:
            assert [int(listener.next().subject) for _ in posts] == sorted(posts)


def count_sockets(hub: HubProcess) -> int:
    assert hub.process is not None
    count = 0
    for file in Path(f"/proc/{hub.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(file.readlink()).startswith("socket:")
    return count


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux cuts them off")
def test_a_listener_that_stalls_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    impatient = (
        "from server import __main__, feed, serving; "
        "feed.STALL_SECONDS = serving.STALL_SECONDS = 1; __main__.main()"
    )
    hub = HubProcess(tmp_path / "hub", program=("-c", impatient))
    hub.start()
    database = Database(sqlite_url(hub.data / "hub.db"))

    def happen(count: int, size: int) -> None:
        with database.write() as conn:
            for _ in range(count):
                events.append(conn, "post", "ada", "1", {"text": "x" * size}, Clock().moment)

    try:
        # More than the kernel takes for a client that reads nothing.
        happen(100, 100_000)
        with socket.socket() as slow, listen(hub.url) as listener:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", urlsplit(hub.url).port))
            slow.sendall(b"GET /live?after=0 HTTP/1.1\r\nHost: hub\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 200 OK")
            held = count_sockets(hub)
            happen(1, 1)
            # The client is not told before it reads, and then it finds the stream broken.
            wait_for(lambda: count_sockets(hub) < held, "the hub to cut it off")
            with pytest.raises(ConnectionResetError):
                while slow.recv(100_000):
                    pass
            happen(1, 2)
            assert [len(listener.next().payload["text"]) for _ in range(2)] == [1, 2]
    finally:
        hub.kill()
        database.close()


def test_a_hub_told_to_stop_ends_its_streams_and_exits(live: HubProcess, ada: HubClient) -> None:
    with listen(live.url) as listener:
        process = live.process
        live.stop()
        assert process is not None
        # uvicorn's own patience would break the streams off after three seconds.
        rest = list(listener._lines)
    assert process.returncode in (0, -signal.SIGTERM)
    assert not any(line.startswith("data:") for line in rest)


def test_listeners_that_leave_are_forgotten(live: HubProcess, ada: HubClient) -> None:
    for _ in range(3):
        with listen(live.url):
            pass
    ada.create_post("general", "nobody listens")
    with listen(live.url) as listener:
        assert listener.position == ada.events()[-1].id


def test_head_of_a_stream_ends_at_once(hub: Hub) -> None:
    answer = hub.http(None).head("/live")
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.fixture
def hub_of_events(start_hub: Callable[..., HubProcess]) -> HubProcess:
    """A hub whose log is longer than what a process keeps of it."""
    hub = start_hub()
    database = Database(sqlite_url(hub.data / "hub.db"))
    with database.write() as conn:
        for number in range(2500):
            events.append(conn, "post", "ada", str(number), {}, Clock().moment)
    database.close()
    return hub
