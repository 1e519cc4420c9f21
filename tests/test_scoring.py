"""Scoring by real processes: tiny models, sealed memory, and what is tried against them."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.wire import Outcome
from worker.gate import CHECKPOINT_BYTES, Gate, Tokens, copy_sealed
from worker.scoring import Failed, Scored, Scoring
from worker.settings import OWN_TEMPLATE
from worker.trainer import Command, Trainer
from worker.transcript import Transcript

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
safetensors = pytest.importorskip("safetensors.torch")

V, T, ROWS = 64, 32, 300

#: A model that knows which token follows which; `{}` is what it does to its logits.
MODEL = """\
import torch
import torch.nn.functional as F

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(64, 64)
        self.seen = 0

    def forward(self, tokens):
        logits = self.table(tokens)
        next = F.one_hot(tokens.roll(-1, 1), 64).float()
        {}
        return logits

def build_model():
    return Model()
"""
HONEST = "pass"


# Gate: tokens out, checkpoints in ----------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    for name, content in (("a", range(5)), ("b", range(7))):
        np.save(tmp_path / f"{name}.npy", np.array(content, dtype=np.uint16))
    made = Tokens([tmp_path / "a.npy", tmp_path / "b.npy"])
    yield made
    made.close()


def hear(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    said, files, _, _ = socket.recv_fds(line, 4096, 2)
    return json.loads(said), files


def ready(gate: Gate) -> int:
    gate.trainer_end.sendall(b"r")
    _, (file,) = hear(gate.trainer_end)
    return file


def save(gate: Gate, file: int) -> str:
    socket.send_fds(gate.trainer_end, [b"s"], [file])
    refused: str = hear(gate.trainer_end)[0]["refused"]
    return refused


def test_tokens_come_when_they_are_asked_for_and_the_clock_starts(tokens: Tokens) -> None:
    gate = Gate(tokens, 60)
    assert gate.ready_at is None
    gate.trainer_end.sendall(b"r")
    head, (file,) = hear(gate.trainer_end)
    assert head == {"tokens": [5, 7]}
    assert np.frombuffer(os.pread(file, 100, 0), "<u2").tolist() == [*range(5), *range(7)]
    assert gate.ready_at is not None
    os.close(file)
    gate.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no sealed memory")
def test_nobody_can_change_the_tokens(tokens: Tokens) -> None:
    gate = Gate(tokens, 60)
    file = ready(gate)
    os.fchmod(file, 0o777)
    again = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    for attack in (lambda: os.write(again, b"x"), lambda: os.ftruncate(again, 0)):
        with pytest.raises(PermissionError):
            attack()
    os.close(again)
    os.close(file)
    gate.close()


def test_the_last_checkpoint_in_time_is_kept_as_it_was(tokens: Tokens, tmp_path: Path) -> None:
    gate = Gate(tokens, 60)
    os.close(ready(gate))
    path = tmp_path / "weights"
    for content in (b"the first one", b"the second one"):
        path.write_bytes(content)
        with path.open("rb") as file:
            assert save(gate, file.fileno()) == ""
    path.write_bytes(b"changed afterwards")
    gate.close()
    assert gate.checkpoint is not None
    assert os.pread(gate.checkpoint, 100, 0) == b"the second one"
    os.close(gate.checkpoint)


def test_a_late_checkpoint_is_refused(tokens: Tokens, tmp_path: Path) -> None:
    gate = Gate(tokens, -10)
    os.close(ready(gate))
    (tmp_path / "weights").write_bytes(b"0" * 100)
    with (tmp_path / "weights").open("rb") as file:
        assert save(gate, file.fileno()).endswith("was used up (2 s are allowed)")
    gate.close()
    assert gate.checkpoint is None


def test_checkpoints_that_are_no_plain_files_or_too_big_are_refused(
    tokens: Tokens, tmp_path: Path
) -> None:
    gate = Gate(tokens, 60)
    early, huge = tmp_path / "early", tmp_path / "huge"
    early.write_bytes(b"0" * 100)
    with huge.open("wb") as file:
        file.truncate(CHECKPOINT_BYTES + 1)
    pipe = os.pipe()
    with early.open("rb") as first, huge.open("rb") as second:
        assert save(gate, first.fileno()) == "it came before the training tokens were asked for"
        os.close(ready(gate))
        assert save(gate, second.fileno()).startswith(f"it has {CHECKPOINT_BYTES + 1} bytes")
        assert save(gate, pipe[0]) == "it is not a plain file"
    for end in pipe:
        os.close(end)
    gate.close()
    assert gate.checkpoint is None


# From a checkpoint to a score --------------------------------------------------------------------


class Judge:
    """Scores models of a few lines with one checkpoint, on rows of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        self.rows = random.integers(0, V, (ROWS, T + 1)).astype(np.uint16)
        self.bytes = np.where(np.arange(V) == V - 1, 0, 1 + np.arange(V) % 5).astype(np.int32)
        self.table = torch.randn(V, V, generator=torch.Generator().manual_seed(0))
        np.save(folder / "rows.npy", self.rows)
        np.save(folder / "bytes.npy", self.bytes)
        (folder / "weights").write_bytes(safetensors.save({"table.weight": self.table}))

    def layout(self) -> dict[str, Any]:
        from hashlib import sha256

        rows, counts = self.rows.astype("<u2").tobytes(), self.bytes.astype("<i4").tobytes()
        return {
            "folder": str(self.folder),
            "rows": {"file": "rows.npy", "sha256": sha256(rows).hexdigest()},
            "token_bytes": {"file": "bytes.npy", "sha256": sha256(counts).hexdigest()},
            "sequence_length": T,
            "vocab_size": V,
        }

    def run(
        self,
        forward: str = HONEST,
        level: str = "isolated+audit",
        source: str = MODEL,
        weights: str = "weights",
        seconds: float = 120,
    ) -> Scored:
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        shutil.copy(OWN_TEMPLATE / "prepare.py", tree)
        (tree / "train.py").write_text(source.replace("{}", forward))

        def start(
            argv: list[str], readable: list[Path], files: list[int], transcript: Transcript
        ) -> Trainer:
            env = {"PATH": os.environ["PATH"], "TRAIN_PROFILE": "cpu", "OMP_NUM_THREADS": "1"}
            command = Command([sys.executable, *argv], tree, env, tuple(files))
            return Trainer(command, transcript)

        with (self.folder / weights).open("rb") as file:
            checkpoint = copy_sealed(file.fileno(), os.fstat(file.fileno()).st_size)
        try:
            scoring = Scoring(
                level=level,
                layout=self.layout(),
                checkpoint=checkpoint,
                start=start,
                python=sys.executable,
                is_on_gpu=False,
                seconds=seconds,
                tick=lambda: None,
            )
            return scoring.run()
        finally:
            os.close(checkpoint)

    def expected(self) -> float:
        """Bits per byte of the honest model, in float64."""
        log_p = torch.log_softmax(self.table.double(), dim=-1).numpy()
        counts = self.bytes[self.rows[:, 1:]]
        nats = -log_p[self.rows[:, :-1], self.rows[:, 1:]][counts > 0].sum()
        return float(nats / np.log(2) / counts.sum())


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("judge"))


