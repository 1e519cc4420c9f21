"""Increments: pushes and fetches move only what the other side lacks.

What moves is counted: as bodies in process, as bytes of the connection between processes.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ADMIN_KEY, Hub, HubProcess, WorkTree
from fastapi.testclient import TestClient

from ah_cli import git, transfer
from ah_cli.client import ApiError, HubClient
from ah_cli.failures import Refusal
from server import wire
from server.app import create_app
from server.settings import Settings

MakeWorkTree = Callable[[str], WorkTree]
ROOT = Path(__file__).parent.parent
KIB_32 = 32 * 1024
UNKNOWN = "12" * 20


def header(bundle: Path) -> bytes:
    """What stands before the pack, whose bytes may be any."""
    return bundle.read_bytes().partition(b"\n\n")[0]


@dataclass
class Agent:
    """A work tree and a hub to exchange commits with, and what moved between them."""

    tree: WorkTree
    app: Any
    key: str
    moved: list[tuple[str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        http = TestClient(self.app, raise_server_exceptions=False)
        http.event_hooks = {"response": [self._note]}
        self.hub = HubClient("http://testserver", self.key, http)

    def _note(self, answer: httpx.Response) -> None:
        size = len(answer.request.read()) + len(answer.read()) + len(answer.request.url.query)
        self.moved.append((answer.request.method, answer.request.url.path, size))

    @property
    def bundle(self) -> Path:
        return self.tree.path.with_suffix(".transfer")

    def push(self) -> wire.Pushed:
        self.moved.clear()
        return transfer.push(self.hub, self.bundle, self.tree.path)

    def fetch(self, hash: str) -> None:
        self.moved.clear()
        transfer.fetch(self.hub, hash, self.bundle, self.tree.path)
        git.keep(hash, self.tree.path)

    def count(self, call: str) -> int:
        return sum(path.startswith(f"/api/git/{call}") for _, path, _ in self.moved)

    @property
    def bytes_moved(self) -> int:
        return sum(size for _, _, size in self.moved)


@pytest.fixture
def make_agent(hub: Hub, make_work_tree: MakeWorkTree) -> Callable[[str], Agent]:
    return lambda name: Agent(make_work_tree(name), hub.app, hub.key(name))


@pytest.fixture
def ada(make_agent: Callable[[str], Agent]) -> Agent:
    return make_agent("ada")


@pytest.fixture
def bob(make_agent: Callable[[str], Agent]) -> Agent:
    return make_agent("bob")


def grow(tree: WorkTree, count: int, branch: str = "main", start: str = "") -> None:
    """A line of commits by fast-import, each with an edit of a file of 10 KiB; checked out."""
    lines = [f"value_{number} = {number * number}" for number in range(600)]
    stream: list[str] = []
    for number in range(count):
        lines[number * 37 % 600] = f"edit = '{branch} {number}'"
        text, message = "\n".join(lines), f"{branch} {number}"
        stream += [
            f"commit refs/heads/{branch}",
            f"committer Ada <ada@example.org> {1_700_000_000 + number} +0000",
            f"data {len(message)}\n{message}",
            *([f"from {start}"] if start and not number else []),
            f"M 100644 inline train.py\ndata {len(text)}\n{text}\n",
        ]
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=tree.path,
        input="\n".join(stream).encode(),
        check=True,
    )
    tree.git("checkout", "--quiet", "--force", branch)


def tangle(tree: WorkTree, count: int, dice: random.Random) -> list[str]:
    """Commits with merges, octopus merges and several roots; dates go up and down."""
    made: list[str] = []
    for number in range(count):
        recent = made[-8:]
        parents = dice.sample(recent, min(len(recent), dice.choice([1, 1, 1, 2, 3])))
        if dice.random() < 0.05:
            parents = []
        text = f"{number % 7}.txt"
        tree.path.joinpath(text).write_text(f"{number}\n" * 20)
        tree.git("add", "--all")
        flags = [word for parent in parents for word in ("-p", parent)]
        when = f"{1_700_000_000 + number * 60 + dice.randrange(-900, 900)} +0000"
        dates = {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when}
        made.append(
            tree.git("commit-tree", tree.git("write-tree"), "-m", str(number), *flags, **dates)
        )
    return made


def check(tree: WorkTree, *tips: str) -> None:
    """All of the ancestry is there, whole."""
    tree.git("fsck", "--full", "--strict", "--no-dangling", *tips)


# Pushes -----------------------------------------------------------------------------------------


def test_a_push_sends_only_what_the_hub_lacks(ada: Agent) -> None:
    grow(ada.tree, 300)
    assert ada.push().new_commits == 300
    tip = ada.tree.commit("one more")
    assert ada.push() == wire.Pushed(hashes=[tip], new_commits=1)
    assert (ada.count("have"), ada.count("push")) == (1, 1)
    assert ada.bytes_moved < 8 * 1024


def test_the_first_push_asks_one_question_and_sends_everything(ada: Agent) -> None:
    grow(ada.tree, 300)
    assert ada.push().new_commits == 300
    assert (ada.count("have"), ada.count("push")) == (1, 1)


def test_pushing_what_the_hub_has_uploads_nothing(ada: Agent) -> None:
    old, tip = ada.tree.commit("old"), ada.tree.commit("new")
    ada.push()
    for head in (tip, old):
        ada.tree.git("checkout", "--quiet", "--detach", head)
        assert ada.push() == wire.Pushed(hashes=[head])
        assert ada.count("push") == 0


def test_diverged_histories_meet_at_their_common_ancestor(ada: Agent, bob: Agent) -> None:
    grow(ada.tree, 40)
    base = ada.tree.git("rev-parse", "HEAD")
    ada.push()
    bob.fetch(base)
    bob.tree.git("checkout", "--quiet", "-b", "mine", base)
    grow(ada.tree, 5, "main", base)
    grow(bob.tree, 70, "mine", base)
    assert ada.push().new_commits == 5
    assert bob.push().new_commits == 70
    ada.fetch(bob.tree.git("rev-parse", "HEAD"))
    merge = ada.tree.git("rev-parse", "HEAD"), bob.tree.git("rev-parse", "HEAD")
    ada.tree.git("merge", "--quiet", "--strategy=ours", "--message=both", merge[1])
    assert ada.push().new_commits == 1
    assert ada.bytes_moved < 8 * 1024
    assert ada.hub.commit(ada.tree.git("rev-parse", "HEAD")).parents == list(merge)


def test_thousands_of_new_commits_take_few_questions(ada: Agent) -> None:
    grow(ada.tree, 3000)
    ada.tree.git("checkout", "--quiet", "--detach", "main~1777")
    ada.push()
    ada.tree.git("checkout", "--quiet", "main")
    assert ada.push().new_commits == 1777
    assert ada.count("have") <= 4
    assert ada.count("push") == 1


@pytest.mark.parametrize("seed", range(3))
def test_tangled_histories_arrive_whole_on_both_sides(
    ada: Agent, bob: Agent, hub: Hub, seed: int
) -> None:
    dice = random.Random(seed)
    made = tangle(ada.tree, 80, dice)
    sent: set[str] = set()
    for tip in [*dice.sample(made, 6), *made[-8:]]:
        ada.tree.git("checkout", "--quiet", "--force", "--detach", tip)
        added = set(ada.tree.git("rev-list", tip).split()) - sent
        assert ada.push().new_commits == len(added), tip
        sent |= added
        if dice.random() < 0.6:
            bob.fetch(tip)
            check(bob.tree, tip)
            assert bob.tree.git("rev-list", tip) == ada.tree.git("rev-list", tip)
            if dice.random() < 0.5:
                bob.tree.git("checkout", "--quiet", "--force", "--detach", tip)
                bob.tree.commit("bob's own, which the hub does not know")
    assert {commit.hash for commit in ada.hub.commits(limit=1000)} == sent
    subprocess.run(["git", "fsck", "--full", "--strict"], cwd=hub.data / "repo.git", check=True)


def test_a_history_that_joins_an_unknown_root_is_pushed_whole(ada: Agent) -> None:
    ada.tree.commit("ours")
    ada.push()
    ada.tree.git("checkout", "--quiet", "--orphan", "theirs")
    ada.tree.commit("theirs", other="1")
    ada.tree.git("merge", "--quiet", "--allow-unrelated-histories", "-s", "ours", "main")
    assert ada.push().new_commits == 2


class Detour:
    """A hub some of whose calls are answered by another application."""

    def __init__(self, app: Any, calls: str, other: Any) -> None:
        self.app, self.calls, self.other = app, calls, other

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_other = scope["path"].startswith(f"/api/git/{self.calls}")
        await (self.other if is_other else self.app)(scope, receive, send)


def refuse(status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"404 page not found\n"})

    return app


def test_a_hub_that_lost_commits_gets_the_whole_history(
    ada: Agent, hub: Hub, tmp_path: Path
) -> None:
    """It is restored from a backup between its answer and our push."""
    shutil.copytree(hub.data, tmp_path / "backup")
    ada.tree.commit("not in the backup")
    ada.push()
    ada.tree.commit("new")
    restored = create_app(Settings(tmp_path / "backup", ADMIN_KEY), hub.clock)
    agent = Agent(ada.tree, Detour(restored, "have", hub.app), ada.key)
    assert agent.push().new_commits == 2
    assert agent.count("push") == 2


@pytest.mark.parametrize("status", [404, 405])
def test_a_hub_of_the_original_gets_the_whole_history(hub: Hub, ada: Agent, status: int) -> None:
    agent = Agent(ada.tree, Detour(hub.app, "have", refuse(status)), ada.key)
    for subject in ("one", "two"):
        agent.tree.commit(subject)
        assert agent.push().new_commits == 1
        assert b"\n-" not in header(agent.bundle)


def test_a_refused_question_is_told(ada: Agent) -> None:
    ada.tree.commit()
    with pytest.raises(ApiError) as refused:
        Agent(ada.tree, ada.app, "no key").push()
    assert refused.value.status == 401


# Shallow clones ---------------------------------------------------------------------------------


def clone_shallow(agent: Agent, name: str, depth: int) -> WorkTree:
    tree = WorkTree(agent.tree.path.with_name(name))
    tree.git("fetch", "--quiet", f"--depth={depth}", f"file://{agent.tree.path}", "HEAD")
    tree.git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    return tree


def test_a_shallow_clone_pushes_upon_what_the_hub_knows(ada: Agent) -> None:
    grow(ada.tree, 10)
    ada.push()
    ada.tree = clone_shallow(ada, "shallow", 1)
    tip = ada.tree.commit("upon it")
    assert ada.push() == wire.Pushed(hashes=[tip], new_commits=1)


def test_a_shallow_clone_that_leaves_out_what_the_hub_lacks_is_told_so(ada: Agent) -> None:
    grow(ada.tree, 10)
    ada.tree = clone_shallow(ada, "shallow", 3)
    with pytest.raises(Refusal, match="shallow") as refusal:
        ada.push()
    assert "--unshallow" in refusal.value.hint
    assert ada.hub.commits() == []


def test_a_shallow_clone_fetches_what_lies_behind_its_horizon(ada: Agent) -> None:
    grow(ada.tree, 10)
    old = ada.tree.git("rev-parse", "HEAD~5")
    ada.push()
    ada.tree.git("checkout", "--quiet", "--detach", old)
    side = ada.tree.commit("beside", side="1")
    ada.push()
    ada.tree.git("checkout", "--quiet", "main")
    ada.tree = clone_shallow(ada, "shallow", 2)
    for hash, commits, fetches in ((old, 5, 2), (side, 6, 1)):
        ada.fetch(hash)
        # What is informed wrongly comes again as a whole.
        assert ada.count("fetch") == fetches
        check(ada.tree, hash)
        assert len(ada.tree.git("rev-list", hash).split()) == commits


# Fetches ----------------------------------------------------------------------------------------


def test_a_fetch_brings_only_what_is_lacking(ada: Agent, bob: Agent) -> None:
    grow(ada.tree, 300)
    ada.push()
    bob.fetch(ada.tree.git("rev-parse", "HEAD"))
    whole = bob.bytes_moved
    tip = ada.tree.commit("one more")
    ada.push()
    bob.fetch(tip)
    check(bob.tree, tip)
    assert bob.bytes_moved < 8 * 1024 < whole
    assert len(bob.tree.git("rev-list", tip).split()) == 301


def test_commits_of_ones_own_do_not_spoil_a_fetch(ada: Agent, bob: Agent) -> None:
    grow(ada.tree, 300)
    ada.push()
    base = ada.tree.git("rev-parse", "HEAD")
    bob.fetch(base)
    bob.tree.git("checkout", "--quiet", "--detach", base)
    bob.tree.git("update-ref", "-d", f"refs/agenthub/{base}")
    for number in range(5):
        bob.tree.commit(f"mine {number}")
    tip = ada.tree.commit("one more")
    ada.push()
    bob.fetch(tip)
    check(bob.tree, tip)
    assert bob.bytes_moved < 16 * 1024


def test_an_empty_mirror_gets_all_and_then_the_rest(ada: Agent, hub: Hub, tmp_path: Path) -> None:
    mirror, bundle = tmp_path / "mirror.git", tmp_path / "x.bundle"
    git.init(mirror, bare=True)
    sizes = []
    for _ in range(3):
        grow(ada.tree, 50, start=ada.tree.git("rev-parse", "HEAD") if sizes else "")
        ada.push()
        tip = ada.tree.git("rev-parse", "HEAD")
        transfer.fetch(ada.hub, tip, bundle, mirror)
        git.keep(tip, mirror)
        subprocess.run(["git", "fsck", "--full", "--strict", tip], cwd=mirror, check=True)
        listed = subprocess.check_output(["git", "bundle", "list-heads", bundle], cwd=mirror)
        assert listed.decode().split() == [tip, "HEAD"]
        sizes.append(header(bundle).count(b"\n-"))
    assert sizes == [0, 1, 1]


def test_have_takes_commas_and_repetition_and_passes_over_the_unknown(ada: Agent, hub: Hub) -> None:
    one, two, tip = (ada.tree.commit(name) for name in ("one", "two", "tip"))
    ada.push()
    http, path = hub.http(), f"/api/git/fetch/{tip[:8]}"
    thin = http.get(path, params={"have": two})
    assert b"\n-" + two.encode() in thin.content
    for query in (f"{one},{two}", f"{UNKNOWN},{two}", f"{two},{two},"):
        assert http.get(path, params={"have": query}).content == thin.content
    assert http.get(f"{path}?have={one}&have={two}").content == thin.content
    whole = http.get(path)
    assert http.get(path, params={"have": UNKNOWN}).content == whole.content
    assert http.get(path, params={"have": ""}).content == whole.content


@pytest.mark.parametrize(
    ("have", "code"),
    [
        ("xyz", "invalid_hash"),
        ("abcd1234", "invalid_hash"),
        ("A" * 40, "invalid_hash"),
        (UNKNOWN + "0", "invalid_hash"),
        (",".join([UNKNOWN] * 257), "invalid_request"),
    ],
)
def test_a_bad_have_is_a_400(ada: Agent, hub: Hub, have: str, code: str) -> None:
    tip = ada.tree.commit()
    ada.push()
    answer = hub.http().get(f"/api/git/fetch/{tip}", params={"have": have})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_the_hub_says_what_it_knows(ada: Agent, hub: Hub) -> None:
    one, two = ada.tree.commit("one"), ada.tree.commit("two")
    ada.push()
    mine = ada.tree.commit("not pushed")
    answer = hub.http().post("/api/git/have", json={"hashes": [two, mine, UNKNOWN, one]})
    assert (answer.status_code, answer.json()) == (200, {"known": [two, one]})
    for bad in (["xyz"], [one[:12]], [one.upper()], [UNKNOWN] * 1001, "x"):
        answer = hub.http().post("/api/git/have", json={"hashes": bad})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), bad
    assert hub.http(None).post("/api/git/have", json={"hashes": []}).status_code == 401


# Between processes ------------------------------------------------------------------------------


@dataclass
class Meter:
    """A way to a hub that counts every byte that passes, in either direction."""

    url: str
    count: int = 0

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with source, target:
            while data := source.recv(65536):
                self.count += len(data)
                target.sendall(data)

    def serve(self, listener: socket.socket, hub: tuple[str, int]) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(hub)
            for ends in ((client.dup(), server.dup()), (server, client)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()


@contextmanager
def metered(hub: HubProcess) -> Iterator[Meter]:
    host, port = hub.url.removeprefix("http://").split(":")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        meter = Meter(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(
            target=meter.serve, args=(listener, (host, int(port))), daemon=True
        ).start()
        yield meter


def ah(tree: WorkTree, url: str, key: str, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ah_cli", *argv],
        cwd=tree.path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AGENTHUB_URL": url, "AGENTHUB_KEY": key},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_new_commit_on_10000_moves_under_32_kib(
    start_hub: Callable[..., HubProcess], make_work_tree: MakeWorkTree
) -> None:
    hub = start_hub()
    ada, bob = make_work_tree("ada"), make_work_tree("bob")
    keys = [hub.key(name) for name in ("ada", "bob")]
    grow(ada, 10_000)
    old = ada.git("rev-parse", "HEAD")
    assert "10000 new commits" in ah(ada, hub.url, keys[0], "push")
    ah(bob, hub.url, keys[1], "checkout", old)
    tip = ada.commit("one more")
    with metered(hub) as pushed, metered(hub) as fetched, metered(hub) as again:
        assert "1 new commit\n" in ah(ada, pushed.url, keys[0], "push")
        assert tip[:12] in ah(bob, fetched.url, keys[1], "fetch", tip)
        assert "nothing new" in ah(ada, again.url, keys[0], "push")
    assert len(bob.git("rev-list", tip).split()) == 10_001
    assert 0 < pushed.count < KIB_32
    assert 0 < fetched.count < KIB_32
    assert 0 < again.count < KIB_32


def test_fifty_pushers_and_fifty_fetches_at_once_lose_nothing(
    start_hub: Callable[..., HubProcess], make_work_tree: MakeWorkTree, tmp_path: Path
) -> None:
    hub, base = start_hub(), make_work_tree("base")
    grow(base, 200)
    root = base.git("rev-parse", "HEAD")
    with hub.client(hub.key("base")) as client:
        client.push(base.bundle())
    trees = []

    def commit(tree: Path, subject: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@b"]
        git.git(*who, "commit", "--quiet", "--allow-empty", "-m", subject, cwd=tree)

    for number in range(50):
        tree = tmp_path / f"pusher{number}"
        subprocess.run(["git", "clone", "--quiet", "--shared", base.path, tree], check=True)
        commit(tree, f"push {number}")
        trees.append(tree)
    keys = [hub.key(f"pusher{number}") for number in range(50)]

    def push(number: int) -> str:
        with hub.client(keys[number]) as client:
            bundle = tmp_path / f"{number}.bundle"
            pushed = transfer.push(client, bundle, trees[number])
            assert pushed.new_commits == 1
            return pushed.hashes[0]

    def commit_and_push(number: int) -> str:
        commit(trees[number], "again")
        return push(number)

    def fetch(number: int) -> bytes:
        with hub.client(keys[number]) as client:
            out = tmp_path / f"{number}.fetched"
            client.fetch(root, out)
            return out.read_bytes()

    with ThreadPoolExecutor(50) as pool:
        tips = list(pool.map(push, range(50)))
        assert len(set(pool.map(fetch, range(50)))) == 1
        again = [
            pool.submit(work, number) for number in range(50) for work in (commit_and_push, fetch)
        ]
        tips += [future.result() for future in again[::2]]
        assert len({future.result() for future in again[1::2]}) == 1
    with hub.client(hub.key("judge")) as client:
        assert {child.hash for child in client.children(root)} == set(tips[:50])
        assert {leaf.hash for leaf in client.leaves()} == set(tips[50:])
    subprocess.run(["git", "fsck", "--full", "--strict"], cwd=hub.data / "repo.git", check=True)
    for tip in tips:
        subprocess.run(["git", "cat-file", "-e", tip], cwd=hub.data / "repo.git", check=True)
