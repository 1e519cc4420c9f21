"""The worker as a real process against a real hub, with trainers of a few lines."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import NO_QUOTAS, HubProcess, WorkTree, ok, wait_for
from rich.console import Console
from sandboxed import bubblewrap_runs

from ah_cli.client import ApiError, HubClient
from server import wire
from server.wire import Outcome, RunState
from worker.device import platform_name
from worker.fleet_view import draw
from worker.member import Member
from worker.settings import OWN_TEMPLATE

PREPARE = """\
import hashlib, pathlib, sys
data = pathlib.Path(sys.argv[sys.argv.index("--data") + 1]) if "--data" in sys.argv else None
if data and "--fingerprint" not in sys.argv:
    data.mkdir(parents=True, exist_ok=True)
    (data / "ready").touch()
elif data and not (data / "ready").exists():
    sys.exit("error: the data is not prepared")
elif data:
    print(hashlib.sha256(str(data).encode()).hexdigest())
SCORE = 1.5
"""

OK = """\
import prepare
print("1,024 tokens per step")
print("step 00003 (50.0%) | loss: 4.5 | dt: 9ms | tok/s: 13,562 | remaining: 1s", flush=True)
print(f"---\\nval_bpb:          {prepare.SCORE:.6f}")
print("mfu_percent:      unknown\\ndepth:            2")
"""

#: Tells its process id and one step, then stays until TRAIN_DATA/go appears, and scores.
STAYS = """\
import os, pathlib, time
data = pathlib.Path(os.environ["TRAIN_DATA"])
(data / "pids.tmp").write_text(f"{os.getpid()}")
(data / "pids.tmp").replace(data / "pids")
print("step 00003 (50.0%) | loss: 4.5 | dt: 9ms | tok/s: 13,562 | remaining: 1s", flush=True)
while not (data / "go").exists():
    time.sleep(0.02)
