"""Scoring: from a checkpoint to a score that the trained code cannot talk into.

A trusted scorer (`scorer.py`) holds the private rows; each pass has a model server
(`model_server.py`) in a sandbox of its own, and the one before is dead when the next one is given
its tokens. Levels, from the weakest: `fresh` lets a new process score itself, `isolated` takes
logits only, `isolated+audit` also looks for what a model knew that it should not.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.wire import Outcome
from worker.gate import Tokens, reopen
from worker.trainer import Command, Fault, Trainer
from worker.transcript import Transcript, clean_line

SERVER = Path(__file__).with_name("model_server.py")
SCORER = Path(__file__).with_name("scorer.py")
#: Of many small rows no more than these: what a model remembers shows between batches.
BATCH_ROWS = 64
#: Memory of one batch of logits, by the kind of device.
BATCH_BYTES = {"cpu": 64 * 1024**2, "gpu": 512 * 1024**2}
_ANSWER_BYTES = 64 * 1024


class Failed(Exception):
    """The trained code did not let itself be scored."""

    def __init__(self, outcome: Outcome, why: str, log: str = "") -> None:
        super().__init__(why)
        self.outcome, self.log = outcome, log


@dataclass(slots=True)
class Scored:
    val_bpb: float | None
    #: Why it is not believed; empty while it is.
    flag: str = ""
    metrics: dict[str, float | str] = field(default_factory=dict)


#: Starts a program in a new sandbox: arguments, descriptors, where its output goes.
Start = Callable[[list[str], list[Path], list[int], Transcript], Any]


@dataclass
class Scoring:
    """One checkpoint's way to a score."""

    level: str
    #: What prepare.py says of its files and shapes.
    layout: dict[str, Any]
    checkpoint: int
    #: Starts a model server in a new sandbox.
    start: Start
    #: Of the training environment, outside of any sandbox.
    python: str
    is_on_gpu: bool
    seconds: float
    #: Called often; raises to stop.
    tick: Callable[[], None]

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds
        layout = self.layout
        row = layout["sequence_length"] * layout["vocab_size"] * 4
        fitting = BATCH_BYTES["gpu" if self.is_on_gpu else "cpu"] // row
        batch = max(1, min(BATCH_ROWS, fitting))
        self._plan = {**layout, "batch": batch, "is_on_gpu": self.is_on_gpu}
        self._servers: list[_Server] = []

    def run(self) -> Scored:
        """Raises Failed for what the trained code did wrong, Fault for what is ours."""
        with ExitStack() as stack:
            first = stack.enter_context(self._server())
            if self.level == "fresh":
                return self._score_fresh(first)
            scorer = stack.enter_context(self._scorer())
            # Its imports go on while the first one works; it sees nothing of the commit yet.
            second = stack.enter_context(self._server()) if self.level != "isolated" else None
            answer = self._ask(scorer, "score", first)
            first.end()
            if answer["val_bpb"] is None:
                raise Failed(Outcome.NAN, "the model's logits are not finite")
            scored = Scored(answer["val_bpb"], "", _seconds("score", answer))
            scored.metrics["scored_rows"] = answer["rows"]
            if second is not None:
                self._audit(scorer, second, scored, stack)
            return scored

    def _audit(
        self, scorer: "_Scorer", second: "_Server", scored: Scored, stack: ExitStack
    ) -> None:
        answer = self._ask(scorer, "audit", second)
        second.end()
        scored.metrics |= _seconds("audit", answer) | {"audited_rows": answer["rows"]}
        scored.metrics |= _evidence(answer)
        if not answer["is_suspicious"]:
            return
        third = stack.enter_context(self._server())
        again = self._ask(scorer, "audit", third)
        scored.metrics |= _evidence(again, "second_")
        recurring = sorted(set(answer["odd"]) & set(again["odd"]))
        if recurring:
            scored.flag = _describe(recurring, again)

    def _ask(self, scorer: "_Scorer", what: str, server: "_Server") -> dict[str, Any]:
        """One pass of the scorer over one server."""
        checkpoint = reopen(self.checkpoint)
        head = json.dumps({"do": what}).encode()
        try:
            socket.send_fds(scorer.line, [head], [server.line.fileno(), checkpoint])
        except OSError as error:
            raise Fault(f"the scorer ended: {scorer.said()}") from error
        finally:
            os.close(checkpoint)
        answer = self._wait(scorer.line, scorer.process)
        if answer is None:
            raise Fault(f"the scorer ended: {scorer.said()}")
        if "failed" in answer:
            raise self._failure(answer["failed"], server)
        return answer

    def _score_fresh(self, server: "_Server") -> Scored:
        started = time.monotonic()
        folder = Path(self.layout["folder"])
        files = [reopen(self.checkpoint)]
        for name in ("rows", "token_bytes"):
            files.append(_array(folder / self.layout[name]["file"]))
        plan = {name: self._plan[name] for name in ("sequence_length", "vocab_size", "batch")}
        head = {"do": "fresh", "checkpoint_bytes": os.fstat(files[0]).st_size, **plan}
        with suppress(OSError):  # It may have ended, which is told below.
            socket.send_fds(server.line, [json.dumps(head).encode() + b"\n"], files)
        for file in files:
            os.close(file)
        answer = self._wait(server.line, server.process)
        score = answer.get("val_bpb") if answer else None
        if not isinstance(score, float) or not 0 < score < 100:
            raise self._failure(answer or {"stage": "starting", "why": "it ended"}, server)
        return Scored(score, "", {"score_seconds": round(time.monotonic() - started, 3)})

    def _failure(self, why: dict[str, Any], server: "_Server") -> Failed:
        """What an agent can act on. Words of a server that has seen private rows stay here."""
        stage = clean_line(str(why.get("stage")), 60)
        told = clean_line(str(why.get("why")), 300)
        status = server.process.wait(1)
        out_of_memory = why.get("kind") == "oom" or status == 137
        outcome = Outcome.OOM if out_of_memory else Outcome.CRASH
        if stage == "scoring":
            told = f"the model server ended with status {status}"
            hint = "try evaluate_bpb on the public split"
            return Failed(outcome, f"{told} while scoring the private split: {hint}")
        server.end()
        if not server.process.is_ready:
            raise Fault(f"the sandbox could not start: {server.transcript.text()[-300:].strip()}")
        log = server.transcript.text()[-4000:]
        return Failed(outcome, f"failed when scored, at {stage}: {told}", log)

    def _wait(self, line: socket.socket, process: Trainer) -> dict[str, Any] | None:
        """A line of JSON; None when the other side ended without one."""
        line.settimeout(0.2)
        said = b""
        while not said.endswith(b"\n") and len(said) < _ANSWER_BYTES:
            self.tick()
            if time.monotonic() > self._until:
                raise Failed(Outcome.TIMEOUT, f"scoring took more than {self.seconds:g} s")
            try:
                more = line.recv(4096)
            except TimeoutError:
                if process.wait(0) is not None:
                    return None
                continue
            except OSError:
                more = b""
            if not more:
                return None
            said += more
        try:
            answer = json.loads(said)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    @contextmanager
    def _server(self) -> Iterator["_Server"]:
        ours, theirs = socket.socketpair()
        transcript = Transcript()
        argv = ["-B", str(SERVER), str(theirs.fileno())]
        with ours, ExitStack() as stack:
            try:
                start = self.start(argv, [SERVER], [theirs.fileno()], transcript)
                process = stack.enter_context(start)
            finally:
                theirs.close()
            server = _Server(ours, process, transcript)
            yield server
            server.end()

    @contextmanager
    def _scorer(self) -> Iterator["_Scorer"]:
        ours, theirs = socket.socketpair()
        seconds = max(1.0, self._until - time.monotonic())
        plan = json.dumps({**self._plan, "seconds": seconds})
        argv = [self.python, "-I", "-B", str(SCORER), str(theirs.fileno()), plan]
        env = {name: os.environ[name] for name in _PASSED if name in os.environ}
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        transcript = Transcript()
        command = Command(argv, SCORER.parent, env, (theirs.fileno(),))
        with ours, ExitStack() as stack:
            try:
                process = stack.enter_context(Trainer(command, transcript))
            finally:
                theirs.close()
            yield _Scorer(ours, process, transcript)


