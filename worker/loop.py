"""Loop: claim a run, train its commit, report the outcome; until told to stop.

What the trained code does wrong is reported as a result. What fails on our side gives the run
back to the queue, and three such faults in a row end the worker, so that one broken machine
cannot spoil a queue.
"""

import re
import shutil
import signal
import time
from contextlib import suppress
from functools import partial
from math import ceil, inf

from ah_cli import git, transfer
from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire
from worker.drain import Drain
from worker.examine import Watch, examine
from worker.exits import Exit
from worker.lease import Lease
from worker.offer import Offer
from worker.patience import DRAIN_SECONDS, Patience, is_passing
from worker.settings import Refused
from worker.trainer import POLITE_SECONDS, Ended, Fault, Interrupted
from worker.transcript import Transcript, clean_line
from worker.verdict import Verdict
from worker.view import PlainView
from worker.workspace import Cache, InvalidTree, Workspace

#: Short, so that a drain need not cut a claim off: what it was granted would be lost.
CLAIM_WAIT_SECONDS = 5
#: The hub's deadline less this is ours: room to end a trainer and to report.
MARGIN_SECONDS = POLITE_SECONDS + 5
#: How long the hub is told of a result or a release at least.
REPORT_SECONDS = 60.0
FAULTS_MAX = 3
#: With less room on the disk, a crash is the disk's.
FREE_BYTES = 64 * 1024 * 1024
FAULT_PAUSE_SECONDS = 1.0
LOG_TAIL_CHARS = 12_000
#: What a training says that lost a package, be it for its own or for our doing.
IMPORT_FAILED = re.compile(r"ImportError|ModuleNotFoundError|cannot open shared object")


