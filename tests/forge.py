"""Forge: objects, packs and bundles that C git would not make."""

import hashlib
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.repo.pack import BLOB, COMMIT, TREE, hash_object
from server.repo.writer import write_delta

IDENT = b"Ann <ann@example.org> 1700000000 +0000"


@dataclass
class Forge:
    """Makes packs that C git would not."""

    path: Path
    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def add(self, kind: int, content: bytes) -> str:
        sha = hash_object(kind, content)
        self.objects[sha] = kind, content
        return sha

    def blob(self, content: bytes = b"hello\n") -> str:
        return self.add(BLOB, content)

    def tree(self, *entries: tuple[bytes, bytes, str]) -> str:
        parts = [b"%s %s\0%s" % (mode, name, bytes.fromhex(sha)) for mode, name, sha in entries]
        return self.add(TREE, b"".join(parts))

    def commit(self, tree: str, *parents: str, head: bytes = b"", tail: bytes = b"\nwork\n") -> str:
        lines = [b"tree %s\n" % tree.encode(), *(b"parent %s\n" % one.encode() for one in parents)]
        head = head or b"author %s\ncommitter %s\n" % (IDENT, IDENT)
        return self.add(COMMIT, b"".join(lines) + head + tail)

    def bundle(self, *heads: str, prerequisites: Sequence[str] = ()) -> Path:
        body = b"".join(
            entry_header(kind, len(content)) + zlib.compress(content)
            for kind, content in self.objects.values()
        )
        return self.write(heads, pack(len(self.objects), body), prerequisites)

    def write(self, heads: Sequence[str], body: bytes, prerequisites: Sequence[str] = ()) -> Path:
        lines = ["# v2 git bundle", *(f"-{one}" for one in prerequisites)]
        lines += [f"{head} refs/heads/b{at}" for at, head in enumerate(heads)]
        out = self.path / f"forged-{time.monotonic_ns()}.bundle"
        out.write_bytes("\n".join([*lines, "", ""]).encode() + body)
        return out


def pack(count: int, body: bytes) -> bytes:
    content = b"PACK" + struct.pack(">LL", 2, count) + body
    return content + hashlib.sha1(content).digest()


def entry_header(kind: int, size: int) -> bytes:
    out, byte, size = b"", kind << 4 | size & 15, size >> 4
    while size:
        out, byte, size = out + bytes([byte | 0x80]), size & 0x7F, size >> 7
    return out + bytes([byte])


def chain_of_deltas(forge: Forge, length: int) -> Path:
    content = b"0" * 50
    body = entry_header(BLOB, 50) + zlib.compress(content)
    at = 0
    for number in range(1, length + 1):
        delta = write_delta(50, 50, [b"%4d" % number, (0, 46)])
        distance = len(body) - at
        at = len(body)
        body += entry_header(6, len(delta)) + bytes([distance]) + zlib.compress(delta)
    return forge.write(["1" * 40], pack(length + 1, body))