_PASSED = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES")


@dataclass
class _Server:
    line: socket.socket
    process: Trainer
    transcript: Transcript

    def end(self) -> None:
        """Have it dead before anything else happens."""
        self.line.close()
        self.process.kill()


@dataclass
class _Scorer:
    line: socket.socket
    process: Trainer
    transcript: Transcript

    def said(self) -> str:
        self.process.kill()
        return clean_line(self.transcript.text()[-300:])


def _array(path: Path) -> int:
    """The content of an .npy file as sealed memory."""
    content = Tokens([path])
    try:
        return content.open()
    finally:
        content.close()


def _seconds(name: str, answer: dict[str, Any]) -> dict[str, float | str]:
    return {
        f"{name}_seconds": round(answer["seconds"], 3),
        f"{name}_load_seconds": round(answer["load_seconds"], 3),
    }


def _evidence(answer: dict[str, Any], prefix: str = "") -> dict[str, float | str]:
    told: dict[str, float | str] = {}
    for bucket in answer["buckets"]:
        name = f"{prefix}audit_{bucket['distance']}"
        told |= {f"{name}_largest": round(bucket["largest"], 6), f"{name}_mean": bucket["mean"]}
    return told


def _describe(recurring: list[int], answer: dict[str, Any]) -> str:
    found = max(
        (b for b in answer["buckets"] if b["distance"] in recurring), key=lambda b: b["excess"]
    )
    return (
        "the model's word for a token depends on more than the tokens before it: with other text "
        f"behind a cut, or other rows around, log-probabilities {found['distance']} or more tokens "
        f"before the cut moved by up to {found['largest']:.2f} nats (mean {found['mean']:+.4f} "
        f"over {found['positions']} positions), in two audits"
    )
