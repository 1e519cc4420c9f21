"""The demo, end to end: real processes, real training, real scores."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_for

from demo.__main__ import uninterrupted

pytest.importorskip("torch")


def start(home: Path, *flags: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "demo", "--home", str(home), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_one_round_measures_different_scores_and_ends_well(tmp_path: Path) -> None:
    demo = start(tmp_path, "--rounds", "1", "--budget", "4")
    output, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, output
    assert "3 experiments" in output
    assert not alive(tmp_path)


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    demo = start(tmp_path, "--budget", "60")
    wait_for(lambda: (tmp_path / "last" / "worker.log").exists(), "the worker to start", 120)
    wait_for(lambda: len(alive(tmp_path)) >= 4, "hub, worker and two agents")
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=60)
    # Python also ends by the signal itself, which shells show as 130 too: when Ctrl-C comes
    # while it executes a string, as dataclasses do.
    assert demo.returncode in (130, -signal.SIGINT), output
    assert not alive(tmp_path)


def test_a_process_that_starts_as_ctrl_c_comes_is_ended_too() -> None:
    noted = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        noted.append("started")
    assert noted
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def alive(home: Path) -> list[str]:
    """Command lines of processes that work in this demo's directory."""
    mine = str(os.getpid())
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(home) in line and process.name != mine and "-m demo --home" not in line:
            found.append(line)
    return found
