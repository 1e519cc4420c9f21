"""`ah-worker doctor` as a real process against a real hub, with a torch of a few lines."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import CLAIM, HubProcess, WorkTree, ok
from test_worker import OK, PREPARE, write_files

from server import wire
from worker.doctor import Level, examine
from worker.settings import Settings

TORCH = """\
__version__ = "9.9"
class version:
    cuda, hip = "12.8", None
class cuda:
    is_available = staticmethod(lambda: GPUS > 0)
    device_count = staticmethod(lambda: GPUS)
"""


@dataclass
class Clinic:
    folder: Path
    hub: HubProcess
    key: str
    gpus: int = 0

    def examine(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Exit code, and the checks by name."""
        done = self.run("--json", *options)
        return done.returncode, {told["name"]: told for told in json.loads(done.stdout)}

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        where = [f"--{name}={self.folder / name}" for name in ("template", "data", "cache")]
        write_files(self.folder / "path", {"torch.py": f"GPUS = {self.gpus}\n{TORCH}"})
        env = {"PYTHONPATH": str(self.folder / "path"), "AGENTHUB_URL": self.hub.url}
        path = f"{self.folder / 'tools'}:{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, "-m", "worker", "doctor", "--sandbox=none", *where, *options],
            env={**os.environ, **env, "AGENTHUB_KEY": self.key, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    def add_gpu(self, torch_sees: int) -> None:
        """A machine with one H100, of which torch sees so many."""
        self.gpus = torch_sees
        script = "#!/bin/sh\ncase $* in *driver_version*) echo 570.1;; *index*) echo 0;;"
        write_files(
            self.folder / "tools",
            {"nvidia-smi": f"{script}\n*) echo 'NVIDIA H100 80GB HBM3, 81559';; esac\n"},
        )
        (self.folder / "tools" / "nvidia-smi").chmod(0o755)


@pytest.fixture
def clinic(tmp_path: Path, live_hub: HubProcess) -> Clinic:
    write_files(tmp_path / "template", {"train.py": OK, "prepare.py": PREPARE})
    key = live_hub.key(f"doctor-{tmp_path.name[:50].replace('_', '-')}", wire.Role.WORKER)
    return Clinic(tmp_path, live_hub, key)


def test_a_machine_that_can_work_passes_and_is_told_what_it_lacks(clinic: Clinic) -> None:
    code, told = clinic.examine()
    assert code == 0, told
    levels = {name: check["level"] for name, check in told.items()}
    warned = {name for name, level in levels.items() if level == "warn"}
    assert {"device", "sandbox", "data"} <= warned <= {"device", "sandbox", "data", "disk"}
    assert told["data"]["todo"] == "`ah-worker run` prepares it first"
    assert told["torch"]["said"] == "9.9, built for CUDA 12.8"
    assert told["clock"]["level"] == "ok"


def test_every_line_has_a_level_and_a_name(clinic: Clinic) -> None:
    lines = clinic.run("--gpus", "cpu").stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "FAIL") for line in lines)
    assert "warn  sandbox  none: strangers' code would run as you; see --sandbox" in lines


def test_a_gpu_is_named_with_its_driver(clinic: Clinic) -> None:
    clinic.add_gpu(torch_sees=1)
    code, told = clinic.examine("--gpus", "all")
    assert code == 0
    said = "cuda:0 is H100 (NVIDIA H100 80GB HBM3, 81559 MiB), driver 570.1"
    assert told["device"]["said"] == said


def test_a_torch_that_sees_no_gpu_fails(clinic: Clinic) -> None:
    clinic.add_gpu(torch_sees=0)
    code, told = clinic.examine("--gpus", "0")
    assert (code, told["torch"]["level"]) == (1, "FAIL")
    assert told["torch"]["said"] == "9.9, built for CUDA 12.8, sees no GPU"


def test_what_is_missing_fails_and_the_rest_is_still_looked_at(clinic: Clinic) -> None:
    clinic.hub = HubProcess(clinic.folder, url="http://127.0.0.1:9")
    (clinic.folder / "cache").write_text("in the way")
    code, told = clinic.examine("--gpus", "7")
    failed = {name for name, check in told.items() if check["level"] == "FAIL"}
    assert (code, failed) == (1, {"device", "cache", "hub"})
    assert all(told[name]["todo"] for name in failed)


def test_an_agent_s_key_and_a_wrong_one_fail(clinic: Clinic) -> None:
    clinic.key = clinic.hub.key("patient-agent")
    code, told = clinic.examine()
    assert (code, told["hub"]["level"]) == (1, "FAIL")
    assert "--role worker" in told["hub"]["todo"]
    clinic.key = "wrong"
    assert clinic.examine()[1]["hub"]["said"].startswith(f"{clinic.hub.url} refuses the key")


def test_data_other_than_the_hub_s_is_told(clinic: Clinic) -> None:
    (clinic.folder / "data").mkdir()
    (clinic.folder / "data" / "ready").touch()
    options = ("--platform", "clinic", "--budget", "20s", "--scoring", "inline")
    assert "the first of its kind here" in clinic.examine(*options)[1]["track"]["said"]
    claim = CLAIM.model_copy(update={"platform": "clinic"})
    with clinic.hub.client(clinic.key) as worker, clinic.hub.client(clinic.hub.key("pat")) as pat:
        work = WorkTree(clinic.folder / "work")
        work.commit("what is trained on other data")
        pat.push(work.bundle())
        run = worker.claim(claim)
        assert run is not None
        worker.finish(run.id, ok(run.fence, 2.0))
    told = clinic.examine(*options)[1]["track"]
    assert told["level"] == "warn"
    assert "is new to the hub, which has clinic/20s/ffffffff/inline" in told["said"]


def test_a_clock_that_is_wrong_is_told(clinic: Clinic) -> None:
    ahead = lambda: datetime.now(UTC) + timedelta(hours=1)  # noqa: E731
    told = {check.name: check for check in examine(settings(clinic), ["cpu"], ahead)}
    assert told["clock"].level is Level.WARN
    assert "ahead of the hub's" in told["clock"].said


def settings(clinic: Clinic) -> Settings:
    return Settings(
        hub=clinic.hub.url,
        key=clinic.key,
        device="auto",
        profile="auto",
        platform="auto",
        budget_seconds=None,
        grace_seconds=None,
        data=clinic.folder / "data",
        cache=clinic.folder / "cache",
        cache_bytes=10**9,
        template=clinic.folder / "template",
        python="no-such-python",
        max_runs=None,
        idle_exit_seconds=None,
        sandbox="none",
        scoring="inline",
        memory_bytes=None,
        prepare=False,
        log="text",
    )
