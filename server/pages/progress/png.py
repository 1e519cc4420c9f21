"""The picture as pixels, made in a process of its own.

The renderer is native code that holds the interpreter's lock for some tenths of a second; in the
hub's process every other answer would wait for it, and its memory would stay.
"""

import logging
import subprocess
import sys
from pathlib import Path
from threading import BoundedSemaphore

from server import errors

log = logging.getLogger("agenthub")

#: Run as a file, so that no folder of the same name where the hub was started comes between.
_PROGRAM = Path(__file__).with_name("pixels.py")
#: Pictures rendered at once, and how long others wait for their turn.
_AT_ONCE = 2
_PATIENCE_SECONDS = 5
_DEADLINE_SECONDS = 30
_turns = BoundedSemaphore(_AT_ONCE)
_HINT = "/progress.svg is the same picture and costs little; or try again in a moment"


def render_png(svg: str) -> bytes:
    """Render a standalone SVG; raise Unavailable when that fails or the hub is too busy for it."""
    if not _turns.acquire(timeout=_PATIENCE_SECONDS):
        raise errors.Unavailable("too many pictures at once", _HINT)
    try:
        return _render(svg)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("no PNG: %s %s", error, getattr(error, "stderr", b""))
        raise errors.Unavailable("the picture could not be rendered", _HINT) from error
    finally:
        _turns.release()


def _render(svg: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-I", str(_PROGRAM)],
        input=svg.encode(),
        capture_output=True,
        timeout=_DEADLINE_SECONDS,
        check=True,
    )
    return done.stdout
