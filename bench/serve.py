"""A hub process to be measured."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ah_cli.client import HubClient

ADMIN_KEY = "the-admin-key-of-the-bench"
_QUOTAS = ("pushes", "posts", "diffs", "registrations")


@dataclass(frozen=True, slots=True)
class Process:
    url: str
    pid: int
    #: Seconds from the start of the process until it listens.
    startup: float


@contextmanager
def run_hub(data: Path, *flags: str) -> Iterator[Process]:
    """`agenthub serve` without quotas."""
    quotas = [flag for kind in _QUOTAS for flag in (f"--max-{kind}-per-hour", "0")]
    where = ["--listen", "127.0.0.1:0", "--data", str(data)]
    env = {**os.environ, "AGENTHUB_ADMIN_KEY": ADMIN_KEY}
    with start([sys.executable, "-m", "server", "serve", *quotas, *where, *flags], env) as hub:
        yield hub


@contextmanager
def serve_hub(data: Path, *flags: str) -> Iterator[HubClient]:
    """`agenthub serve` without quotas, and a client with its admin key."""
    with run_hub(data, *flags) as hub, HubClient(hub.url, ADMIN_KEY) as admin:
        yield admin


@contextmanager
def start(command: list[str], env: dict[str, str] | None = None) -> Iterator[Process]:
    """A process that says `… listens on URL`, ended afterwards."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**(env or os.environ), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        greeting = next(line for line in process.stdout if "listens on" in line)
        url = greeting.split("listens on ")[1].split()[0]
        yield Process(url, process.pid, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()
