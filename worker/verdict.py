"""Verdict: how a training ended, told from its exit status and its transcript.

What the trained code did wrong is an outcome, never an exception.
"""

import re
import signal
from dataclasses import dataclass, field
from math import isfinite

from server.wire import Outcome
from worker.trainer import Ended
from worker.transcript import Transcript, clean_line, to_number

#: Scores from here on do not fit the wire.
WORST_VAL_BPB = 100.0
METRICS = (
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "num_params_M",
    "depth",
)

_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError|MemoryError|bad_alloc", re.IGNORECASE)
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Iteration|Warning)\b.*")
_TRACEBACK = "Traceback (most recent call last):"
_END_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    #: Empty when the outcome is ok.
    description: str = ""
    val_bpb: float | None = None
    metrics: dict[str, float | str] = field(default_factory=dict)


def judge(ended: Ended, transcript: Transcript) -> Verdict:
    summary = transcript.summary or {}
    numbers = {name: to_number(summary.get(name, "")) for name in METRICS}
    metrics: dict[str, float | str] = {
        name: number for name, number in numbers.items() if number is not None and isfinite(number)
    }
    outcome, description = _tell(ended, transcript)
    val_bpb = to_number(summary.get("val_bpb", "")) if outcome is Outcome.OK else None
    return Verdict(outcome, clean_line(description), val_bpb, metrics)


def _tell(ended: Ended, transcript: Transcript) -> tuple[Outcome, str]:
    if ended.timed_out:
        return Outcome.TIMEOUT, f"still running after {ended.seconds:.0f} s"
    if ended.status == 0:
        return _read_score(transcript)
    return _explain(ended.status, transcript)


def _read_score(transcript: Transcript) -> tuple[Outcome, str]:
    told = (transcript.summary or {}).get("val_bpb")
    if told is None:
        return Outcome.CRASH, "ended without a summary: no val_bpb after a line `---`"
    score = to_number(told)
    if score is None or 0 < score < WORST_VAL_BPB:
        return (Outcome.CRASH, f"val_bpb is no number: {told}") if score is None else _OK
    if not isfinite(score):
        return Outcome.NAN, f"val_bpb is {score}"
    return Outcome.CRASH, f"val_bpb of {score} is no possible score"


_OK = (Outcome.OK, "")


def _explain(status: int, transcript: Transcript) -> tuple[Outcome, str]:
    """Why it ended with another status than 0."""
    end = transcript.text()[-_END_CHARS:]
    end = end[max(end.rfind(_TRACEBACK), 0) :]
    lines = [line for line in end.splitlines() if line.strip()]
    named = [line for line in lines if _EXCEPTION.fullmatch(line)]
    if status == 128 + signal.SIGKILL:
        return Outcome.OOM, "killed by the system (SIGKILL), most likely out of memory"
    if _OUT_OF_MEMORY.search(end):
        told = [line for line in lines if _OUT_OF_MEMORY.search(line)]
        return Outcome.OOM, told[-1]
    if transcript.failed and not named:
        told = [line for line in lines if line.startswith("FAIL")]
        return Outcome.NAN, told[-1] if told else "FAIL"
    if _lost_its_loss(transcript):
        return Outcome.NAN, f"loss is {transcript.progress.loss}" if transcript.progress else ""
    return Outcome.CRASH, named[-1] if named else _describe(status, lines)


def _lost_its_loss(transcript: Transcript) -> bool:
    loss = transcript.progress.loss if transcript.progress else None
    return loss is not None and not isfinite(loss)


def _describe(status: int, lines: list[str]) -> str:
    if status > 128:
        try:
            return f"killed by {signal.Signals(status - 128).name}"
        except ValueError:
            pass
    return f"exit status {status}: {lines[-1].strip()}" if lines else f"exit status {status}"
