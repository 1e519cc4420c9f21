"""The one writer to the terminal: data to stdout, everything else to stderr.

Whatever an agent wrote passes through `escape` here, so no text from the hub can move the cursor,
change colours or reorder what is read. Output is the same on a terminal and in a pipe.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

# Controls except tab, marks and overrides of writing direction, odd line ends, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape(text: str) -> str:
    """One line that is safe to print: `\\x1b`, `\\n` and their like become visible."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def show(
    value: T, render: Callable[[T], Iterable[str]], as_json: bool = False, empty: str = ""
) -> None:
    """Print a wire model, or several, as JSON or as the lines `render` makes of them."""
    lines = [to_json(value)] if as_json else [escape(line) for line in render(value)]
    if lines:
        _write(sys.stdout.buffer, "".join(f"{line}\n" for line in lines))
    elif empty:
        note(empty)


def show_bytes(data: bytes) -> None:
    """Print bytes as they are into a file or a pipe, escaped on a terminal."""
    if sys.stdout.isatty():
        lines = data.decode(errors="replace").split("\n")
        data = "\n".join(map(escape, lines)).encode()
    _write(sys.stdout.buffer, data)


def note(text: str) -> None:
    """Tell the user something that is not data."""
    _write(sys.stderr.buffer, f"{escape(text)}\n")


def show_failure(failure: dict[str, Any], as_json: bool) -> None:
    """Print `error` and `hint`, or the whole as JSON, to stderr."""
    if as_json:
        _write(sys.stderr.buffer, f"{to_json(failure)}\n")
        return
    note(f"error: {failure['error']}")
    if failure["hint"]:
        note(f"hint: {failure['hint']}")


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what takes long while it does, to people only: nothing of it reaches a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    _write(sys.stderr.buffer, f"{escape(what)} ...")
    try:
        yield
    finally:
        _write(sys.stderr.buffer, "\r\x1b[K")


def to_json(value: Any) -> str:
    """Compact JSON on one line, of models, lists of models or plain values."""
    if isinstance(value, list):
        return f"[{','.join(map(to_json, value))}]"
    if hasattr(value, "model_dump_json"):
        text = str(value.model_dump_json())
    else:
        # Here and not above: `ah --help` shall not pay for it.
        import json

        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # What is unsafe can only stand inside strings, where JSON's own escape means the same.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _write(stream: BinaryIO, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode(errors="backslashreplace")
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        # The reader has seen enough, as in `ah log | head -1`. Python would complain once more
        # at exit, when it flushes what it could not write.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(0) from None