class Loop:
    def __init__(
        self,
        hub: HubClient,
        offer: Offer,
        cache: Cache,
        view: PlainView,
        drain: Drain,
        patience: Patience,
    ) -> None:
        self._hub, self._offer, self._cache = hub, offer, cache
        self._view, self._drain, self._patience = view, drain, patience
        self._faults = 0
        #: Why this machine was last at fault.
        self.last_fault = ""

    def work(self, max_runs: int | None = None, idle_exit_seconds: float | None = None) -> int:
        """Work until drained, done or idle too long; return the exit code of the process."""
        runs = 0
        idle_until = _idle_until(idle_exit_seconds)
        while not self._drain.asked and (max_runs is None or runs < max_runs):
            run = self._claim(idle_until)
            if run is not None:
                runs += 1
                self._handle(run)
                idle_until = _idle_until(idle_exit_seconds)
            elif time.monotonic() >= idle_until:
                self._view.note(f"nothing to do for {idle_exit_seconds:g} s")
                break
            if self._faults == FAULTS_MAX:
                self._view.quarantined(
                    f"{FAULTS_MAX} faults of this machine in a row, the last: {self.last_fault}"
                )
                return Exit.QUARANTINED
        return Exit.DONE

    def _claim(self, idle_until: float) -> wire.Run | None:
        asked_at = time.monotonic()
        wait = max(0, ceil(min(CLAIM_WAIT_SECONDS, idle_until - asked_at)))
        try:
            run = self._patience.call(partial(self._hub.claim, self._offer.claim, wait), idle_until)
        except HubUnreachable:
            return None
        except ApiError as error:
            if is_passing(error):
                return None
            raise Refused(f"the hub refuses the claim: {error}") from error
        if run is None and wait and time.monotonic() - asked_at < 1:
            self._drain.sleep(1)  # A hub that does not wait must not be asked without pause.
        return run

    def _handle(self, run: wire.Run) -> None:
        started = time.monotonic()
        transcript = Transcript()
        self._view.claimed(run)
        held = self._cache.holding(self._hub.url, run.id, run.fence)
        with held, Lease(self._hub, run, lambda: transcript.progress) as lease:
            try:
                verdict = self._train(run, lease, transcript, started)
            except Interrupted as stop:
                self._give_back(run, lease, str(stop), fault=False)
            except (Fault, git.GitError, OSError, HubUnreachable, ApiError) as error:
                # Ctrl-C reaches git too; what fails in a drain is no fault.
                fault = not self._drain.asked
                if fault:
                    self._blame(str(error))
                self._give_back(run, lease, str(error), fault=fault)
            else:
                self._report(run, verdict, transcript, started)
        with suppress(git.GitError, OSError):
            self._cache.mirror.trim()
        if 0 < self._faults < FAULTS_MAX:
            self._drain.sleep(self._faults * FAULT_PAUSE_SECONDS)

    def _train(
        self, run: wire.Run, lease: Lease, transcript: Transcript, started: float
    ) -> Verdict:
        offer = self._offer
        budget = run.budget_seconds or offer.budget_seconds
        limit = min(budget + offer.grace_seconds, _hub_limit(run) - MARGIN_SECONDS)
        with self._cache.workspace() as space:
            try:
                self._fill(space, run.commit, started + limit)
            except InvalidTree as error:
                return Verdict(wire.Outcome.INVALID, clean_line(str(error)))
            watch = Watch(
                started + limit,
                lambda: "drain" if self._drain.asked else lease.interruption,
                lambda phase: self._view.progress(run, transcript.progress, lease, phase),
            )
            verdict, ended = examine(offer, space, budget, run.seed, transcript, watch)
        if verdict.outcome is wire.Outcome.CRASH:
            self._clear_of_blame(ended, transcript)
        return verdict

    def give_back_left(self) -> None:
        """Give back at once what died with workers of this cache, before its leases pass."""
        for held in self._cache.left:
            if held.hub != self._hub.url:
                continue
            release = wire.Release(fence=held.fence, reason="its worker died", fault=True)
            # Another key's, or it has ended: then there is nothing to give back.
            with suppress(HubUnreachable, ApiError):
                self._hub.release(held.run, release)
                self._view.note(f"run {held.run} of a worker that died goes back to the queue")

    def _fill(self, space: Workspace, hash: str, until: float) -> None:
        with self._cache.mirror.using(hash):
            self._fetch(hash, until)
            whole = self._offer.scoring == "inline"
            self._cache.fill(space, hash, self._offer.template, whole=whole)

    def _fetch(self, hash: str, until: float) -> None:
        mirror = self._cache.mirror
        if mirror.has_commit(hash):
            return
        bundle = self._cache.bundle_path(hash)
        try:
            bring = partial(transfer.fetch, self._hub, hash, bundle, mirror.path)
            self._patience.call(bring, until)
            mirror.keep(hash)
        finally:
            bundle.unlink(missing_ok=True)
        if self._drain.asked:
            raise Interrupted("drain")

    def _clear_of_blame(self, ended: Ended, transcript: Transcript) -> None:
        """Raise when a crash was not the code's doing: no room, lost data or packages, a drain."""
        if ended.status == 128 + signal.SIGTERM:
            self._drain.sleep(1)  # Who stops a whole group of processes hits the trainer first.
            if self._drain.asked:
                raise Interrupted("drain")
        if shutil.disk_usage(self._cache.mirror.path).free < FREE_BYTES:
            raise Fault("the disk is full")
        if self._offer.data.find_fingerprint() != self._offer.claim.data_fingerprint:
            raise Fault("the data changed while this worker ran; start it again")
        if IMPORT_FAILED.search(transcript.text()):
            self._offer.data.check_imports()

    def _report(
        self, run: wire.Run, verdict: Verdict, transcript: Transcript, started: float
    ) -> None:
        seconds = time.monotonic() - started
        facts = {"device": self._offer.device.model, "sandbox": self._offer.claim.sandbox}
        result = wire.ResultCreate(
            fence=run.fence,
            outcome=verdict.outcome,
            val_bpb=verdict.val_bpb,
            metrics={**verdict.metrics, **facts, "worker_seconds": round(seconds, 3)},
            description=verdict.description,
            log_tail=transcript.text()[-LOG_TAIL_CHARS:],
        )
        until = max(started + min(_hub_limit(run), 1e6), time.monotonic() + REPORT_SECONDS)
        try:
            self._patience.call(partial(self._hub.finish, run.id, result), until, DRAIN_SECONDS)
        except (HubUnreachable, ApiError) as error:
            if isinstance(error, HubUnreachable) or error.status != 409:
                self._blame(f"a result was not taken: {error}")
            self._view.dropped(run, f"the result {verdict.outcome} was not taken: {error}")
        else:
            self._faults = 0
            self._view.finished(run, verdict, seconds)

    def _blame(self, fault: str) -> None:
        """Count a fault of this machine."""
        self._faults += 1
        self.last_fault = clean_line(fault)

    def _give_back(self, run: wire.Run, lease: Lease, reason: str, *, fault: bool) -> None:
        self._view.dropped(run, reason, fault=fault)
        if lease.lost:
            return
        release = wire.Release(fence=run.fence, reason=clean_line(reason) or "unknown", fault=fault)
        until = time.monotonic() + REPORT_SECONDS
        try:
            self._patience.call(partial(self._hub.release, run.id, release), until, DRAIN_SECONDS)
        except (HubUnreachable, ApiError) as error:
            self._view.note(f"run {run.id} could not be given back: {error}")


def _idle_until(idle_exit_seconds: float | None) -> float:
    return inf if idle_exit_seconds is None else time.monotonic() + idle_exit_seconds


def _hub_limit(run: wire.Run) -> float:
    """How long the hub waits for this run: the difference of two times of its own clock."""
    if run.deadline is None or run.started_at is None:
        return inf
    return (run.deadline - run.started_at).total_seconds()
