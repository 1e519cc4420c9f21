"""C git's upload-pack, one process a request: a few at once, bounded in time, never left behind.

The only place where a request starts a process. It sees a clean environment, the repo and that
request, runs no hooks and writes nothing.
"""

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from server import errors
from server.clone.packs import CHUNK_BYTES, STALL_SECONDS, Write
from server.clone.protocol import Request

log = logging.getLogger("agenthub")

_AT_ONCE = 4
_QUEUE_SECONDS = 120
_TOTAL_SECONDS = 3600
_COMPLAINT_BYTES = 2000
_OPTIONS = {
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
    "transfer.hideRefs": "refs/",
    # The processors and the memory are the hub's first.
    "pack.threads": "1",
    "pack.windowMemory": "64m",
}


class CGit:
    """An UploadPack in processes of their own."""

    has_v2 = True
    capabilities: tuple[bytes, ...] = (
        b"multi_ack", b"multi_ack_detailed", b"no-done", b"thin-pack", b"side-band",
        b"side-band-64k", b"ofs-delta", b"no-progress", b"shallow", b"deepen-since",
        b"deepen-relative", b"filter",
    )  # fmt: skip

    def __init__(self, program: str, repo: Path) -> None:
        options = {**_OPTIONS, "safe.directory": str(repo)}
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self._command = [program, *flags, "upload-pack", "--strict", "--stateless-rpc", str(repo)]
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, request: Request, write: Write) -> bool:
        async with self._slot(), asyncio.timeout(_TOTAL_SECONDS):
            with TemporaryFile() as stdin, TemporaryFile() as complaints:
                stdin.write(request.body)
                stdin.seek(0)
                async with self._process(stdin, request.is_v2, complaints) as process:
                    status = await _copy(process, write)
                if status:
                    complaints.seek(0)
                    text = complaints.read(_COMPLAINT_BYTES).decode(errors="replace").strip()
                    log.warning("git upload-pack ended with status %d: %s", status, text)
                return status == 0

    @contextlib.asynccontextmanager
    async def _process(
        self, stdin: BinaryIO, is_v2: bool, complaints: BinaryIO
    ) -> AsyncIterator[Process]:
        """The running process; gone with all that it started when the block is left."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=stdin,
            stdout=PIPE,
            stderr=complaints,
            env=_environment(is_v2),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            raise errors.Unavailable(f"{_AT_ONCE} clones are being served already") from error
        try:
            yield
        finally:
            self._slots.release()


async def _copy(process: Process, write: Write) -> int:
    """Pass on what the process says; return its exit status."""
    if process.stdout is None:
        raise RuntimeError("the process has no output")
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            chunk = await process.stdout.read(CHUNK_BYTES)
        if not chunk:
            return await process.wait()
        await write(chunk)


def _environment(is_v2: bool) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **({"GIT_PROTOCOL": "version=2"} if is_v2 else {}),
    }
