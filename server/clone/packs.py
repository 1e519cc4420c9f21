"""What makes packs for clones, by C git or without it."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from server.clone.protocol import Request

Write = Callable[[bytes], Awaitable[None]]

#: Longest silence of git, which says something every five seconds, or of a client that does not
#: read on.
STALL_SECONDS = 60
CHUNK_BYTES = 64 * 1024


class UploadPack(Protocol):
    has_v2: bool
    #: In version 0; the hub's own words are added to them.
    capabilities: tuple[bytes, ...]

    async def serve(self, request: Request, write: Write) -> bool:
        """Pass on the whole answer; return whether it came to a good end.

        Raises TimeoutError; HubErrors only before the first byte.
        """
