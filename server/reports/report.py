"""One training as an agent tells it, and how the values in it are read."""

import re
from dataclasses import dataclass
from typing import Literal

Status = Literal["keep", "discard", "crash"]

DESCRIPTION_CHARS = 2_000
#: Of a commit, a platform, a score.
WORD_CHARS = 64

HASH = re.compile(r"[0-9a-f]{7,40}")
#: Inside a character class of a regular expression.
DASHES = r"\u2013\u2014-"

_NUMBER = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)(?:bpb|gi?b|(?:±|\+/-|\().*)?"
)
_NONE = re.compile(rf"[{DASHES}]+|n/?a|none|null|crash(?:ed)?|oom|fail(?:ed)?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)")
_NUMERIC = re.compile(r"[+-]?\.?[0-9]")


@dataclass(frozen=True, slots=True)
class Report:
    #: 7 to 40 lowercase hex digits; from a file also any other word, see `has_hash`.
    commit: str
    platform: str | None
    #: None without a usable number; a crash never has one.
    val_bpb: float | None
    #: As it was written, at most 64 characters.
    raw_val_bpb: str
    vram_gb: float | None
    status: Status
    description: str
    #: Why the score that was given is no usable number; None also when no score was given.
    flaw: str | None = None

    @property
    def has_hash(self) -> bool:
        """False for a row that names no commit, such as autoresearch's first: `baseline`."""
        return HASH.fullmatch(self.commit) is not None


@dataclass(frozen=True, slots=True)
class Score:
    raw: str
    value: float | None = None
    flaw: str | None = None


def read_score(raw: str) -> Score | None:
    """None for a word that tells no score, such as `pending`; `---` tells that there is none."""
    text = raw.lower().replace("\u2212", "-")
    raw = flatten(raw)[:WORD_CHARS]
    if _NONE.fullmatch(text):
        return Score(raw)
    if _NOT_FINITE.fullmatch(text):
        return Score(raw, flaw="not finite")
    number = _NUMBER.fullmatch(text) if len(text) <= WORD_CHARS else None
    if number is None:
        return Score(raw, flaw="not a number") if _NUMERIC.match(text) else None
    value = float(number[1])
    if value == float("inf"):
        return Score(raw, flaw="not finite")
    return Score(raw, value) if value > 0 else Score(raw, flaw="not above 0")


def make_report(
    commit: str, platform: str | None, score: Score, vram: str, status: Status, description: str
) -> Report:
    memory = read_score(vram)
    crashed = status == "crash"
    return Report(
        commit,
        platform,
        None if crashed else score.value,
        score.raw,
        memory.value if memory else None,
        status,
        flatten(description)[:DESCRIPTION_CHARS].rstrip(),
        None if crashed else score.flaw,
    )


def flatten(text: str) -> str:
    """One line of printable words."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def split_lines(text: str) -> list[str]:
    # Not `splitlines`, which also splits at characters that no editor counts as a line's end.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
