"""Background maintenance: what it keeps small, and that nobody ever notices it at work."""

import contextlib
import fcntl
import itertools
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import HubProcess, wait_for

from ah_cli.client import ApiError, HubClient, HubUnreachable
from bench.history import make_history, write_bundle

StartHub = Callable[..., HubProcess]
COMMITS = 160
LEFT_BY_A_KILLED_GIT = (
    "packed-refs.lock",
    "objects/pack/tmp_pack_left",
    "objects/pack/.tmp-1-pack-left.idx",
    "objects/info/commit-graphs/commit-graph-chain.lock",
)


@dataclass
class History:
    """Commits with their parents, oldest first, and a bundle of each for who has its parent."""

    repo: Path
    commits: list[tuple[str, str]]
    bundles: dict[str, Path]

    @property
    def leaves(self) -> set[str]:
        return {sha for sha, _ in self.commits} - {parent for _, parent in self.commits}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("history")
    commits = make_history(folder / "repo.git", COMMITS)
    bundles = {sha: folder / sha for sha, _ in commits}
    for sha, parent in commits:
        write_bundle(folder / "repo.git", sha, parent, bundles[sha])
    return History(folder / "repo.git", commits, bundles)


def git(repo: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=repo, capture_output=True, check=True)
    return done.stdout.decode()


def loose_objects(repo: Path) -> int:
    return len(list(repo.glob("objects/[0-9a-f][0-9a-f]/*")))


def maintain(hub: HubProcess) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "server", "maintain", "--data", str(hub.data)],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def check_all_is_there(hub: HubProcess, client: HubClient, commits: list[str], out: Path) -> None:
    """By the index, by C git, and by what the hub serves."""
    repo = hub.data / "repo.git"
    assert git(repo, "fsck", "--full", "--strict", "--no-dangling") == ""
    listed = {commit.hash for commit in client.commits(limit=1000)}
    assert set(commits) <= listed
    reachable = set(git(repo, "rev-list", "--all").split())
    assert set(commits) <= reachable
    for sha in commits[::40]:
        client.fetch(sha, out)
        git(repo, "bundle", "verify", str(out))


@contextlib.contextmanager
def hammering(read: Callable[[], None], threads: int = 2) -> Iterator[Callable[[], int]]:
    """Read again and again beside the block; the first failure is raised at its end."""
    is_over = threading.Event()
    counter = itertools.count()

    def work() -> None:
        while not is_over.is_set():
            read()
            next(counter)

    with ThreadPoolExecutor(threads) as pool:
        readers: list[Future[None]] = [pool.submit(work) for _ in range(threads)]
        try:
            yield lambda: int(repr(counter)[6:-1])
        finally:
            is_over.set()
        for reader in readers:
            reader.result()


def test_files_and_refs_stay_few_and_no_reader_misses_an_object(
    start_hub: StartHub, history: History, tmp_path: Path
) -> None:
    hub = start_hub("--pack-after", "30")
    repo = hub.data / "repo.git"
    key = hub.key("ada")
    pushed: list[tuple[str, str]] = []
    chance, names = random.Random(1), itertools.count()

    def read() -> None:
        if len(pushed) < 2:
            return
        sha, parent = chance.choice(pushed[1:])
        out = tmp_path / f"{next(names)}.bundle"
        with hub.client(key) as client:
            client.fetch(sha, out)
            diff = client.diff(parent, sha).decode()
        # The header names the blobs; which of several equal diffs is shown may differ.
        expected = git(history.repo, "diff", "--no-renames", "--abbrev=7", parent, sha)
        assert diff.splitlines()[:4] == expected.splitlines()[:4]
        assert len(diff) > 200
        git(history.repo, "bundle", "verify", str(out))
        out.unlink()
        copy = tmp_path / f"{next(names)}.git"
        url = hub.url.replace("://", f"://ada:{key}@") + "/repo.git"
        git(tmp_path, "clone", "--quiet", "--bare", url, str(copy))
        shutil.rmtree(copy)

    with hub.client(key) as client, hammering(read) as reads:
        for sha, parent in history.commits:
            client.push(history.bundles[sha])
            pushed.append((sha, parent))
        wait_for(lambda: loose_objects(repo) < 30 and reads() >= 20, "the last maintenance")
    assert len(list(repo.glob("objects/pack/*.pack"))) <= 8
    assert len(list(repo.glob("refs/agenthub/heads/*"))) <= 30
    maintain(hub)
    assert loose_objects(repo) == 0
    kept = git(repo, "for-each-ref", "--format=%(objectname)").split()
    assert set(kept) == history.leaves
    assert len(kept) == len(history.leaves)
    git(repo, "commit-graph", "verify")
    git(repo, "gc", "--quiet", "--prune=now")
    with hub.client(key) as client:
        check_all_is_there(hub, client, [sha for sha, _ in history.commits], tmp_path / "out")


