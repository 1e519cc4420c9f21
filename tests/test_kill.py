"""kill -9 at random moments under load: what was acknowledged is there, whole, at once."""

import fcntl
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

import pytest
from conftest import HubProcess, uploads
from forge import Forge

from ah_cli.client import HubUnreachable

PUSHERS = 3
RESTART_SECONDS = 2.0
#: From one commit as loose objects to a pack of its own.
FILES_OF_A_PUSH = (1, 1, 1, 3, 130)


@cache
def has_command(*words: str) -> bool:
    """Whether this hub's operator has the command or the flag."""
    *command, word = words
    help_text = subprocess.run(
        [sys.executable, "-m", "server", *command, "--help"], capture_output=True, text=True
    ).stdout
    return f" {word} " in help_text


@dataclass
class Shared:
    """What the hub has acknowledged, as the threads of the load know it."""

    acknowledged: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def until_killed(self) -> Iterator[None]:
        """A hub that is gone ends a thread's work; anything else is a fault of the hub."""
        try:
            yield
        except HubUnreachable:
            pass
        except Exception as error:  # noqa: BLE001 - told to the test
            self.faults.append(repr(error))


@dataclass
class Pusher:
    """Grows a line of commits, one push each, now and then a merge of somebody else's."""

    hub: HubProcess
    key: str
    folder: Path
    dice: random.Random
    shared: Shared
    tip: str = ""
    pending: tuple[str, Path] | None = None
    made: int = 0

    def run(self) -> None:
        with self.hub.client(self.key) as client, self.shared.until_killed():
            while not self.shared.stop.is_set():
                # What was not acknowledged before the kill comes again, exactly as it was.
                tip, bundle = self.pending = self.pending or self.make()
                assert client.push(bundle).hashes == [tip]
                self.pending, self.tip = None, tip
                self.shared.acknowledged.append(tip)
                bundle.unlink()

    def make(self) -> tuple[str, Path]:
        self.folder.mkdir(exist_ok=True)
        forge, dice = Forge(self.folder), self.dice
        self.made += 1
        count = dice.choice(FILES_OF_A_PUSH)
        # Blobs that others push too, at the same time.
        names = sorted(b"f%d" % number for number in range(count))
        files = [(b"100644", name, forge.blob(name + b" %d" % (self.made % 50))) for name in names]
        own = forge.blob(b"%s %d" % (self.key.encode(), self.made))
        tree = forge.tree(*files, (b"100644", b"own", own))
        parents = [self.tip] if self.tip else []
        if self.shared.acknowledged and dice.random() < 0.2:
            parents.append(dice.choice(self.shared.acknowledged))
        parents = list(dict.fromkeys(parents))
        tip = forge.commit(tree, *parents, tail=b"\n%s %d\n" % (self.key.encode(), self.made))
        return tip, forge.bundle(tip, prerequisites=parents)


def fetch(hub: HubProcess, key: str, shared: Shared, out: Path) -> None:
    dice = random.Random(1)
    with hub.client(key) as client, shared.until_killed():
        while not shared.stop.is_set():
            if shared.acknowledged:
                client.fetch(dice.choice(shared.acknowledged), out)
            else:
                client.commits(limit=5)


@dataclass
class Siege:
    """A hub and those who work on it while it is killed again and again."""

    hub: HubProcess
    pushers: list[Pusher]
    shared: Shared
    out: Path

    def load_and_kill(self, seconds: float) -> None:
        self.shared.stop.clear()
        key = self.pushers[0].key
        work: list[Callable[[], None]] = [pusher.run for pusher in self.pushers]
        work.append(lambda: fetch(self.hub, key, self.shared, self.out))
        threads = [threading.Thread(target=each) for each in work]
        for thread in threads:
            thread.start()
        self.shared.stop.wait(seconds)
        self.hub.kill()
        self.shared.stop.set()
        for thread in threads:
            thread.join()

    def check(self) -> None:
        assert self.shared.faults == []
        data = self.hub.data
        # The hub is up again and packs: a git that reads all packs must not see one go.
        with (data / "repo.git" / "upkeep.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert git(data, "fsck", "--full", "--strict", "--no-dangling") == ""
        with closing(sqlite3.connect(data / "hub.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []
            check_index(data, database, set(self.shared.acknowledged))
        assert not uploads(data)
        left = [path.name for path in (data / "repo.git" / "quarantine").glob("*/*")]
        assert left == ["lock"]
        if has_command("fsck"):
            command = [sys.executable, "-m", "server", "fsck", "--data", str(data)]
            subprocess.run(command, check=True)


def check_index(data: Path, database: sqlite3.Connection, acknowledged: set[str]) -> None:
    """Every row agrees with git, and every acknowledged commit has one."""
    rows = {
        sha: [tree, *parents.split()]
        for sha, tree, parents in database.execute(
            "SELECT c.hash, c.tree, coalesce((SELECT group_concat(hash, ' ') FROM (SELECT q.hash "
            "FROM commit_parents p JOIN commits q ON q.seq = p.parent WHERE p.child = c.seq "
            "ORDER BY p.position)), '') FROM commits c"
        )
    }
    assert acknowledged <= rows.keys()
    shown = git(data, "log", "--no-walk=unsorted", "--format=%H %T %P", "--stdin", lines=rows)
    assert {line.split()[0]: line.split()[1:] for line in shown.splitlines()} == rows
    counts = database.execute(
        "SELECT count(*) FROM commits c WHERE child_count != (SELECT count(DISTINCT child) FROM "
        "commit_parents p WHERE p.parent = c.seq)"
    )
    assert counts.fetchall() == [(0,)]


def git(data: Path, *args: str, lines: Iterable[str] = ()) -> str:
    done = subprocess.run(
        ["git", *args],
        cwd=data / "repo.git",
        input="\n".join([*lines, ""]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def besiege(hub: HubProcess, seed: int, scratch: Path) -> Siege:
    shared = Shared()
    pushers = [
        Pusher(
            hub,
            hub.key(f"p{number}"),
            scratch / f"p{number}",
            random.Random(f"{seed} {number}"),
            shared,
        )
        for number in range(PUSHERS)
    ]
    return Siege(hub, pushers, shared, scratch / "fetched")


def start(hub: HubProcess) -> float:
    """How long a hub takes from nothing to its first answer, in seconds."""
    started = time.monotonic()
    hub.start()
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(0, 5), *(pytest.param(number, 20, marks=pytest.mark.stress) for number in range(1, 10))],
)
def test_kills_under_load_lose_nothing_that_was_acknowledged(
    start_hub: Callable[..., HubProcess], tmp_path: Path, seed: int, kills: int
) -> None:
    # Small, so that the hub's own maintenance runs all the time.
    hub = start_hub("--pack-after", "20")
    siege = besiege(hub, seed, tmp_path)
    dice = random.Random(seed)
    restarts: list[float] = []
    for _ in range(kills):
        siege.load_and_kill(dice.uniform(0.02, 1.2))
        restarts.append(start(hub))
        siege.check()
    print(
        f"{len(siege.shared.acknowledged)} pushes, restarts in {median(restarts):.2f} s, "
        f"at most {max(restarts):.2f} s, {git(hub.data, 'count-objects', '-v').split()}"
    )
    assert len(siege.shared.acknowledged) > kills
    # On a busy machine an empty hub is as slow.
    empty = start_hub()
    empty.kill()
    assert median(restarts) < max(RESTART_SECONDS, 2 * start(empty))
