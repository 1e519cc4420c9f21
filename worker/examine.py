"""Examine: one commit's files, trained and scored; phase by phase, by this worker's clock.

    startup  until the trainer asks for its tokens; there is no data yet
    train    the budget, from that moment on
    save     until the trainer has ended; its checkpoint counts if it came in time
    score    by processes of their own: see `scoring.py`

At the level `inline` there is one phase: train.py scores itself, and its word is taken.
"""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from server.wire import Outcome
from worker.environment import build_environment
from worker.gate import Gate
from worker.offer import Offer
from worker.scoring import Failed, Scored, Scoring
from worker.template import TRAINED_FILE
from worker.trainer import POLITE_SECONDS, TICK_SECONDS, Ended, Fault, Interrupted, Trainer, train
from worker.transcript import Transcript, clean_line, to_number
from worker.verdict import Verdict, judge
from worker.workspace import Workspace, restore


@dataclass(frozen=True)
class Watch:
    """What an examination looks at while it waits."""

    #: On the monotonic clock: when the hub would give the run to another worker.
    deadline: float
    #: Why it should stop; empty while it may go on.
    interruption: Callable[[], str] = lambda: ""
    #: Told what is going on: `training` or `scoring`.
    tick: Callable[[str], None] = lambda phase: None

    def look(self, phase: str = "training") -> None:
        if reason := self.interruption():
            raise Interrupted(reason)
        self.tick(phase)


def examine(
    offer: Offer,
    space: Workspace,
    budget_seconds: int,
    seed: int | None,
    transcript: Transcript,
    watch: Watch,
) -> tuple[Verdict, Ended]:
    """Train and score what lies in `space.tree`; also tells how the trainer ended.

    Raises Fault when this machine failed, Interrupted when it was told to stop.
    """
    return Examination(offer, space, budget_seconds, seed, transcript, watch).run()


