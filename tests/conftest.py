"""Fixtures: a hub in process with a clock moved by hand, hubs as real processes, git work trees.

`hub` is for most tests; `start_hub` and `live_hub` are for those about processes, sockets and
crashes. Nothing here sleeps: helpers wait for a condition with a deadline.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from browser import browse, chromium  # noqa: F401 - fixtures
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ah_cli.client import HubClient
from server import wire
from server.app import create_app
from server.db import Database
from server.settings import Registration, Settings

#: What workers are tried with; one of them is named like a test.
collect_ignore = ["exploits", "honest"]

ADMIN_KEY = "the-admin-key-of-the-tests"
DEADLINE_SECONDS = 30.0
T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """Look until the answer is true, and return it; fail the test when that takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {seconds} s in vain for {what}")


def listing(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def uploads(data: Path) -> list[Path]:
    """Bodies of pushes that a hub holds on disk."""
    files = (path for path in (data / "incoming").rglob("*") if path.is_file())
    return [path for path in files if path.name != "lock"]


# In process -------------------------------------------------------------------------------------


@dataclass
class Clock:
    """The hub's time; moves only when a test says so."""

    moment: datetime = datetime(2026, 3, 9, 19, 29, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


@dataclass
class Hub:
    """A hub in this process: a fresh SQLite file, a fresh bare repo, real routes."""

    app: FastAPI
    clock: Clock
    data: Path
    _names: dict[str, str] = field(default_factory=dict)

    def client(self, key: str = "") -> HubClient:
        # A hub's bug becomes a 500 here as on the wire, instead of an exception in the test.
        http = TestClient(self.app, raise_server_exceptions=False)
        return HubClient("http://testserver", key, http)

    def key(self, name: str, role: wire.Role = wire.Role.AGENT) -> str:
        """The API key of `name`, registered on first use."""
        if name not in self._names:
            self._names[name] = self.client(ADMIN_KEY).create_agent(name, role).api_key
        return self._names[name]

    def agent(self, name: str = "ada") -> HubClient:
        return self.client(self.key(name))

    def worker(self, name: str = "gpu1") -> HubClient:
        return self.client(self.key(name, wire.Role.WORKER))

    def http(self, name: str | None = "ada", key: str | None = None) -> TestClient:
        """Plain HTTP as `name`, or as nobody: for answers a typed client would hide."""
        key = key or (self.key(name) if name else None)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that went through all migrations; doing them costs more than most tests."""
    settings = Settings(data=tmp_path_factory.mktemp("empty"), admin_key=ADMIN_KEY)
    db = Database(settings.database_url)
    db.migrate()
    db.close()
    return settings.data / "hub.db"


@pytest.fixture
def make_hub(tmp_path: Path, clock: Clock, empty_database: Path) -> Callable[..., Hub]:
    """Open a hub with the given settings; called again, it reopens the same data."""

    def make(**changes: object) -> Hub:
        data = tmp_path / "data"
        if not data.exists():
            data.mkdir()
            shutil.copy(empty_database, data)
        settings = Settings(data=data, admin_key=ADMIN_KEY, **changes)  # type: ignore[arg-type]
        return Hub(create_app(settings, clock), clock, data)

    return make


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(registration=Registration.OPEN)


# Processes --------------------------------------------------------------------------------------


@dataclass
class HubProcess:
    """`agenthub serve` as a real process that can be killed and started again on its data."""

    data: Path
    flags: tuple[str, ...] = ()
    url: str = ""
    #: Given to the hub; empty lets it make its own.
    admin_key: str = ADMIN_KEY
    #: What it printed up to the line that names its URL.
    greeting: str = ""
    process: subprocess.Popen[str] | None = None
    #: What Python is told to run.
    program: tuple[str, ...] = ("-m", "server")

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        where = ("--data", str(self.data), "--listen", f"127.0.0.1:{port}")
        self.process = subprocess.Popen(
            [sys.executable, *self.program, "serve", *where, *self.flags],
            env={**os.environ, "AGENTHUB_ADMIN_KEY": self.admin_key, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.greeting = ""
        for line in self.process.stdout:
            self.greeting += line
            if "listens on" in line:
                self.url = line.split("listens on ")[1].split()[0]
                break
        with self.client() as client:
            wait_for(lambda: _answers(client), "the hub to answer")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=DEADLINE_SECONDS)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def client(self, key: str = "") -> HubClient:
        return HubClient(self.url, key)

    def key(self, name: str, role: wire.Role = wire.Role.AGENT) -> str:
        """Register `name` and return its API key."""
        with self.client(self.admin_key) as admin:
            return admin.create_agent(name, role).api_key


def _answers(client: HubClient) -> bool:
    try:
        client.health()
    except Exception:  # noqa: BLE001 - any failure means "not yet"
        return False
    return True


NO_QUOTAS = tuple(
    flag
    for kind in ("pushes", "posts", "diffs", "registrations")
    for flag in (f"--max-{kind}-per-hour", "0")
)


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Start hub processes of this test's own; they end with it."""
    started: list[HubProcess] = []

    def start(*flags: str, admin_key: str = ADMIN_KEY) -> HubProcess:
        data = tmp_path / f"hub{len(started)}"
        hub = HubProcess(data, (*NO_QUOTAS, *flags), admin_key=admin_key)
        hub.start()
        started.append(hub)
        return hub

    yield start
    for hub in started:
        hub.kill()


@pytest.fixture(scope="session")
def live_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub process shared by all tests: use names of your own, and don't kill it."""
    hub = HubProcess(tmp_path_factory.mktemp("hub"), (*NO_QUOTAS, "--registration", "open"))
    hub.start()
    yield hub
    hub.kill()


# Git --------------------------------------------------------------------------------------------


@dataclass
class WorkTree:
    """A real clone of an agent's: commits and bundles made by C git."""

    path: Path

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *args: str, **env: str) -> str:
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))
        }
        done = subprocess.run(
            ["git", *args],
            cwd=self.path,
            env={**os.environ, **identity, **env},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode(errors="replace").strip()

    def commit(self, message: str = "a commit", **files: str) -> str:
        """Write the files (`train_py` is `train.py`), commit everything, return the hash."""
        for name, text in (files or {"train_py": f"# {message}\n"}).items():
            (self.path / name.replace("_py", ".py")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def bundle(self, *revisions: str) -> Path:
        """A bundle file of the revisions, HEAD by default."""
        out = self.path.with_name(f"{self.path.name}.bundle")
        self.git("bundle", "create", "--quiet", str(out), *(revisions or ("HEAD",)))
        return out


@pytest.fixture
def make_work_tree(tmp_path: Path) -> Callable[[str], WorkTree]:
    return lambda name: WorkTree(tmp_path / name)


@pytest.fixture
def work_tree(make_work_tree: Callable[[str], WorkTree]) -> WorkTree:
    return make_work_tree("work")


# Workers ----------------------------------------------------------------------------------------

#: What a test's worker offers when the details don't matter.
CLAIM = wire.Claim(platform="cpu", budget_seconds=20, data_fingerprint="f" * 64, scoring="inline")


def ok(fence: int, val_bpb: float, **more: object) -> wire.ResultCreate:
    """A good result."""
    return wire.ResultCreate(fence=fence, outcome=wire.Outcome.OK, val_bpb=val_bpb, **more)  # type: ignore[arg-type]
