"""The whole of AgentHub on one machine: a hub, two scripted agents, one cpu worker.

    make demo              until Ctrl-C
    make demo ROUNDS=3     three experiments an agent, then exit 0 if the scores are real

Everything is a real process started with its own command, as a user would.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ah_cli.client import HubClient
from demo import view
from server import wire

HABITS = ("explorer", "refiner")
WATCHER = "watcher"
console = Console()


class Demo:
    """The processes of one demo and the directory they share."""

    def __init__(self, home: Path, budget: int, rounds: int, port: int) -> None:
        #: Of this demo alone; training data beside it is kept for the next one.
        self.home = home / "last"
        self.budget = budget
        self.rounds = rounds
        self.port = port
        self.data = home / "training"
        self.url = ""
        self.keys: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # Steps --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A fresh directory; training data and tokenizer, instant the second time."""
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "identities").mkdir(parents=True)
        template = Path("train_template").resolve()
        data = str(self.data)
        self.call("python", str(template / "prepare.py"), "--profile", "cpu", "--data", data)

    def start_hub(self) -> None:
        log = self.home / "hub.log"
        # Short leases mean frequent heartbeats, which move the progress bars.
        flags = ["--data", str(self.home / "hub"), "--lease-seconds", "12"]
        flags += ["--max-pushes-per-hour", "0", "--max-posts-per-hour", "0"]
        self.start("hub", "agenthub", "serve", "--listen", f"127.0.0.1:{self.port}", *flags)
        until = time.monotonic() + 60
        while not (found := re.search(r"listens on (\S+)", log.read_text())):
            if self.processes["hub"].poll() is not None or time.monotonic() > until:
                sys.exit(f"the hub did not start:\n{log.read_text()}")
            time.sleep(0.1)
        self.url = found[1]

    def join(self) -> None:
        """An identity for everybody, with the admin key the hub made for itself."""
        admin = (self.home / "hub" / "admin.key").read_text().strip()
        for name in ("baseline", *HABITS, WATCHER, "worker-cpu"):
            role = "worker" if name.startswith("worker") else "agent"
            self.ah(name, "join", self.url, "--name", name, "--admin-key", admin, "--role", role)
            self.keys[name] = re.search(  # type: ignore[index]
                r'"api_key": "(\w+)"', self.config(name).read_text()
            )[1]

    def push_baseline(self) -> None:
        work = self.home / "baseline"
        self.ah("baseline", "init", str(work))
        self.ah("baseline", "push", cwd=work)
        self.ah("baseline", "channels", "--create", "discussion")

    def start_worker(self) -> None:
        cache = str(self.home / "worker-cache")
        where = ("--data", str(self.data), "--cache", cache, "--sandbox", "none")
        what = ("--device", "cpu", "--budget", str(self.budget))
        env = {"AGENTHUB_URL": self.url, "AGENTHUB_KEY": self.keys["worker-cpu"]}
        self.start("worker", "ah-worker", "run", *where, *what, env=env)

    def start_agents(self) -> None:
        for habit in HABITS:
            flags = ("--habit", habit, "--rounds", str(self.rounds))
            work = str(self.home / habit)
            env = {"AGENTHUB_CONFIG": str(self.config(habit))}
            self.start(habit, "python", "-m", "demo.agent", "--work", work, *flags, env=env)

    def watch(self) -> view.Snapshot:
        """Show the hub until the agents are done; raise SystemExit when a process died."""
        now = view.Snapshot()
        plain = view.Plain(console)
        with HubClient(self.url, self.keys[WATCHER]) as hub, self.screen() as live:
            done = False
            while not done:
                # In this order, so that the last look sees what the last agent did.
                done = self.is_done()
                now = view.look(hub, now)
                if live is None:
                    plain.show(now)
                else:
                    live.update(view.render(self.url, now))
                if not done:
                    time.sleep(0.5)
        return now

    @contextmanager
    def screen(self) -> Iterator[Live | None]:
        if not console.is_terminal:
            yield None
            return
        with Live(console=console, refresh_per_second=4, vertical_overflow="crop") as live:
            yield live

    def is_done(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None and (name not in HABITS or process.returncode):
                log = (self.home / f"{name}.log").read_text()
                sys.exit(
                    f"{name} ended with {process.returncode}; the end of its log:\n{log[-2000:]}"
                )
        return all(self.processes[habit].poll() is not None for habit in HABITS)

    # Processes ----------------------------------------------------------------------------------

    def config(self, name: str) -> Path:
        return self.home / "identities" / f"{name}.json"

    def ah(self, identity: str, *args: str, cwd: Path | None = None) -> None:
        self.call("ah", *args, env={"AGENTHUB_CONFIG": str(self.config(identity))}, cwd=cwd)

    def call(
        self, command: str, *args: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        done = subprocess.run(
            [_bin(command), *args],
            env=_environment(env),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{command} {args[0]} failed:\n{done.stderr or done.stdout}")

    def start(self, name: str, command: str, *args: str, env: dict[str, str] | None = None) -> None:
        """Start a long-lived process; its output goes to `<name>.log`."""
        # A process that Ctrl-C kept us from noting down would outlive us.
        with (self.home / f"{name}.log").open("wb") as log, uninterrupted():
            self.processes[name] = subprocess.Popen(
                [_bin(command), *args],
                env=_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Out of the terminal's reach: Ctrl-C comes to us, and we end them in order.
                start_new_session=True,
            )

    def end(self) -> None:
        """Ask everybody to stop, the hub last; kill those who don't."""
        for name in (*HABITS, "worker", "hub"):
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the block has ended."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _bin(command: str) -> str:
    return sys.executable if command == "python" else str(Path(sys.executable).with_name(command))


def _environment(extra: dict[str, str] | None) -> dict[str, str]:
    # Whoever runs the demo may have an identity of their own; it stays out of this.
    mine = {key: value for key, value in os.environ.items() if not key.startswith("AGENTHUB_")}
    return {**mine, "PYTHONUNBUFFERED": "1", **(extra or {})}


@contextmanager
def step(what: str) -> Iterator[None]:
    began = time.monotonic()
    console.print(f"{what} ...", end=" ", highlight=False)
    yield
    console.print(f"{time.monotonic() - began:.1f} s", highlight=False)


def judge(now: view.Snapshot, rounds: int) -> int:
    """0 when every experiment was measured and the scores differ."""
    scores = [result.val_bpb for result in now.results if result.val_bpb is not None]
    measured = [result for result in now.results if result.source is wire.Source.MEASURED]
    for entry in now.entries[:10]:
        score = f"{entry.rank:>3}  {entry.val_bpb:.6f}  {entry.commit[:12]}"
        console.print(f"{score}  {entry.agent_id:<10} {entry.message}", markup=False)
    wanted = 1 + len(HABITS) * rounds
    if len(measured) < wanted or len(set(scores)) < 2:
        console.print(f"only {len(measured)} of {wanted} results, {len(set(scores))} scores")
        return 1
    return 0


def run(demo: Demo) -> int:
    with step("preparing the training data"):
        demo.prepare()
    with step("starting the hub"):
        demo.start_hub()
    with step("registering agents and a worker, pushing the baseline"):
        demo.join()
        demo.push_baseline()
    demo.start_worker()
    demo.start_agents()
    console.print(
        f"open {demo.url} in a browser; logs and identities are in {demo.home}", soft_wrap=True
    )
    began = time.monotonic()
    now = demo.watch()
    console.print(f"{len(now.results)} experiments in {time.monotonic() - began:.0f} s")
    return judge(now, demo.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="experiments an agent; 0: no end")
    parser.add_argument("--budget", type=int, default=20, help="seconds of training each")
    parser.add_argument("--home", type=Path, default=Path("demo-data"), help="where it all lives")
    parser.add_argument("--port", type=int, default=0, help="of the hub; 0: any free one")
    args = parser.parse_args()
    demo = Demo(args.home.resolve(), args.budget, args.rounds, args.port)
    # `kill` and a closed terminal end the demo as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    code = 130
    try:
        code = run(demo)
    except KeyboardInterrupt:
        console.print("\nending every process ...")
    finally:
        demo.end()
    if demo.url:
        console.print(
            f"look again: .venv/bin/agenthub serve --data {demo.home / 'hub'}", soft_wrap=True
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
