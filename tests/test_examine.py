"""One commit from phase to phase, with trainers of a few lines that need no torch."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server import wire
from server.wire import Outcome
from worker.device import Device
from worker.examine import Watch, examine
from worker.gate import Tokens
from worker.offer import Offer, Phases
from worker.sandbox.base import default_limits
from worker.sandbox.choice import open_sandbox
from worker.settings import OWN_TEMPLATE
from worker.template import Data, load_template
from worker.trainer import Interrupted
from worker.transcript import Transcript
from worker.verdict import Verdict
from worker.workspace import Workspace, restore_frozen

np = pytest.importorskip("numpy")

START = "import os, prepare, sys, time\nenv = prepare.read_environment()\n# build_model\n"
Examine = Callable[..., tuple[Verdict, str]]


@pytest.fixture
def run(tmp_path: Path) -> Examine:
    """Examines a train.py of these lines; also returns what it printed."""
    store = tmp_path / "store"
    store.mkdir()
    for name in ("manifest.json", "tokenizer.tiktoken", "token_bytes.npy", "private.npy"):
        (store / name).write_text("{}")
    np.save(store / "train.npy", np.arange(9, dtype=np.uint16))
    tokens = Tokens([store / "train.npy"])
    template = load_template(OWN_TEMPLATE)

    def examine_lines(
        lines: str, start: str = START, watch: Watch | None = None, **phases: float
    ) -> tuple[Verdict, str]:
        claim = wire.Claim(
            platform="cpu", budget_seconds=1, data_fingerprint="f" * 64, scoring="isolated"
        )
        offer = Offer(
            claim=claim,
            device=Device("cpu", "cpu", "cpu"),
            profile="cpu",
            budget_seconds=1,
            grace_seconds=60,
            sandbox=open_sandbox("none", sys.executable, "", [], tmp_path, default_limits()),
            template=template,
            data=Data(template, sys.executable, "cpu", store),
            phases=Phases(**phases),
            layout={
                "folder": str(store),
                "below": "cpu/v3",
                "handed_out": ["manifest.json", "tokenizer.tiktoken", "token_bytes.npy"],
            },
            tokens=tokens,
        )
        space = Workspace(tmp_path / "space")
        shutil.rmtree(space.root, ignore_errors=True)
        for folder in (space.tree, space.home, space.tmp):
            folder.mkdir(parents=True)
        (space.tree / "train.py").write_text(start + lines)
        restore_frozen(space.tree, template)
        transcript = Transcript()
        watch = watch or Watch(time.monotonic() + 120)
        verdict, _ = examine(offer, space, 1, 7, transcript, watch)
        return verdict, transcript.text()

    return examine_lines


def test_before_the_clock_starts_there_are_no_tokens_and_no_validation_text(run: Examine) -> None:
    _, log = run("print(sorted(p.name for p in env.folder.iterdir()))")
    assert log == "['manifest.json', 'token_bytes.npy', 'tokenizer.tiktoken']\n"


def test_the_clock_brings_the_tokens_once(run: Examine) -> None:
    verdict, log = run(
        "clock = prepare.Clock(env)\n"
        "print(prepare._open_tokens(env, {})[0].tolist(), clock.progress(0) < 1)\n"
    )
    assert log == "[0, 1, 2, 3, 4, 5, 6, 7, 8] True\n"
    assert verdict.metrics["startup_phase_seconds"] > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("lines", "phases", "outcome", "why"),
    [
        ("time.sleep(600)", {"startup": 1}, Outcome.TIMEOUT, "not ready to train after 1 s"),
        (
            "prepare.Clock(env); time.sleep(600)",
            {"save": 1},
            Outcome.TIMEOUT,
            "no checkpoint 1 s after the budget of 1 s was used up",
        ),
        ("print('---'); print('val_bpb: 0.9')", {}, Outcome.CRASH, "without asking for training"),
        ("prepare.Clock(env)", {}, Outcome.CRASH, "without a checkpoint: call prepare.save_che"),
        ("1 / 0", {}, Outcome.CRASH, "ZeroDivisionError: division by zero"),
        (
            "prepare.Clock(env); g = prepare._open_gate(env.gate); g._socket.sendall(b's')\n"
            "print(g._hear()); sys.exit(1)",
            {},
            Outcome.CRASH,
            "the checkpoint was refused: it is not a plain file",
        ),
    ],
)
def test_what_leaves_no_checkpoint_is_told(
    run: Examine, lines: str, phases: dict[str, float], outcome: Outcome, why: str
) -> None:
    verdict, _ = run(lines, **phases)
    assert (verdict.outcome, verdict.val_bpb) == (outcome, None)
    assert why in verdict.description


def test_code_without_build_model_is_not_even_trained(run: Examine) -> None:
    verdict, log = run("print('started')", start="")
    assert (verdict.outcome, log) == (Outcome.INVALID, "")
    assert "only a worker with `--scoring inline` can score it" in verdict.description


def test_an_interruption_ends_it_at_once(run: Examine) -> None:
    watch = Watch(time.monotonic() + 120, lambda: "drain")
    with pytest.raises(Interrupted, match="drain"):
        run("time.sleep(600)", watch=watch)
