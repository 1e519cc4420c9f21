"""upload-pack by dulwich, for hubs without C git: slow, whole packs only, protocol version 0."""

from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dulwich.errors import GitProtocolError
from dulwich.objects import ObjectID
from dulwich.protocol import Protocol
from dulwich.refs import Ref
from dulwich.repo import Repo
from dulwich.server import Backend, BackendRepo, UploadPackHandler

from server.errors import InvalidRequest

CAPABILITIES: tuple[bytes, ...] = (
    b"multi_ack", b"multi_ack_detailed", b"no-done", b"thin-pack", b"side-band-64k", b"ofs-delta",
    b"no-progress", b"shallow",
)  # fmt: skip


def upload_pack(path: Path, wants: Collection[str], request: bytes, out: BinaryIO) -> None:
    """Write the answer to one request; closing `out` elsewhere ends it early.

    The caller has checked that the wants may be had. Raises InvalidRequest.
    """

    def write(data: bytes) -> int:
        return out.write(data)

    with _Wanted(path, wants) as repo:
        proto = Protocol(BytesIO(request).read, write)
        handler = UploadPackHandler(_Only(repo), ["/"], proto, stateless_rpc=True)
        try:
            handler.handle()
        except GitProtocolError as error:
            raise InvalidRequest(f"this is no request of git's: {error}") from error


class _Wanted(Repo):
    """The repository with what is wanted as its refs, for dulwich serves nothing else."""

    def __init__(self, path: Path, wants: Collection[str]) -> None:
        super().__init__(str(path))
        self._wants = [sha.encode() for sha in wants]

    def get_refs(self) -> dict[Ref, ObjectID]:
        return {Ref(b"refs/wanted/" + sha): ObjectID(sha) for sha in self._wants}


class _Only(Backend):
    def __init__(self, repo: BackendRepo) -> None:
        self._repo = repo

    def open_repository(self, path: str) -> BackendRepo:
        return self._repo