def test_an_honest_model_gets_its_score_and_passes_the_audit(judge: Judge) -> None:
    scored = judge.run()
    assert scored.val_bpb == pytest.approx(judge.expected(), abs=1e-6)
    assert scored.flag == ""
    assert (scored.metrics["scored_rows"], scored.metrics["audited_rows"]) == (ROWS, ROWS)
    moved = [value for name, value in scored.metrics.items() if name.endswith("_largest")]
    assert moved and max(moved) == 0.0  # type: ignore[type-var]


def test_a_fresh_process_comes_to_the_same_score(judge: Judge) -> None:
    assert judge.run(level="fresh").val_bpb == pytest.approx(judge.expected(), abs=1e-5)


def test_what_looks_ahead_is_flagged_with_the_evidence(judge: Judge) -> None:
    scored = judge.run("logits = logits + 3 * next")
    assert scored.val_bpb is not None and scored.val_bpb < judge.expected()
    assert "log-probabilities 1 or more tokens before the cut moved" in scored.flag
    assert scored.metrics["audit_1_mean"] > 0.5  # type: ignore[operator]
    assert scored.metrics["second_audit_1_mean"] > 0.5  # type: ignore[operator]


def test_what_remembers_other_rows_is_flagged(judge: Judge) -> None:
    memo = (
        "logits = logits + self.seen; "
        "self.seen = self.seen + F.one_hot(tokens[0], 64).float().sum(0)"
    )
    assert "or other rows around" in judge.run(memo).flag


def test_without_an_audit_a_leak_is_scored(judge: Judge) -> None:
    scored = judge.run("logits = logits + 3 * next", level="isolated")
    assert scored.flag == "" and "audited_rows" not in scored.metrics


def test_unnormalized_logits_gain_nothing(judge: Judge) -> None:
    scored = judge.run("logits = logits + 50", level="isolated")
    assert scored.val_bpb == pytest.approx(judge.expected(), abs=1e-4)


@pytest.mark.parametrize(
    ("forward", "outcome", "why"),
    [
        ("logits = logits[..., :-1]", Outcome.CRASH, "a forward pass on made-up tokens: ValueE"),
        ("raise MemoryError('no more')", Outcome.OOM, "made-up tokens: MemoryError: no more"),
        ("logits = logits * float('nan')", Outcome.NAN, "the model's logits are not finite"),
    ],
)
def test_failures_are_told_so_that_an_agent_can_act(
    judge: Judge, forward: str, outcome: Outcome, why: str
) -> None:
    with pytest.raises(Failed, match=why) as failed:
        judge.run(forward, level="isolated")
    assert failed.value.outcome is outcome


def test_what_a_model_says_of_private_rows_reaches_nobody(judge: Judge) -> None:
    tells = "self.seen += 1; assert self.seen < 2, f'the text is {tokens.tolist()}'"
    with pytest.raises(Failed, match="while scoring the private split") as failed:
        judge.run(tells, level="isolated")
    assert "the text is" not in str(failed.value) + failed.value.log


def test_a_crash_of_build_model_comes_with_its_traceback(judge: Judge) -> None:
    source = "def build_model():\n    return {}['depth']\n".replace("{}", "dict()")
    with pytest.raises(Failed, match=r"at build_model\(\): KeyError: 'depth'") as failed:
        judge.run(source=source, level="isolated")
    assert "Traceback" in failed.value.log and "train.py" in failed.value.log


def test_a_pickle_is_never_opened(judge: Judge) -> None:
    bomb = judge.folder / "bomb"
    mark = judge.folder / "exploded"
    bomb.write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    with pytest.raises(Failed, match="at loading the checkpoint: .* is no safetensors file"):
        judge.run(weights="bomb", level="isolated")
    assert not mark.exists()


def test_scoring_that_takes_too_long_is_cut_off(judge: Judge) -> None:
    started = time.monotonic()
    with pytest.raises(Failed, match="scoring took more than 1 s") as failed:
        judge.run("import time; time.sleep(600)", level="isolated", seconds=1)
    assert failed.value.outcome is Outcome.TIMEOUT
    assert time.monotonic() - started < 60