print("---\\nval_bpb: 1.25")
"""

#: Starts a daemon that leaves its process group, then stays for ever and is deaf to SIGTERM.
DEAF = """\
import os, pathlib, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_DFL)
daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
same_group = subprocess.Popen(["sleep", "600"])
data = pathlib.Path(os.environ["TRAIN_DATA"])
(data / "pids.tmp").write_text(f"{os.getpid()} {daemon.pid} {same_group.pid}")
(data / "pids.tmp").replace(data / "pids")
time.sleep(600)
"""

LOSES_THE_DATA = """\
import os, pathlib
pathlib.Path(os.environ["TRAIN_DATA"], "ready").unlink(missing_ok=True)
1 / 0
"""

CHEAT = "SCORE = 0.1\n"

#: Commits of one batch: what their files are, by name.
BATCH: dict[str, dict[str, str]] = {
    "ok": {"train.py": OK},
    "crash": {"train.py": "print('so far')\n1 / 0\n"},
    "oom": {"train.py": "raise MemoryError('CUDA out of memory. Tried to allocate 2 GiB')\n"},
    "killed": {"train.py": "import os\nos.kill(os.getpid(), 9)\n"},
    "fail": {"train.py": "import sys\nprint('FAIL: loss is nan at step 7')\nsys.exit(1)\n"},
    "nan": {"train.py": "print('---\\nval_bpb: nan')\n"},
    "silent": {"train.py": "print('val_bpb: 0.5')\n"},
    "zero": {"train.py": "print('---\\nval_bpb: 0.000000')\n"},
    "flood": {"train.py": "for _ in range(500):\n    print('x' * 65536, end='')\nprint()\n" + OK},
    "colours": {
        "train.py": "print('\\x1b[31mred\\x1b[0m \\x07bell \\u202eback \\x00nul')\n1 / 0\n"
    },
    "environment": {"train.py": "import json, os\nprint(json.dumps(dict(os.environ)))\n" + OK},
    "daemon": {
        "train.py": "import subprocess\n"
        "daemon = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print('pid', daemon.pid)\n" + OK
    },
    "locked": {"train.py": "import os\nos.makedirs('a/b')\nos.chmod('a', 0)\n" + OK},
    "edited prepare": {"train.py": OK, "prepare.py": CHEAT},
    "package prepare": {"train.py": OK, "prepare/__init__.py": CHEAT},
    "compiled prepare": {"train.py": OK, "__pycache__/prepare.cpython-311.pyc": "?"},
    "linked prepare": {
        "train.py": "print(open('victim.py').read())\n" + OK,
        "prepare.py": "-> victim.py",
        "victim.py": CHEAT,
    },
    "no train": {"readme": "nothing"},
    "linked train": {"train.py": "-> other.py", "other.py": OK},
    "big train": {"train.py": "#" * (128 * 1024 + 1)},
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write files; `-> X` makes a link to X."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass
class Worker:
    """One `ah-worker run` process with a template, data and cache folder of its own."""

    folder: Path
    hub: HubProcess
    key: str
    template: Path
    process: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def start(self, *options: str, sandbox: str | None = "none") -> "Worker":
        where = ("--template", self.template, "--data", self.data, "--cache", self.cache)
        chosen = ("--sandbox", sandbox) if sandbox else ()
        hub = {"AGENTHUB_URL": self.hub.url, "AGENTHUB_KEY": self.key}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run", "--device", "cpu", *where, *chosen]
                + ["--scoring", "inline", *options],
                env={**os.environ, **hub, **self.env},
                stdout=out,
                stderr=err,
            )
        return self

    def wait(self, seconds: float = 50) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def pids(self) -> list[int]:
        """What the running trainer wrote down: itself and its children."""
        path = self.data / "pids"
        wait_for(path.exists, f"the trainer to start; the worker said {self.err}")
        return [int(pid) for pid in path.read_text().split()]


@dataclass
class Bench:
    """A hub with one agent and one worker; every worker process has a track of its own."""

    folder: Path
    hub: HubProcess
    agent: HubClient
    key: str
    workers: list[Worker] = field(default_factory=list)
    pushed: int = 0

    @classmethod
    def open(cls, folder: Path, hub: HubProcess) -> "Bench":
        template = folder / "template"
        write_files(template, {"train.py": OK, "prepare.py": PREPARE, "program.md": "go\n"})
        agent = hub.client(hub.key("ada"))
        return cls(folder, hub, agent, hub.key("gpu1", wire.Role.WORKER))

    def push(self, *trees: dict[str, str]) -> list[str]:
        """Push root commits of these files, all in one bundle."""
        work = WorkTree(self.folder / f"tree{self.pushed}")
        hashes = []
        for files in trees:
            self.pushed += 1
            work.git("switch", "--quiet", "--orphan", f"b{self.pushed}")
            write_files(work.path, files)
            hashes.append(work.commit(f"commit {self.pushed}", note=str(self.pushed)))
        self.agent.push(work.bundle("--branches"))
        return hashes

    def request(self, train: str) -> wire.Run:
        """Push a commit and queue a run of it, which goes before all leaves."""
        (hash,) = self.push({"train.py": train})
        return self.agent.request_runs(hash, wire.RunRequest())[0]

    def worker(self) -> Worker:
        name = f"worker{len(self.workers)}"
        worker = Worker(self.folder / name, self.hub, self.key, self.folder / "template")
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        self.agent.close()
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("worker")
    hub = HubProcess(folder / "hub", (*NO_QUOTAS, "--lease-seconds", "2"))
    hub.start()
    bench = Bench.open(folder, hub)
    yield bench
    bench.close()
    hub.kill()


@pytest.fixture
def own_bench(tmp_path: Path, start_hub: Callable[..., HubProcess]) -> Iterator[Bench]:
    """A bench whose hub a test may kill, and whose queue is empty."""
    bench = Bench.open(tmp_path, start_hub("--lease-seconds", "2"))
    yield bench
    bench.close()


# One worker, many commits -----------------------------------------------------------------------


@dataclass
class Batch:
    worker: Worker
    code: int
    results: dict[str, wire.Result]
    logs: dict[str, str]
    torch_imported: Path


@pytest.fixture(scope="module")
def batch(bench: Bench) -> Batch:
    """Every commit of BATCH, trained by one worker."""
    imported = bench.folder / "torch-imported"
    write_files(bench.folder / "path", {"torch.py": f"open({str(imported)!r}, 'w')\n"})
    hashes = dict(zip(BATCH, bench.push(*BATCH.values()), strict=True))
    worker = bench.worker()
    worker.env["PYTHONPATH"] = str(bench.folder / "path")
    code = worker.start("--max-runs", str(len(BATCH)), "--budget", "1").wait()
    found = {result.commit: result for result in bench.agent.results(limit=100)}
    results = {name: found[hash] for name, hash in hashes.items() if hash in found}
    logs = {name: bench.agent.run_log(result.run_id or 0) for name, result in results.items()}
    return Batch(worker, code, results, logs, imported)


def test_max_runs_ends_the_worker_after_so_many_runs(batch: Batch) -> None:
    assert (batch.code, len(batch.results)) == (0, len(BATCH)), batch.worker.err
    assert len(batch.worker.out.splitlines()) == len(BATCH)


def test_a_good_run_is_measured(batch: Batch) -> None:
    result = batch.results["ok"]
    assert (result.outcome, result.val_bpb) == (Outcome.OK, 1.5)
    assert (result.source, result.worker_id) == (wire.Source.MEASURED, "gpu1")
    assert result.metrics["depth"] == 2
    assert result.metrics["sandbox"] == "none"
    assert "mfu_percent" not in result.metrics


def test_the_outcome_is_one_line_on_standard_output(batch: Batch) -> None:
    line = batch.worker.out.splitlines()[0]
    assert re.fullmatch(r"run \d+  [0-9a-f]{12}  ok  val_bpb 1\.5000  in \d+\.\d s", line)


@pytest.mark.parametrize(
    ("name", "outcome", "description"),
    [
        ("crash", Outcome.CRASH, "ZeroDivisionError: division by zero"),
        ("oom", Outcome.OOM, "MemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        ("killed", Outcome.OOM, "killed by the system (SIGKILL), most likely out of memory"),
        ("fail", Outcome.NAN, "FAIL: loss is nan at step 7"),
        ("nan", Outcome.NAN, "val_bpb is nan"),
        ("silent", Outcome.CRASH, "ended without a summary: no val_bpb after a line `---`"),
        ("zero", Outcome.CRASH, "val_bpb of 0.0 is no possible score"),
        ("no train", Outcome.INVALID, "there is no train.py"),
        ("linked train", Outcome.INVALID, "train.py is not a plain file"),
        ("big train", Outcome.INVALID, "train.py has 131073 bytes, more than 131072"),
    ],
)
def test_outcomes_are_told_apart(
    batch: Batch, name: str, outcome: Outcome, description: str
) -> None:
    result = batch.results[name]
    assert (result.outcome, result.description) == (outcome, description)
    assert result.val_bpb is None


def test_the_log_of_a_crash_holds_its_traceback(batch: Batch) -> None:
    assert batch.logs["crash"].startswith("so far\nTraceback (most recent call last):\n")


def test_a_flood_of_output_is_cut_to_its_tail(batch: Batch) -> None:
    assert batch.results["flood"].outcome is Outcome.OK
    assert len(batch.logs["flood"]) == 12_000
    assert batch.logs["flood"].endswith("depth:            2\n")


def test_control_characters_do_not_reach_the_log(batch: Batch) -> None:
    assert batch.logs["colours"].startswith("red bell back nul\n")


@pytest.mark.parametrize(
    "name", ["edited prepare", "package prepare", "compiled prepare", "linked prepare"]
)
def test_prepare_is_the_trusted_one_whatever_the_commit_ships(batch: Batch, name: str) -> None:
    assert batch.results[name].val_bpb == 1.5, batch.logs[name]


def test_restoring_a_file_does_not_write_through_a_link(batch: Batch) -> None:
    assert batch.logs["linked prepare"].startswith(CHEAT)


def test_a_trainer_sees_no_key_and_no_home_of_ours(batch: Batch) -> None:
    env = json.loads(batch.logs["environment"].splitlines()[0])
    assert batch.worker.key not in batch.logs["environment"]
    assert not [name for name in env if name.startswith("AGENTHUB")]
    assert env["HOME"].startswith(str(batch.worker.cache))
    assert not Path(env["HOME"]).exists()


def test_a_trainer_is_told_what_to_train_with(batch: Batch) -> None:
    env = json.loads(batch.logs["environment"].splitlines()[0])
    told = {name: value for name, value in env.items() if name.startswith("TRAIN_")}
    assert told == {
        "TRAIN_PROFILE": "cpu",
        "TRAIN_DEVICE": "cpu",
        "TRAIN_BUDGET": "1s",
        "TRAIN_SEED": "42",
        "TRAIN_DATA": str(batch.worker.data),
    }


def test_a_daemon_does_not_outlive_its_run(batch: Batch) -> None:
    assert batch.results["daemon"].outcome is Outcome.OK
    assert not is_alive(int(batch.logs["daemon"].split()[1]))


def test_no_workspace_is_left(batch: Batch) -> None:
    assert list((batch.worker.cache / "live").iterdir()) == []


def test_the_worker_itself_never_imports_torch(batch: Batch) -> None:
    assert not batch.torch_imported.exists()


# One worker, one run ----------------------------------------------------------------------------


def test_a_timeout_kills_the_trainer_and_all_it_started(bench: Bench) -> None:
    run = bench.request(DEAF)
    worker = bench.worker().start("--once", "--budget", "1", "--grace", "1")
    assert worker.wait() == 0
    assert bench.agent.run(run.id).outcome is Outcome.TIMEOUT
    assert [is_alive(pid) for pid in worker.pids()] == [False] * 3


def test_heartbeats_carry_the_last_progress_line(bench: Bench) -> None:
    run = bench.request(STAYS)
    worker = bench.worker().start("--once")
    wait_for(lambda: bench.agent.run(run.id).step, "a heartbeat with a step")
    told = bench.agent.run(run.id)
    assert (told.step, told.progress, told.loss) == (3, 0.5, 4.5)
    (worker.data / "go").touch()
    assert worker.wait() == 0


def test_once_ends_the_worker_after_one_run(bench: Bench) -> None:
    bench.push({"train.py": OK}, {"train.py": OK})
    worker = bench.worker().start("--once")
    assert (worker.wait(), len(worker.out.splitlines())) == (0, 1)


def test_json_log_is_one_object_per_line(bench: Bench) -> None:
    run = bench.request(OK)
    worker = bench.worker().start("--once", "--log", "json")
    assert worker.wait() == 0
    told = json.loads(worker.out)
    assert (told["run"], told["outcome"], told["val_bpb"]) == (run.id, "ok", 1.5)
    events = [json.loads(line)["event"] for line in worker.err.splitlines()]
    assert [event for event in events if event != "note"] == ["ready", "claimed"]


def test_sigterm_gives_the_run_back_uncounted(bench: Bench) -> None:
    run = bench.request(STAYS)
    worker = bench.worker().start()
    (trainer,) = worker.pids()
    asked_at = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - asked_at < 10
    assert not is_alive(trainer)
    released = bench.agent.run(run.id)
    assert (released.state, released.attempt, released.failure) == (RunState.QUEUED, 0, "drain")


def test_an_idle_worker_drains_too(bench: Bench) -> None:
    worker = bench.worker().start("--hub", "http://127.0.0.1:9")
    wait_for(lambda: "trying again" in worker.err, "the hub to be missed")
    worker.signal(signal.SIGINT)
    assert worker.wait(10) == 0


def test_preparing_data_is_cut_off_by_a_drain(bench: Bench) -> None:
    worker = bench.worker()
    worker.template = bench.folder / "slow"
    slow = "import sys, time\nif '--fingerprint' in sys.argv: sys.exit(1)\ntime.sleep(600)\n"
    write_files(worker.template, {"train.py": OK, "prepare.py": slow})
    worker.start()
    wait_for(lambda: "preparing it now" in worker.err, "the preparation")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_a_second_signal_ends_worker_and_trainer_at_once(own_bench: Bench) -> None:
    own_bench.request(STAYS)
    worker = own_bench.worker().start()
    (trainer,) = worker.pids()
    own_bench.hub.kill()
    worker.signal(signal.SIGTERM)
    wait_for(lambda: "drain" in worker.err, "the drain")
    worker.signal(signal.SIGTERM)
    assert worker.wait(2) == 128 + signal.SIGTERM
    wait_for(lambda: not is_alive(trainer), "the trainer's end")


def test_killing_the_worker_kills_the_trainer_and_all_it_started(bench: Bench) -> None:
    bench.request(DEAF)
    worker = bench.worker().start()
    pids = worker.pids()
    worker.signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the trainer and its children")


def test_a_starting_worker_sweeps_after_dead_ones_only(bench: Bench) -> None:
    first, second, third = (bench.worker() for _ in range(3))
    second.folder = third.folder = first.folder
    bench.request(STAYS)
    first.start()
    first.pids()
    first.signal(signal.SIGKILL)
    first.wait()
    (first.data / "pids").unlink()
    bench.request(STAYS)
    second.start()
    second.pids()
    left = list((first.cache / "live").iterdir())
    assert len(left) == 1
    third.folder = first.folder / "third"
    # The second one gave the first one's run back and took it, so one is left.
    third.data.mkdir(parents=True)
    write_files(third.data, {"go": "", "ready": ""})
    third.start("--cache", str(first.cache), "--once")
    assert third.wait() == 0
    assert list((first.cache / "live").iterdir()) == left


def test_a_restarted_worker_gives_the_run_of_its_dead_self_back_at_once(
    tmp_path: Path, start_hub: Callable[..., HubProcess]
) -> None:
    bench = Bench.open(tmp_path, start_hub("--lease-seconds", "600"))
    run = bench.request(STAYS)
    worker = bench.worker().start()
    worker.pids()
    worker.signal(signal.SIGKILL)
    worker.wait()
    (worker.data / "go").touch()
    assert worker.start("--once").wait() == 0
    assert f"run {run.id} of a worker that died goes back to the queue" in worker.err
    again = bench.agent.run(run.id)
    assert (again.attempt, again.val_bpb) == (2, 1.25)
    bench.close()


def test_the_mirror_keeps_to_its_size_and_to_what_was_used_last(own_bench: Bench) -> None:
    worker = own_bench.worker()
    hashes = []
    for number in range(5):
        noise = random.Random(number).randbytes(250_000).hex()  # Packed, some 285 kB.
        hashes += own_bench.push({"train.py": OK + f"# {number}\n", "noise.txt": noise})
        assert worker.start("--once", "--cache-gb", "0.001").wait() == 0
    mirror = worker.cache / "mirror.git"
    refs = subprocess.check_output(["git", "for-each-ref", "--format=%(refname)"], cwd=mirror)
    kept = refs.decode().replace("refs/agenthub/", "").split()
    # The fourth was too much: two of four stayed, and the fifth came.
    assert set(kept) == set(hashes[2:])
    assert {path.name for path in (worker.cache / "used").iterdir()} == set(kept)
    size = sum(path.stat().st_size for path in (mirror / "objects").rglob("*") if path.is_file())
    assert size < 10**6


def test_a_lost_lease_stops_the_trainer(own_bench: Bench) -> None:
    run = own_bench.request(STAYS)
    worker = own_bench.worker().start("--once")
    (trainer,) = worker.pids()
    (track,) = own_bench.agent.tracks()
    claim = wire.Claim.model_validate(track.model_dump())
    worker.signal(signal.SIGSTOP)
    with own_bench.hub.client(own_bench.hub.key("thief", wire.Role.WORKER)) as thief:
        stolen = wait_for(lambda: thief.claim(claim), "the lease to pass")
    assert (stolen.id, stolen.fence) == (run.id, 2)
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0
    assert not is_alive(trainer)
    assert "given up: lease lost" in worker.err


def test_a_killed_workers_run_goes_to_another_and_its_own_late_result_is_refused(
    own_bench: Bench,
) -> None:
    (leaf,) = own_bench.push({"train.py": STAYS})
    first, second = own_bench.worker().start(), own_bench.worker()
    first.pids()
    first.signal(signal.SIGKILL)
    (first.data / "go").touch()
    second.key = own_bench.hub.key("gpu2", wire.Role.WORKER)
    assert second.start("--once", "--data", str(first.data)).wait() == 0
    (run,) = own_bench.agent.runs(commit=leaf)
    assert (run.attempt, run.fence, run.worker_id, run.val_bpb) == (2, 2, "gpu2", 1.25)
    with own_bench.hub.client(own_bench.key) as dead, pytest.raises(ApiError) as refusal:
        dead.finish(run.id, ok(1, 0.5))
    assert (refusal.value.status, refusal.value.code) == (409, wire.ErrorCode.LEASE_LOST)
    assert [result.val_bpb for result in own_bench.agent.results()] == [1.25]


def test_a_result_survives_a_restart_of_the_hub(own_bench: Bench) -> None:
    run = own_bench.request(STAYS)
    worker = own_bench.worker().start("--once")
    worker.pids()
    own_bench.hub.kill()
    (worker.data / "go").touch()
    wait_for(lambda: "trying again" in worker.err, "the hub to be missed")
    own_bench.hub.start()
    assert worker.wait() == 0
    assert own_bench.agent.run(run.id).val_bpb == 1.25
    assert "the hub is back" in worker.err


def test_idle_exit_ends_a_worker_without_work(own_bench: Bench) -> None:
    worker = own_bench.worker().start("--idle-exit", "1s")
    assert worker.wait() == 0
    assert "nothing to do for 1 s" in worker.err


def test_options_may_come_from_the_environment(bench: Bench) -> None:
    worker = bench.worker()
    worker.env = {"AGENTHUB_WORKER_SANDBOX": "none", "AGENTHUB_WORKER_MAX_RUNS": "1"}
    run = bench.request(OK)
    assert worker.start(sandbox=None).wait() == 0
    assert bench.agent.run(run.id).outcome is Outcome.OK


def test_three_faults_of_the_machine_in_a_row_end_the_worker(own_bench: Bench) -> None:
    run = own_bench.request(LOSES_THE_DATA)
    worker = own_bench.worker().start()
    assert worker.wait() == 1
    assert "3 faults of this machine in a row" in worker.err
    assert own_bench.agent.run(run.id).state is RunState.QUARANTINED
    assert own_bench.agent.results() == []
    (halt,) = own_bench.agent.halts()
    assert (halt.worker_id, halt.place.split()[-1]) == ("gpu1", "cpu")
    assert halt.reason in worker.err
    # Once it starts again, nobody needs to look after it.
    assert worker.start("--idle-exit", "1s").wait() == 0
    assert own_bench.agent.halts() == []


def test_torch_that_was_lost_is_the_machine_s_fault(own_bench: Bench) -> None:
    worker = own_bench.worker()
    lost = own_bench.folder / "lost"
    torch = f"import pathlib\nif pathlib.Path({str(lost)!r}).exists():\n    raise OSError('gone')\n"
    write_files(own_bench.folder / "path", {"torch.py": torch})
    worker.env["PYTHONPATH"] = str(own_bench.folder / "path")
    pytest.importorskip("torch")
    project = {"pyproject.toml": '[project]\ndependencies = ["torch==2.13.0"]\n'}
    write_files(own_bench.folder / "template", project)
    missing = "import torch.nothing\n"
    (crash,) = own_bench.push({"train.py": missing})
    worker.start("--once", "--budget", "1")
    assert worker.wait() == 0, worker.err
    (result,) = own_bench.agent.results()
    assert (result.commit, result.outcome) == (crash, Outcome.CRASH)
    run = own_bench.request(f"open({str(lost)!r}, 'w').close()\n{missing}")
    worker.start("--once", "--budget", "1")
    assert worker.wait() == 0, worker.err
    assert "given up: torch does not work here any more: OSError: gone" in worker.err
    assert own_bench.agent.run(run.id).state is RunState.QUEUED


# Scored apart, and not ---------------------------------------------------------------------------


def test_the_template_is_scored_apart_and_audited(bench: Bench) -> None:
    pytest.importorskip("torch")
    train = (OWN_TEMPLATE / "train.py").read_text()
    run = bench.request(train)
    worker = bench.worker()
    worker.template = OWN_TEMPLATE
    worker.start("--scoring", "isolated+audit", "--once", "--budget", "3", "--profile", "cpu")
    assert worker.wait(240) == 0, worker.err
    (result,) = [one for one in bench.agent.results(limit=100) if one.run_id == run.id]
    log = bench.agent.run_log(run.id)
    assert result.outcome is Outcome.OK, (result.description, log)
    assert re.search(r"(?m)^run \d+  \w+  scoring$", worker.err)
    assert result.track.endswith("/isolated+audit")
    assert result.val_bpb is not None and 1 < result.val_bpb < 4
    assert re.search(r"(?m)^val_bpb: +by the worker$", log)
    told = result.metrics
    assert 2 < told["train_phase_seconds"] < 30 and told["audited_rows"] == told["scored_rows"]


def test_an_upstream_repo_is_run_inline(bench: Bench) -> None:
    home = bench.folder / "autoresearch-data"
    write_files(home, {"shard": "text"})
    prepare = "import os\nSHARD = os.path.expanduser('~/.cache/autoresearch/shard')\n"
    train = (
        "import prepare\n"
        "def build_model_config(depth): ...\n"
        "print(open(prepare.SHARD).read())\n"
        "print('---\\nval_bpb:          0.997900\\ntraining_seconds: 300.1')\n"
    )
    worker = bench.worker()
    worker.template = bench.folder / "upstream"
    write_files(worker.template, {"train.py": train, "prepare.py": prepare})
    run = bench.request(train)
    assert worker.start("--once", "--data", str(home)).wait() == 0, worker.err
    told = bench.agent.run(run.id)
    assert (told.val_bpb, (told.track or "").rpartition("/")[2]) == (0.9979, "inline")
    apart = bench.worker()
    apart.template = worker.template
    assert apart.start("--scoring", "isolated", "--data", str(home)).wait() == 2
    assert "cannot be scored apart: say --scoring inline" in apart.err


# A fleet of processes ----------------------------------------------------------------------------


def fake_gpus(bench: Bench, count: int) -> dict[str, str]:
    """An environment in which nvidia-smi lists so many GPUs."""
    tools = bench.folder / f"gpus{count}"
    lines = "\\n".join(str(number) for number in range(count))
    script = (
        f"#!/bin/sh\ncase $1 in --query-gpu=index) printf '{lines}\\n';;\n*) echo 'A100, 40960';;"
    )
    write_files(tools, {"nvidia-smi": f"{script}\nesac\n"})
    (tools / "nvidia-smi").chmod(0o755)
    return {"PATH": f"{tools}:{os.environ['PATH']}"}


def events(text: str, kind: str) -> list[dict[str, Any]]:
    return [told for line in text.splitlines() if (told := json.loads(line))["event"] == kind]


#: Counts itself, then stays as STAYS does.
EACH_STAYS = (
    """\
