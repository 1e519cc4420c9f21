"""Bundles as they are served: each is written once and read by many, from a bounded cache.

What a bundle holds follows from its tip and from what its receiver must have, so these two are
its key, whatever the receiver said it has. The files are this process's own and end with it:
none outlives a crash, so none can be served torn.
"""

import asyncio
import hashlib
import itertools
import threading
from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from weakref import WeakValueDictionary

from fastapi.concurrency import run_in_threadpool

from server.kept import Shelf
from server.repo import BareRepo, Plan
from server.scratch import Scratch

LIMIT_BYTES = 256 * 2**20
#: Most bundles are tiny, and files are not free either.
LIMIT_FILES = 4096
#: Longer histories are written two at a time: others wait for their turn without a thread.
_LARGE_COMMITS = 200
_LARGE_AT_ONCE = 2
_CHECKSUM_BYTES = 20
_PLANS_MAX = 1000
#: Sent from memory up to this size.
_BODY_BYTES = 2**20


@dataclass(slots=True, eq=False)
class Bundle:
    key: str
    path: Path
    size: int
    #: The key and the checksum of the bytes: those may differ when it is written again.
    etag: str
    readers: int = 0


class Bundles:
    """Hands out bundles; safe with many readers of one bundle at once."""

    def __init__(
        self,
        repo: BareRepo,
        folder: Path,
        limit_bytes: int = LIMIT_BYTES,
        limit_files: int = LIMIT_FILES,
    ) -> None:
        self._repo = repo
        # A long increment takes longer to walk than to send.
        self._plans: OrderedDict[tuple[str, frozenset[str]], Plan] = OrderedDict()
        #: By ETag.
        self._bodies: Shelf[str, bytes] = Shelf(len)
        self._scratch = Scratch(folder)
        self._numbers = itertools.count()
        self._limits = limit_bytes, limit_files
        self._lock = threading.Lock()
        #: The least recently used one first.
        self._kept: OrderedDict[str, Bundle] = OrderedDict()
        self._bytes = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    def close(self) -> None:
        self._scratch.close()

    def plan(self, tip: str, have: frozenset[str]) -> Plan:
        """What to send to somebody who has these commits, all of them stored here."""
        plan = self._repo.plan_bundle(tip, have)
        with self._lock:
            self._plans[tip, have] = plan
            if len(self._plans) > _PLANS_MAX:
                self._plans.popitem(last=False)
        return plan

    def find_plan(self, tip: str, have: frozenset[str]) -> Plan | None:
        """The same, if it is at hand."""
        with self._lock:
            found = self._plans.get((tip, have))
            if found:
                self._plans.move_to_end((tip, have))
        return found

    async def open(self, plan: Plan) -> Bundle:
        """The bundle, to be given back by `release`; its file stays until then.

        When several ask for one that is not there, one writes it and the others wait.
        """
        key = key_of(plan)
        if found := self._find(key):
            return found
        async with self._turns.setdefault(key, asyncio.Lock()):
            if found := self._find(key):
                return found
            async with AsyncExitStack() as stack:
                if plan.commits is None or plan.commits > _LARGE_COMMITS:
                    await stack.enter_async_context(self._large)
                return await run_in_threadpool(self._write, key, plan)

    def read(self, bundle: Bundle) -> bytes | None:
        """The bytes of an open bundle, from memory if they are there; None of a large one."""
        if bundle.size > _BODY_BYTES:
            return None
        body = self._bodies.get(bundle.etag)
        if body is None:
            body = bundle.path.read_bytes()
            self._bodies.put(bundle.etag, body)
        return body

    def release(self, bundle: Bundle) -> None:
        with self._lock:
            bundle.readers -= 1
            is_over = not bundle.readers and self._kept.get(bundle.key) is not bundle
        if is_over:
            bundle.path.unlink(missing_ok=True)

    def _find(self, key: str) -> Bundle | None:
        with self._lock:
            found = self._kept.get(key)
            if found:
                self._kept.move_to_end(key)
                found.readers += 1
        return found

    def _write(self, key: str, plan: Plan) -> Bundle:
        path = self._scratch.path / f"{next(self._numbers)}.bundle"
        try:
            self._repo.write_bundle(plan.tip, path, plan.boundary)
            with path.open("rb") as file:
                size = file.seek(-_CHECKSUM_BYTES, SEEK_END) + _CHECKSUM_BYTES
                etag = f'"{key}-{file.read().hex()}"'
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        bundle = Bundle(key, path, size, etag, readers=1)
        self._keep(bundle)
        return bundle

    def _keep(self, bundle: Bundle) -> None:
        limit_bytes, limit_files = self._limits
        idle: list[Bundle] = []
        with self._lock:
            if bundle.size <= limit_bytes:
                self._kept[bundle.key] = bundle
                self._bytes += bundle.size
            while self._bytes > limit_bytes or len(self._kept) > limit_files:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.size
                if not oldest.readers:
                    idle.append(oldest)
        for oldest in idle:
            oldest.path.unlink(missing_ok=True)


def key_of(plan: Plan) -> str:
    return hashlib.sha256(" ".join([plan.tip, *plan.boundary]).encode()).hexdigest()[:32]


def find_same(plan: Plan, tags: str) -> str | None:
    """The one of an If-None-Match's tags whose bundle holds just this, if any."""
    key = key_of(plan)
    for tag in tags.split(","):
        if tag.strip().removeprefix("W/").strip('"').partition("-")[0] == key:
            return tag.strip()
    return None
