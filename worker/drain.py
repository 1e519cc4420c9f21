"""Drain: SIGTERM and SIGINT. The first one asks to stop, the second one ends the process.

The handler only notes the time, so nothing is interrupted half-way; who waits, waits here. The
exception is `at_once`, for what is safe to cut off.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SLICE_SECONDS = 0.1


class Drained(BaseException):
    """A drain was asked for inside an `at_once` block."""


class Drain:
    def __init__(self) -> None:
        self._at_once = False
        #: When it was asked for, on the monotonic clock.
        self.asked_at: float | None = None

    @property
    def asked(self) -> bool:
        return self.asked_at is not None

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not past the moment a drain is asked for."""
        until, before = time.monotonic() + seconds, self.asked
        while self.asked == before and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_SECONDS))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Drained in here as soon as a drain is asked for."""
        self._at_once = True
        try:
            if self.asked:
                raise Drained
            yield
        finally:
            self._at_once = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            # The keeper of a running trainer sees its line to us break and kills it.
            os._exit(128 + number)
        self.asked_at = time.monotonic()
        if self._at_once:
            raise Drained