class Examination:
    def __init__(
        self,
        offer: Offer,
        space: Workspace,
        budget_seconds: int,
        seed: int | None,
        transcript: Transcript,
        watch: Watch,
    ) -> None:
        self._offer, self._space, self._transcript, self._watch = offer, space, transcript, watch
        self._budget, self._seed = budget_seconds, seed
        self._started = time.monotonic()
        self._metrics: dict[str, float | str] = {}

    def run(self) -> tuple[Verdict, Ended]:
        if self._offer.scoring == "inline":
            return self._train_inline()
        train_file = (self._space.tree / TRAINED_FILE).read_bytes()
        if not re.search(rb"\bbuild_model\b", train_file):
            why = (
                "train.py has no build_model(), so only a worker with `--scoring inline` can "
                "score it"
            )
            return Verdict(Outcome.INVALID, why), Ended(0, 0.0, timed_out=False)
        gate = Gate(self._offer.get_tokens(), self._budget)
        try:
            ended = self._train(gate)
        finally:
            gate.close()
        try:
            restore(self._space.tree, self._offer.template, train_file)
            verdict = self._score(gate, ended)
        finally:
            if gate.checkpoint is not None:
                os.close(gate.checkpoint)
        return replace(verdict, metrics={**verdict.metrics, **self._metrics}), ended

    def _train_inline(self) -> tuple[Verdict, Ended]:
        directory = self._offer.data.directory
        if self._offer.data.is_upstream:
            known = self._space.home / ".cache" / "autoresearch"
            known.parent.mkdir()
            known.symlink_to(directory)
        with self._start_trainer(directory, [directory], ()) as trainer:
            watch, tick = self._watch, partial(self._watch.tick, "training")
            ended = train(trainer, watch.deadline, watch.interruption, tick)
        if unfit := self._check(trainer, self._transcript, ended):
            return unfit, ended
        return judge(ended, self._transcript), ended

    def _train(self, gate: Gate) -> Ended:
        data = self._hand_out()
        with self._start_trainer(data, [], (gate.trainer_end.fileno(),)) as trainer:
            gate.trainer_end.close()
            status = self._wait(trainer, gate)
            timed_out = status is None
            if timed_out:
                trainer.ask_to_end()
                trainer.wait(POLITE_SECONDS)
        seconds = time.monotonic() - self._started
        ended = Ended(-1 if status is None else status, seconds, timed_out)
        self._unfit = self._check(trainer, self._transcript, ended)
        return ended

    def _wait(self, trainer: Trainer, gate: Gate) -> int | None:
        """The trainer's status; None when its time is over."""
        while (status := trainer.wait(TICK_SECONDS)) is None:
            self._watch.look()
            now = time.monotonic()
            if now > self._watch.deadline or now > self._due(gate):
                return None
        return status

    def _due(self, gate: Gate) -> float:
        """When the trainer must have ended."""
        phases = self._offer.phases
        if gate.ready_at is None:
            return self._started + phases.startup
        trained = gate.ready_at + self._budget
        if gate.saved_at is not None:
            return max(trained, gate.saved_at) + phases.save
        return trained + max(gate.allowance_seconds, phases.save)

    def _score(self, gate: Gate, ended: Ended) -> Verdict:
        self._tell_phases(gate, ended)
        if self._unfit:
            return self._unfit
        told = judge(ended, self._transcript)
        if gate.checkpoint is None:
            return replace(self._explain(gate, ended, told), val_bpb=None)
        metrics = told.metrics
        if (claimed := self._claimed()) is not None:
            metrics = {**metrics, "claimed_val_bpb": claimed}
        try:
            scored = self._make_scoring(gate.checkpoint).run()
        except Failed as error:
            if error.log:
                self._transcript.feed(f"--- scoring ---\n{error.log}\n".encode())
            return Verdict(error.outcome, clean_line(str(error)), None, metrics)
        return self._conclude(scored, metrics)

    def _conclude(self, scored: Scored, metrics: dict[str, float | str]) -> Verdict:
        metrics = {**metrics, **scored.metrics}
        if scored.flag:
            return Verdict(Outcome.FLAGGED, scored.flag, scored.val_bpb, metrics)
        return Verdict(Outcome.OK, "", scored.val_bpb, metrics)

    def _make_scoring(self, checkpoint: int) -> Scoring:
        offer, left = self._offer, self._watch.deadline - time.monotonic()
        return Scoring(
            level=offer.scoring,
            layout=offer.layout,
            checkpoint=checkpoint,
            start=self._start_server,
            python=offer.data.python,
            is_on_gpu=offer.device.name.startswith("cuda"),
            seconds=max(1.0, min(offer.phases.score, left)),
            tick=partial(self._watch.look, "scoring"),
        )

    def _explain(self, gate: Gate, ended: Ended, told: Verdict) -> Verdict:
        """Why there is no checkpoint to score."""
        if ended.timed_out:
            return replace(told, outcome=Outcome.TIMEOUT, description=self._explain_timeout(gate))
        if gate.refused:
            late = "after the budget" in gate.refused
            outcome = Outcome.TIMEOUT if late else Outcome.CRASH
            why = f"the checkpoint was refused: {gate.refused}"
            return replace(told, outcome=outcome, description=why)
        if ended.status:
            return told
        why = "ended without a checkpoint: call prepare.save_checkpoint(model, env) when trained"
        if gate.ready_at is None:
            why = "ended without asking for training data: use prepare.make_loader"
        return replace(told, outcome=Outcome.CRASH, description=why)

    def _explain_timeout(self, gate: Gate) -> str:
        phases = self._offer.phases
        if gate.ready_at is None:
            return f"not ready to train after {phases.startup:g} s of start-up and compilation"
        if gate.refused:
            return f"the checkpoint was refused: {gate.refused}"
        return (
            f"no checkpoint {phases.save:g} s after the budget of {self._budget} s was used up: "
            "prepare.Clock tells when to stop, prepare.save_checkpoint saves"
        )

    def _tell_phases(self, gate: Gate, ended: Ended) -> None:
        done = self._started + ended.seconds
        marks = {"startup": gate.ready_at, "train": gate.trained_at or gate.saved_at, "save": done}
        before = self._started
        for name, mark in marks.items():
            if mark is not None and mark >= before:
                self._metrics[f"{name}_phase_seconds"] = round(mark - before, 3)
                before = mark

    def _claimed(self) -> float | None:
        told = to_number((self._transcript.summary or {}).get("val_bpb", ""))
        return told if told is not None and 0 < told < 100 else None

    def _hand_out(self) -> Path:
        """A folder with what a training may read before its clock starts."""
        layout = self._offer.layout
        data = self._space.root / "data"
        folder = data / layout["below"]
        folder.mkdir(parents=True)
        for name in layout["handed_out"]:
            shutil.copyfile(Path(layout["folder"], name), folder / name)
        return data

    def _environment(self, data: Path) -> dict[str, str]:
        offer = self._offer
        return build_environment(
            offer.device, self._space, data, offer.profile, self._budget, self._seed
        )

    def _start_trainer(
        self, data: Path, readable: list[Path], pass_fds: tuple[int, ...]
    ) -> Trainer:
        env = self._environment(data)
        if pass_fds:
            env["TRAIN_GATE"] = str(pass_fds[0])
        return self._start([TRAINED_FILE], readable, pass_fds, env, self._transcript)

    def _start_server(
        self, argv: list[str], readable: list[Path], pass_fds: list[int], transcript: Transcript
    ) -> Trainer:
        env = self._environment(self._space.root / "data")
        return self._start(argv, readable, tuple(pass_fds), env, transcript)

    def _start(
        self,
        argv: list[str],
        readable: list[Path],
        pass_fds: tuple[int, ...],
        env: dict[str, str],
        transcript: Transcript,
    ) -> Trainer:
        sandbox = self._offer.sandbox
        command = sandbox.command(
            [sandbox.python, *argv],
            scratch=self._space.root,
            cwd=self._space.tree,
            env=env,
            readable=readable,
            pass_fds=pass_fds,
        )
        return Trainer(command, transcript)

    def _check(self, trainer: Trainer, transcript: Transcript, ended: Ended) -> Verdict | None:
        """Raise Fault when the sandbox did not start; tell when the files do not fit into it."""
        if trainer.is_too_big:
            return Verdict(Outcome.INVALID, "its files are too big for the sandbox")
        if not (trainer.is_ready or ended.timed_out):
            raise Fault(f"the sandbox could not start: {transcript.text()[-300:].strip()}")
        return None
