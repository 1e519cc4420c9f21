"""A scripted agent: reads the leaderboard, edits train.py, pushes, waits for its score, reports.

It works as any agent does, through `ah` and `git` alone. Two habits: the explorer takes bold
steps with any hyper-parameter, the refiner small ones with those that paid before.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AH = str(Path(sys.executable).with_name("ah"))
POLL_SECONDS = 3.0

#: Hyper-parameters of train.py an agent may turn, with the range it stays in.
RANGES: dict[str, tuple[float, float]] = {
    "UNEMBEDDING_LR": (0.0005, 0.1),
    "EMBEDDING_LR": (0.01, 3.0),
    "MATRIX_LR": (0.002, 0.3),
    "BATCH_SIZE": (4, 64),
    "WARMDOWN_RATIO": (0.1, 1.0),
    "WEIGHT_DECAY": (0.0125, 1.0),
    "SHORT_WINDOW": (8, 128),
}
#: Factors of one step.
STEPS = {"explorer": (0.5, 2.0, 4.0), "refiner": (0.75, 1.25, 1.5)}
#: Values must stay multiples of these.
UNITS = {"BATCH_SIZE": 4, "SHORT_WINDOW": 8}


@dataclass(frozen=True)
class Edit:
    """One change of one constant."""

    name: str
    old: str
    new: str

    @property
    def message(self) -> str:
        return f"{self.name} {self.old} -> {self.new}"


class Agent:
    def __init__(self, habit: str, work: Path, dice: random.Random) -> None:
        self.habit = habit
        self.work = work
        self.dice = dice

    def ah(self, *args: str) -> Any:
        """One `ah` command in the work tree; its JSON."""
        done = subprocess.run(
            [AH, *args, "--json"], cwd=self.work, check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.work, check=True, capture_output=True, text=True
        )
        return done.stdout

    def round(self) -> None:
        """One experiment, from the leaderboard back to it."""
        base, record = self.choose()
        self.ah("checkout", base)
        train = self.work / "train.py"
        if record["commit"] != base:
            self.ah("fetch", record["commit"])
            train.write_text(self.git("show", f"{record['commit']}:train.py"))
        edit = self.propose(train.read_text())
        train.write_text(apply(train.read_text(), edit))
        tip = self.commit(edit.message)
        self.ah("push")
        self.ah("post", "discussion", f"I try `{edit.message}` on {base[:12]} as {tip[:12]}.")
        self.report(tip, edit, record["val_bpb"], self.wait(tip))

    def choose(self) -> tuple[str, dict[str, Any]]:
        """The best measured leaf, and the record, whose code it starts from."""
        while True:
            boards = self.ah("leaderboard")
            entries = boards[0]["entries"] if boards else []
            leaves = {leaf["hash"] for leaf in self.ah("leaves")}
            for entry in entries:
                if entry["commit"] in leaves:
                    return entry["commit"], entries[0]
            time.sleep(POLL_SECONDS)

    def propose(self, code: str) -> Edit:
        """A change nobody has committed yet: learning rates first, as people do.

        The refiner begins with the constants that paid before.
        """
        tried = [commit["message"] for commit in self.ah("log", "--limit", "1000")]
        paid = [
            entry["message"].split()[0]
            for entry in self.ah("leaderboard")[0]["entries"][:3]
            if entry["message"].split()[0] in RANGES
        ]
        names = sorted(RANGES, key=lambda name: (not name.endswith("_LR"), self.dice.random()))
        if self.habit == "refiner":
            names = [*dict.fromkeys(paid), *(name for name in names if name not in paid)]
        for edit in self.edits(code, names):
            if edit.message not in tried:
                return edit
        raise SystemExit(f"{self.habit}: every change I know was tried")

    def edits(self, code: str, names: list[str]) -> Iterator[Edit]:
        for name in names:
            found = pattern(name).search(code)
            factors = STEPS[self.habit]
            for factor in self.dice.sample(factors, len(factors)) if found else ():
                old = found["value"] if found else ""
                value = float(old.replace("_", "")) * factor
                if unit := UNITS.get(name):
                    value = max(unit, round(value / unit) * unit)
                new, (low, high) = f"{value:.4g}", RANGES[name]
                if low <= value <= high and new != old:
                    yield Edit(name, old, new)

    def commit(self, message: str) -> str:
        identity = ("-c", f"user.name={self.habit}", "-c", f"user.email={self.habit}@example.org")
        # A value may come back to what it was under another parent; that is an experiment too.
        self.git(*identity, "commit", "--all", "--allow-empty", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def wait(self, tip: str) -> dict[str, Any]:
        while True:
            runs: list[dict[str, Any]] = self.ah("runs", "--commit", tip)
            ended = [run for run in runs if run["state"] in ("finished", "quarantined")]
            if ended:
                return ended[0]
            time.sleep(POLL_SECONDS)

    def report(self, tip: str, edit: Edit, record: float, run: dict[str, Any]) -> None:
        score = run["val_bpb"]
        if score is None:
            text = f"{edit.message} ({tip[:12]}) ended in {run['outcome']}: don't."
        elif score < record:
            text = f"{edit.message} ({tip[:12]}) pays: {record:.4f} -> {score:.4f}."
        else:
            text = f"{edit.message} ({tip[:12]}) does not pay: {score:.4f} against {record:.4f}."
        self.ah("post", "discussion", text)


def pattern(name: str) -> re.Pattern[str]:
    """Finds `NAME = value`; the first one belongs to the cpu profile."""
    return re.compile(rf"^(?P<head>\s*{name} *= *)(?P<value>[\d._]+)", re.MULTILINE)


def apply(code: str, edit: Edit) -> str:
    return pattern(edit.name).sub(lambda found: found["head"] + edit.new, code, count=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--habit", choices=sorted(STEPS), required=True)
    parser.add_argument("--work", type=Path, required=True, help="a fresh directory")
    parser.add_argument("--rounds", type=int, default=0, help="0: without end")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    agent = Agent(args.habit, args.work, random.Random(f"{args.habit}{args.seed}"))
    agent.git("init", "--quiet")
    done = 0
    while not args.rounds or done < args.rounds:
        agent.round()
        done += 1


if __name__ == "__main__":
    main()
