"""`agenthub serve --workers 2`: two processes that are one hub, whichever of them answers."""

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import CLAIM, DEADLINE_SECONDS, HubProcess, WorkTree, uploads, wait_for
from test_live import listen

from ah_cli.client import ApiError, HubClient
from server import wire

StartHub = Callable[..., HubProcess]


def list_workers(hub: HubProcess) -> list[int]:
    assert hub.process is not None
    done = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in done.stdout.splitlines())
    mine = str(hub.process.pid)
    return sorted(int(pid) for pid, parent, state in rows if parent == mine and state[0] != "Z")


def two_workers(hub: HubProcess) -> list[int] | None:
    found = list_workers(hub)
    return found if len(found) == 2 else None


@contextlib.contextmanager
def only(worker: int, hub: HubProcess) -> Iterator[None]:
    """Connections that are made in the block are taken by this worker: the others stand still."""
    others = [pid for pid in list_workers(hub) if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def hub(start_hub: StartHub) -> HubProcess:
    return start_hub("--workers", "2", "--registration", "open", "--pack-after", "20")


@pytest.fixture
def key(hub: HubProcess) -> str:
    return hub.key("ada")


@pytest.fixture
def pair(hub: HubProcess, key: str) -> Iterator[list[HubClient]]:
    """One agent's connection to each worker."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(hub.client(key)) for _ in range(2)]
        for worker, client in zip(list_workers(hub), clients, strict=True):
            with only(worker, hub):
                client.whoami()
        yield clients


def test_what_one_worker_took_in_the_other_shows_at_once(
    pair: list[HubClient], work_tree: WorkTree
) -> None:
    pair[0].create_channel("general")
    parent = None
    for number in range(6):
        writer, reader = pair[number % 2], pair[1 - number % 2]
        post = writer.create_post("general", f"post {number}")
        assert reader.posts("general")[0] == post
        tip = work_tree.commit(f"commit {number}")
        writer.push(work_tree.bundle("main", *([f"^{parent}"] if parent else [])))
        assert reader.commits()[0].hash == tip
        assert [leaf.hash for leaf in reader.leaves()] == [tip]
        assert reader.lineage(tip)[-1].hash == work_tree.git("rev-list", "--max-parents=0", "HEAD")
        if parent:
            assert [child.hash for child in reader.children(parent)] == [tip]
            assert reader.diff(parent, tip)
        parent = tip


def test_limits_count_what_every_worker_took(start_hub: StartHub) -> None:
    hub = start_hub("--workers", "2", "--max-posts-per-hour", "5")
    key, clients = hub.key("ada"), []
    with contextlib.ExitStack() as stack:
        for worker in list_workers(hub):
            client = stack.enter_context(hub.client(key))
            with only(worker, hub):
                client.whoami()
            clients.append(client)
        clients[0].create_channel("general")
        for number in range(5):
            clients[number % 2].create_post("general", "hello")
        for client in clients:
            with pytest.raises(ApiError, match="quota of 5"):
                client.create_post("general", "one too many")


def test_listeners_of_both_workers_hear_of_everything(
    hub: HubProcess, pair: list[HubClient]
) -> None:
    pair[0].create_channel("general")
    with contextlib.ExitStack() as stack:
        listeners = []
        for worker in list_workers(hub):
            with only(worker, hub):
                listeners.append(stack.enter_context(listen(hub.url)))
        posts = [str(writer.create_post("general", "news").id) for writer in pair * 3]
        for listener in listeners:
            assert [listener.next().subject for _ in posts] == posts


def test_waiting_claims_of_both_workers_are_served(
    hub: HubProcess, pair: list[HubClient], work_tree: WorkTree
) -> None:
    keys = [hub.key(name, wire.Role.WORKER) for name in ("gpu1", "gpu2")]
    root = work_tree.commit("root")
    pair[0].push(work_tree.bundle())
    with contextlib.ExitStack() as stack:
        claimants = [stack.enter_context(hub.client(key)) for key in keys]
        for worker, claimant in zip(list_workers(hub), claimants, strict=True):
            with only(worker, hub):
                claimant.whoami()
        # So that both wait in vain at first.
        assert claimants[0].claim(CLAIM) is not None
        pool = stack.enter_context(ThreadPoolExecutor(2))
        waiting = [pool.submit(each.claim, CLAIM, 30) for each in claimants]
        leaves = set()
        for number, writer in enumerate(pair):
            work_tree.git("checkout", "--quiet", "-B", f"leaf{number}", root)
            leaves.add(work_tree.commit(f"leaf {number}"))
            writer.push(work_tree.bundle(f"leaf{number}", f"^{root}"))
        runs = [each.result(DEADLINE_SECONDS) for each in waiting]
    assert {run.commit for run in runs if run} == leaves


#: Too large to be held in memory while it comes, packed as well.
LARGE = "".join(f"# {random.Random(number).getrandbits(256):x}\n" for number in range(20_000))


class Upload:
    """A push of which only the half was sent."""

    def __init__(self, hub: HubProcess, key: str, body: bytes) -> None:
        self._rest = body[len(body) // 2 :]
        self._http = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=DEADLINE_SECONDS)
        self._http.putrequest("POST", "/api/git/push")
        self._http.putheader("Authorization", f"Bearer {key}")
        self._http.putheader("Content-Length", str(len(body)))
        self._http.endheaders(body[: len(body) // 2])
        wait_for(lambda: uploads(hub.data), "the upload to begin")

    def finish(self) -> int:
        with contextlib.closing(self._http):
            self._http.send(self._rest)
            with self._http.getresponse() as answer:
                return answer.status


def test_workers_that_are_killed_are_replaced_and_their_duties_taken_over(
    hub: HubProcess, key: str, work_tree: WorkTree
) -> None:
    tips: list[str] = []

    def push() -> None:
        tips.append(work_tree.commit(f"commit {len(tips)}"))
        since = [f"^{tips[-2]}"] if len(tips) > 1 else []
        # As an agent whose connection broke: once more.
        for _ in range(5):
            with contextlib.suppress(Exception), hub.client(key) as once:
                once.push(work_tree.bundle("main", *since))
                return
        pytest.fail("no worker takes a push")

    def packs() -> set[Path]:
        return set((hub.data / "repo.git" / "objects" / "pack").glob("*.pack"))

    # One of the two leads; whichever is killed, maintenance goes on.
    for victim in list_workers(hub):
        os.kill(victim, signal.SIGKILL)
        before = packs()
        for _ in range(8):
            push()
        wait_for(lambda seen=before: packs() - seen, "maintenance by who is left")
        wait_for(lambda gone=victim: gone not in (two_workers(hub) or [gone]), "another worker")
    with hub.client(key) as reader:
        assert reader.lineage(tips[-1])[-1].hash == tips[0]
        assert {commit.hash for commit in reader.commits(limit=100)} == set(tips)


def test_a_worker_that_starts_leaves_uploads_of_others_alone(
    hub: HubProcess, key: str, work_tree: WorkTree
) -> None:
    first, second = list_workers(hub)
    tip = work_tree.commit("slowly", train_py=LARGE)
    with only(first, hub):
        upload = Upload(hub, key, work_tree.bundle().read_bytes())
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: second not in (two_workers(hub) or [second]), "another worker")
    other = HubProcess(hub.data, hub.flags)
    other.start()
    try:
        assert upload.finish() == 201
        with other.client(key) as client:
            assert client.commit(tip).hash == tip
    finally:
        other.stop()


def test_a_hub_told_to_stop_ends_streams_and_uploads_and_every_process(
    hub: HubProcess, key: str, pair: list[HubClient], work_tree: WorkTree
) -> None:
    pair[0].create_channel("general")
    post = pair[0].create_post("general", "kept")
    work_tree.commit("slowly", train_py=LARGE)
    upload = Upload(hub, key, work_tree.bundle().read_bytes())
    workers, process = list_workers(hub), hub.process
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(listen(hub.url)) for _ in range(4)]
        hub.stop()
        rests = [list(stream._lines) for stream in streams]
    assert not any(line.startswith("data:") for rest in rests for line in rest)
    assert process is not None
    assert process.returncode == -signal.SIGTERM
    assert not any(is_alive(pid) for pid in workers)
    assert not uploads(hub.data)
    with contextlib.suppress(OSError, http.client.HTTPException):
        assert upload.finish() >= 400
    hub.start()
    with hub.client(key) as client:
        assert client.posts("general") == [post]
        assert client.commits() == []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_hub_that_is_killed_leaves_no_process_and_starts_again(hub: HubProcess) -> None:
    workers = list_workers(hub)
    hub.kill()
    wait_for(lambda: not any(map(is_alive, workers)), "the workers to end")
    hub.start()
    assert len(list_workers(hub)) == 2


def test_keys_and_address_are_told_once(start_hub: StartHub) -> None:
    hub = start_hub("--workers", "2", admin_key="")
    process = hub.process
    assert process is not None
    assert process.stdout is not None
    os.kill(process.pid, signal.SIGINT)
    told = hub.greeting + process.stdout.read()
    process.wait(DEADLINE_SECONDS)
    assert told.count("admin key") == 1
    assert told.count("listens on") == 1


def test_a_hub_that_cannot_start_ends(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "session.key").write_text("short\n")
    command = ["-m", "server", "serve", "--workers", "2", "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [sys.executable, *command, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 3
    assert "delete session.key" in done.stderr


def test_bursts_of_connections_are_shared(hub: HubProcess) -> None:
    workers = list_workers(hub)
    for _ in range(4):
        taken = take_burst(hub, workers, 32)
        assert sum(taken) == 32
        # Whoever wakes first may take one every other millisecond until the other one is there.
        assert min(taken) >= 6, taken


def take_burst(hub: HubProcess, workers: list[int], size: int) -> list[int]:
    """How many each takes of connections that wait for all of them as they wake."""
    before = [count_sockets(pid) for pid in workers]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        connections = []
        try:
            for _ in range(size):
                connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)
                connection.request("GET", "/api/health")
                connections.append(stack.enter_context(contextlib.closing(connection)))
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert {connection.getresponse().status for connection in connections} == {200}
        taken = [count_sockets(pid) - n for pid, n in zip(workers, before, strict=True)]
    wait_for(lambda: sum(map(count_sockets, workers)) <= sum(before), "the connections to end")
    return taken


def count_sockets(pid: int) -> int:
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            count += str(path.readlink()).startswith("socket:")
    return count
