"""Patience: calls to a hub that may be away, busy or restarting, with growing pauses between.

Says once that the hub is away and once that it is back. A refused key is final.
"""

import random
import time
from collections.abc import Callable
from math import inf
from typing import TypeVar

from ah_cli.client import ApiError, HubUnreachable
from worker.drain import Drain
from worker.settings import Refused

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: How long a last word to the hub is tried after a drain was asked for.
DRAIN_SECONDS = 6.0


def is_passing(error: ApiError) -> bool:
    """Whether the same call may work later."""
    return error.status >= 500 or error.status == 429


class Patience:
    def __init__(self, drain: Drain, say: Callable[[str], None]) -> None:
        self._drain = drain
        self._say = say

    def call(self, act: Callable[[], T], until: float = inf, after_drain: float = 0.0) -> T:
        """Call until the hub answers, at most until `until` on the monotonic clock.

        Raises Refused when the hub does not take the key, and the last error when time is up,
        when a drain is asked for, or when the hub refuses for another lasting reason.
        """
        pause = FIRST_PAUSE_SECONDS
        told = False
        while True:
            try:
                answer = act()
            except (ApiError, HubUnreachable) as error:
                if not self._may_retry(error, until, after_drain):
                    raise
                if not told:
                    self._say(f"{error}; trying again")
                told = True
                self._drain.sleep(_jitter(pause, error))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if told:
                    self._say("the hub is back")
                return answer

    def _may_retry(
        self, error: ApiError | HubUnreachable, until: float, after_drain: float
    ) -> bool:
        if isinstance(error, ApiError):
            if error.status in (401, 403):
                raise Refused(f"the hub refuses this key: {error}") from error
            if not is_passing(error):
                return False
        if self._drain.asked_at is not None:
            until = min(until, self._drain.asked_at + after_drain)
        return time.monotonic() < until


def _jitter(pause: float, error: ApiError | HubUnreachable) -> float:
    wanted = error.retry_after if isinstance(error, ApiError) else None
    return max(pause * random.uniform(0.5, 1.0), min(wanted or 0, LONGEST_PAUSE_SECONDS))  # noqa: S311
