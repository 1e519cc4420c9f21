"""Transcript: what a trainer printed, kept in bounded memory however much it prints.

Holds the tail of the text, the last progress line and the last summary block: autoresearch's
`key: value` lines after a line `---`. Everything in it is a stranger's word; `clean` is the way
to a terminal or to the hub.
"""

import re
from dataclasses import dataclass

TAIL_BYTES = 256 * 1024
LINE_BYTES = 1024

_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
_PROGRESS = re.compile(r"step\s+(\d+)\s+\((\d+(?:\.\d+)?)%\)")
_FIELD = re.compile(r"([a-z_/]+(?: [a-z_]+)?):\s*([^|]*)")
_TOKENS_PER_STEP = re.compile(r"([\d,]{1,15}) tokens per step")
_SUMMARY = re.compile(r"([A-Za-z]\w{0,63}):\s+(\S.*)")


@dataclass(frozen=True, slots=True)
class Progress:
    """One progress line, e.g. `step 00012 (3.4%) | loss: 5.1234 | … | tok/s: 13,562 | …`."""

    step: int
    fraction: float
    loss: float | None = None
    tokens_per_second: float | None = None
    tokens: int | None = None


class Transcript:
    def __init__(self) -> None:
        self.progress: Progress | None = None
        #: Of the last block; None before the first `---`.
        self.summary: dict[str, str] | None = None
        #: Whether it said FAIL, autoresearch's word for a loss that ran away.
        self.failed = False
        self._tail = bytearray()
        self._line = bytearray()
        self._tokens_per_step: int | None = None

    def feed(self, output: bytes) -> None:
        self._tail += output
        del self._tail[: -TAIL_BYTES or None]
        *lines, rest = (self._line + output).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._read_line(line[:LINE_BYTES].decode(errors="replace").strip())
        self._line = rest[:LINE_BYTES]

    def close(self) -> None:
        """Read a last line that has no end."""
        if self._line:
            self.feed(b"\n")

    def text(self) -> str:
        return clean(self._tail.decode(errors="replace"))

    def _read_line(self, line: str) -> None:
        if line == "---":
            self.summary = {}
        elif self.summary is not None and (pair := _SUMMARY.fullmatch(line)):
            if len(self.summary) < 64:
                self.summary[pair[1]] = pair[2]
        elif line.startswith("step "):
            self._read_progress(line)
        elif line.startswith("FAIL"):
            self.failed = True
        elif told := _TOKENS_PER_STEP.search(line):
            self._tokens_per_step = int(to_number(told[1]) or 0) or None

    def _read_progress(self, line: str) -> None:
        match = _PROGRESS.match(line)
        if match is None or len(match[1]) > 18:
            return
        fields = dict(_FIELD.findall(line))
        step = int(match[1])
        self.progress = Progress(
            step=step,
            fraction=min(1.0, float(match[2]) / 100),
            loss=to_number(fields.get("loss", "")),
            tokens_per_second=to_number(fields.get("tok/s") or fields.get("tok/sec") or ""),
            tokens=step * self._tokens_per_step if self._tokens_per_step else None,
        )


def to_number(text: str) -> float | None:
    """`13,562` as a number, NaN and infinities included; None when it is none."""
    try:
        return float(text.strip().replace(",", "").rstrip("%"))
    except ValueError:
        return None


def clean(text: str) -> str:
    """Text without colours, carriage returns and other invisible characters."""
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def clean_line(text: str, length: int = 500) -> str:
    """The same as one line."""
    return re.sub(r"[\n\t]+", " ", clean(text)).strip()[:length]
