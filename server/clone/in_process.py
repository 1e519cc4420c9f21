"""Clones from a hub without C git: one at a time, each pack written whole before it is sent."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

from server.clone.packs import CHUNK_BYTES, Write
from server.clone.protocol import Request
from server.repo import CAPABILITIES, upload_pack


class Dulwich:
    """An UploadPack in a thread of this process."""

    has_v2 = False
    capabilities: tuple[bytes, ...] = CAPABILITIES

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._pool = ThreadPoolExecutor(1, "upload-pack")

    async def serve(self, request: Request, write: Write) -> bool:
        loop = asyncio.get_running_loop()
        # A client that goes closes the file, which ends the thread at its next line.
        with TemporaryFile() as out:
            await loop.run_in_executor(
                self._pool, upload_pack, self._repo, request.wants, request.body, out
            )
            out.seek(0)
            while chunk := out.read(CHUNK_BYTES):
                await write(chunk)
            return True
