"""Lease: a run held while it is worked on, by a thread that sends heartbeats.

A hub that is away is asked again and again; a lease that is lost, or a run that the hub cancels,
is noted for the main thread, which looks at `interruption` and stops the trainer.
"""

import threading
import time
from collections.abc import Callable
from math import isfinite
from types import TracebackType
from typing import Self

from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire
from worker.patience import is_passing
from worker.transcript import Progress

DEFAULT_HEARTBEAT_SECONDS = 15.0
#: After a heartbeat that did not arrive.
RETRY_SECONDS = 2.0
#: For a heartbeat under way when the block is left; it may then end on its own.
JOIN_SECONDS = 1.0


class Lease:
    """Keeps `run` leased inside its `with` block, telling the hub what `progress` says."""

    def __init__(
        self, hub: HubClient, run: wire.Run, progress: Callable[[], Progress | None]
    ) -> None:
        self.lost = False
        self.cancelled = False
        self._hub, self._run, self._progress = hub, run, progress
        self.heartbeat_seconds = run.heartbeat_seconds or DEFAULT_HEARTBEAT_SECONDS
        self._renewed_at = time.monotonic()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def interruption(self) -> str:
        """Why the training should stop; empty while all is well."""
        if self.lost:
            return "lease lost"
        return "cancelled by the hub" if self.cancelled else ""

    @property
    def age_seconds(self) -> float:
        """Time since the hub last renewed it."""
        return time.monotonic() - self._renewed_at

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join(JOIN_SECONDS)

    def _beat(self) -> None:
        pause = self.heartbeat_seconds
        while not self._left.wait(pause) and not self.interruption:
            pause = self.heartbeat_seconds if self._renew() else RETRY_SECONDS
            pause = min(pause, self.heartbeat_seconds)

    def _renew(self) -> bool:
        asked_at = time.monotonic()
        try:
            answer = self._hub.heartbeat(self._run.id, self._report())
        except HubUnreachable:
            return False
        except ApiError as error:
            self.lost = not is_passing(error)
            return False
        self._renewed_at = asked_at
        self.cancelled = answer.cancel
        return True

    def _report(self) -> wire.Heartbeat:
        last = self._progress()
        if last is None:
            return wire.Heartbeat(fence=self._run.fence)
        loss = last.loss if last.loss is not None and isfinite(last.loss) else None
        tokens = last.tokens if last.tokens is not None and last.tokens < 2**62 else None
        return wire.Heartbeat(
            fence=self._run.fence,
            step=last.step,
            progress=last.fraction,
            loss=loss,
            tokens=tokens,
        )