class Pusher:
    """Pushes on and on, oldest first, through any number of hubs' lives."""

    def __init__(self, history: History, hub: HubProcess) -> None:
        self._history = history
        self._hub = hub
        self._key = hub.key("ada")
        #: Pushes that were acknowledged.
        self.done = 0

    def push_until_killed(self) -> None:
        with self._hub.client(self._key) as client, contextlib.suppress(HubUnreachable, ApiError):
            for sha, _ in self._history.commits[self.done :]:
                client.push(self._history.bundles[sha])
                self.done += 1


def test_kill_dash_nine_in_the_midst_of_maintenance_is_harmless(
    start_hub: StartHub, history: History, tmp_path: Path
) -> None:
    # With so low a limit there is hardly a moment without maintenance.
    hub = start_hub("--pack-after", "4")
    repo = hub.data / "repo.git"
    pusher = Pusher(history, hub)
    chance = random.Random(2)
    for _ in range(4):
        enough = pusher.done + chance.randint(15, 30)
        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(pusher.push_until_killed)
            wait_for(lambda enough=enough: pusher.done >= enough, "some pushes")
            hub.kill()
            pushing.result()
        for name in LEFT_BY_A_KILLED_GIT:
            (repo / name).write_bytes(b"half")
        hub.start()
    maintain(hub)
    assert loose_objects(repo) == 0
    assert not [name for name in LEFT_BY_A_KILLED_GIT if (repo / name).exists()]
    with hub.client(hub.key("judge")) as client:
        done = [sha for sha, _ in history.commits[: pusher.done]]
        check_all_is_there(hub, client, done, tmp_path / "out")
    pusher.push_until_killed()
    assert pusher.done == COMMITS


def test_operators_may_run_git_gc_and_maintain_beside_a_busy_hub(
    start_hub: StartHub, history: History, tmp_path: Path
) -> None:
    hub = start_hub("--pack-after", "30")
    repo = hub.data / "repo.git"

    def look_after() -> None:
        subprocess.run(["git", "gc", "--quiet"], cwd=repo, check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["git", "pack-refs", "--all"], cwd=repo, check=False)
        subprocess.run(
            [sys.executable, "-m", "server", "maintain", "--data", str(hub.data)],
            check=False,
            capture_output=True,
        )

    with hub.client(hub.key("ada")) as client:
        with hammering(look_after, threads=1):
            for sha, _ in history.commits:
                client.push(history.bundles[sha])
        maintain(hub)
        check_all_is_there(hub, client, [sha for sha, _ in history.commits], tmp_path / "out")
    assert loose_objects(repo) == 0


def test_maintain_says_what_it_did(start_hub: StartHub, history: History) -> None:
    hub = start_hub("--pack-after", "0")
    with hub.client(hub.key("ada")) as client:
        for sha, _ in history.commits[:20]:
            client.push(history.bundles[sha])
    loose = loose_objects(hub.data / "repo.git")
    assert loose >= 60
    assert re.match(
        rf"{loose} loose objects packed\n0 packs merged\n20 refs tidied\n", maintain(hub)
    )
    assert maintain(hub).startswith("0 loose objects packed\n0 packs merged\n0 refs tidied\n")


def test_no_object_moves_while_somebody_copies_the_repository(
    start_hub: StartHub, history: History
) -> None:
    hub = start_hub("--pack-after", "4")
    repo = hub.data / "repo.git"
    with hub.client(hub.key("ada")) as client:
        # As `flock data/repo.git/upkeep.lock cp -a ...` does.
        with (repo / "upkeep.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for sha, _ in history.commits[:20]:
                client.push(history.bundles[sha])
            assert loose_objects(repo) >= 60
        client.push(history.bundles[history.commits[20][0]])
        client.push(history.bundles[history.commits[21][0]])
        wait_for(lambda: loose_objects(repo) < 10, "the maintenance that was put off")


def test_a_stopping_hub_does_not_wait_for_its_maintenance(
    start_hub: StartHub, history: History
) -> None:
    hub = start_hub("--pack-after", "4")
    with hub.client(hub.key("ada")) as client:
        for sha, _ in history.commits[:40]:
            client.push(history.bundles[sha])
    process = hub.process
    assert process is not None
    process.terminate()
    assert process.wait(timeout=5) is not None


def test_a_hub_without_git_says_so_once_and_works(
    start_hub: StartHub,
    history: History,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    hub = start_hub("--pack-after", "4")
    with hub.client(hub.key("ada")) as client:
        for sha, parent in history.commits[:20]:
            client.push(history.bundles[sha])
            client.fetch(sha, tmp_path / "out")
            assert not parent or client.diff(parent, sha)
    assert loose_objects(hub.data / "repo.git") >= 60
    hub.stop()
    assert capfd.readouterr().err.count("stay loose files") == 1