import os, pathlib
pathlib.Path(os.environ["TRAIN_DATA"], f"gpu{os.environ['CUDA_VISIBLE_DEVICES']}").touch()
"""
    + STAYS
)


def test_gpus_all_runs_one_process_for_each_and_a_drain_gives_all_runs_back(
    own_bench: Bench,
) -> None:
    asked = [own_bench.request(EACH_STAYS + f"# {number}\n") for number in range(2)]
    worker = own_bench.worker()
    worker.env = fake_gpus(own_bench, 2)
    worker.start("--gpus", "all", "--log", "json")
    for number in range(2):
        wait_for((worker.data / f"gpu{number}").exists, f"a trainer on GPU {number}: {worker.err}")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert {told["device"] for told in events(worker.err, "claimed")} == {"cuda:0", "cuda:1"}
    for run in asked:
        released = own_bench.agent.run(run.id)
        assert (released.state, released.attempt) == (RunState.QUEUED, 0), released.failure


def test_a_member_that_is_killed_starts_again_and_trains(own_bench: Bench) -> None:
    own_bench.request(STAYS)
    worker = own_bench.worker().start("--gpus", "cpu", "--log", "json", "--once")
    (trainer,) = worker.pids()
    member = parent_of(parent_of(trainer))
    (worker.data / "pids").unlink()
    (worker.data / "go").touch()
    os.kill(member, signal.SIGKILL)
    assert worker.wait() == 0
    assert events(worker.err, "restarting")[0]["exit"] == 128 + signal.SIGKILL
    (outcome,) = events(worker.out, "outcome")
    assert (outcome["device"], outcome["outcome"], outcome["val_bpb"]) == ("cpu", "ok", 1.25)


def test_a_member_that_is_refused_or_quarantined_stays_down_with_its_reason(
    own_bench: Bench,
) -> None:
    own_bench.request(LOSES_THE_DATA)
    worker = own_bench.worker().start("--gpus", "cpu")
    assert worker.wait() == 1
    assert "cpu  down with exit code 1: 3 faults of this machine in a row, the last:" in worker.err
    refused = own_bench.worker().start("--gpus", "3")
    assert refused.wait(15) == 2, refused.err
    assert "there is no cuda:3" in refused.err
    assert "starts again" not in refused.err


def test_a_second_signal_kills_the_whole_fleet(own_bench: Bench) -> None:
    own_bench.request(DEAF)
    worker = own_bench.worker().start("--gpus", "cpu")
    pids = worker.pids()
    own_bench.hub.kill()
    worker.signal(signal.SIGINT)
    wait_for(lambda: "drain" in worker.err, "the drain")
    worker.signal(signal.SIGINT)
    assert worker.wait(20) == 128 + signal.SIGINT
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the trainer and its children")


def test_a_killed_supervisor_leaves_no_worker_behind(own_bench: Bench) -> None:
    own_bench.request(STAYS)
    worker = own_bench.worker().start("--gpus", "cpu")
    (trainer,) = worker.pids()
    member = parent_of(parent_of(trainer))
    worker.signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(member) and not is_alive(trainer), "the end of all")


@pytest.mark.parametrize("gpus", ["0,", "one", "-1"])
def test_senseless_gpus_are_refused(bench: Bench, gpus: str) -> None:
    worker = bench.worker().start(f"--gpus={gpus}")
    assert worker.wait() == 2
    assert "--gpus must be all, numbers as in 0,2, or cpu" in worker.err


def test_a_table_of_the_fleet_is_drawn_on_a_terminal() -> None:
    member = Member("cuda:1", "feed")
    member.story.hear({"event": "claimed", "run": 7, "commit": "abcdef0123456789"})
    member.story.hear({"event": "progress", "progress": 0.25, "tokens_per_second": 13562.0})
    console = Console(width=160)
    with console.capture() as told:
        console.print(draw([member]))
    row = told.get().splitlines()[1].split()
    assert row == ["cuda:1", "training", "7", "abcdef012345", "25", "%", "13,562", "0", "0"]
    member.story.hear({"event": "progress", "progress": 1.0, "phase": "scoring"})
    assert (member.story.phase, member.story.progress) == ("scoring", None)


# What a worker refuses --------------------------------------------------------------------------


def test_what_no_sandbox_means_is_told_once(batch: Batch) -> None:
    risk = "strangers' train.py as you, with your files and your network"
    assert batch.worker.err.count(risk) == 1


@pytest.mark.skipif(not bubblewrap_runs(), reason="bubblewrap cannot run here")
def test_a_training_runs_in_the_first_sandbox_that_works_and_says_so(bench: Bench) -> None:
    left = "import os, pathlib\nprint('pid', os.getpid())\npathlib.Path('left').touch()\n"
    run = bench.request(left + OK)
    worker = bench.worker().start("--once", sandbox=None)
    assert worker.wait() == 0, worker.err
    [result] = bench.agent.results(commit=run.commit)
    assert (result.outcome, result.val_bpb) == (Outcome.OK, 1.5)
    assert result.metrics["sandbox"] == "bubblewrap"
    assert bench.agent.run_log(run.id).startswith("pid 2\n")
    assert "sandbox bubblewrap" in worker.err
    assert "warning" not in worker.err


def test_data_that_trainings_would_see_are_refused(bench: Bench) -> None:
    where = f"{sys.prefix}/data"
    worker = bench.worker().start("--scoring", "isolated", "--data", where, sandbox="auto")
    assert worker.wait() == 2
    assert f"trainings would see {sys.prefix}, and with it {where}" in worker.err


def test_a_sandbox_nobody_knows_is_refused(bench: Bench) -> None:
    worker = bench.worker().start(sandbox="chroot")
    assert worker.wait() == 2
    assert "--sandbox must be auto, bubblewrap" in worker.err


def test_a_wrong_key_is_not_tried_again(bench: Bench) -> None:
    worker = bench.worker()
    worker.key = "wrong"
    assert worker.start().wait() == 2
    assert "the hub refuses this key" in worker.err
    assert "Traceback" not in worker.err


def test_an_agent_is_no_worker(bench: Bench) -> None:
    worker = bench.worker()
    worker.key = bench.hub.key("bob")
    assert worker.start().wait() == 2
    assert "--role worker" in worker.err


def test_no_prepare_refuses_to_start_without_data(bench: Bench) -> None:
    worker = bench.worker().start("--no-prepare")
    assert worker.wait() == 2
    assert "the data is not prepared, or drop --no-prepare" in worker.err


def test_an_interpreter_that_lacks_the_template_s_packages_is_refused(bench: Bench) -> None:
    worker = bench.worker()
    worker.template = bench.folder / "needy"
    project = '[project]\ndependencies = ["a-package-nobody-has>=2", "pytest"]\n'
    write_files(worker.template, {"train.py": OK, "prepare.py": PREPARE, "pyproject.toml": project})
    assert worker.start().wait() == 2
    assert "lacks a-package-nobody-has" in worker.err


# What a machine is called ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "platform"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("Tesla T4", "T4"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200-NVL"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100-MIG-1g.10gb"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "RTX-3060-Laptop"),
        ("Quadro RTX 8000", "RTX-8000"),
        ("NVIDIA GeForce GTX 1080 Ti", "GTX-1080-Ti"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Instinct MI300X VF", "MI300X"),
        ("AMD Instinct MI250X/MI250", "MI250X-MI250"),
        ("Radeon RX 7900 XTX", "RX-7900-XTX"),
        ("Advanced Micro Devices, Inc. [AMD/ATI] Instinct MI210", "MI210"),
        ("", "unknown"),
    ],
)
def test_platforms_have_short_names(model: str, platform: str) -> None:
    assert platform_name(model) == platform


def test_an_amd_gpu_is_found_by_rocm_smi(bench: Bench) -> None:
    tools = bench.folder / "amd"
    card = {"Card Series": "AMD Instinct MI300X", "VRAM Total Memory (B)": str(192 * 2**30)}
    script = f"#!/bin/sh\ncat <<'END'\n{json.dumps({'card0': card, 'system': {}})}\nEND\n"
    write_files(tools, {"rocm-smi": script})
    (tools / "rocm-smi").chmod(0o755)
    worker = bench.worker()
    worker.env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    run = bench.request(OK)
    assert worker.start("--once", "--device", "auto").wait() == 0
    assert (bench.agent.run(run.id).track or "").startswith("MI300X/300s/")


def test_a_gpu_is_found_without_torch_and_shown_alone_to_the_trainer(bench: Bench) -> None:
    tools = bench.folder / "tools"
    write_files(tools, {"nvidia-smi": "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\n"})
    (tools / "nvidia-smi").chmod(0o755)
    worker = bench.worker()
    worker.env = {"PATH": f"{tools}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "3"}
    run = bench.request("import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'])\n" + OK)
    assert worker.start("--once", "--device", "auto").wait() == 0
    assert (bench.agent.run(run.id).track or "").startswith("H100/300s/")
    assert bench.agent.run_log(run.id).startswith("3\n")
