"""Bundles of one new commit, made without git: as thin as an agent's own git makes them."""

import hashlib
import zlib
from dataclasses import dataclass

from bench.hub import dag

_COMMIT, _TREE, _REF_DELTA = 1, 2, 7


@dataclass(frozen=True, slots=True)
class Parent:
    """A commit of the line, by its number, and its train.py."""

    seq: int
    hash: str
    text: bytes

    @classmethod
    def of(cls, line: list[str], seq: int) -> "Parent":
        return cls(seq, line[seq - 1], dag.line_train(seq))


def make_bundle(parent: Parent, line: str) -> bytes:
    """A commit that puts one line of text into train.py, where its parent has the middle."""
    half = parent.text.index(b"\n", len(parent.text) // 2) + 1
    added = line.encode() + b"\n"
    text = parent.text[:half] + added + parent.text[half:]
    files = {**dag.other_files(), "train.py": text}
    tree = dag.tree_body(files)
    commit = dag.commit_body(dag.tree_hash(files), [parent.hash], "bench", parent.seq, line)
    base = bytes.fromhex(dag.object_hash("blob", parent.text))
    delta = _size(len(parent.text)) + _size(len(text)) + _copy(0, half)
    delta += bytes([len(added)]) + added + _copy(half, len(parent.text) - half)
    entries = [_entry(_COMMIT, commit), _entry(_TREE, tree), _entry(_REF_DELTA, delta, base)]
    pack = b"PACK" + (2).to_bytes(4) + len(entries).to_bytes(4) + b"".join(entries)
    hash = dag.object_hash("commit", commit)
    head = f"# v2 git bundle\n-{parent.hash} \n{hash} refs/heads/main\n\n"
    return head.encode() + pack + hashlib.sha1(pack).digest()


def _entry(kind: int, body: bytes, base: bytes = b"") -> bytes:
    size = len(body)
    first, size = kind << 4 | size & 15, size >> 4
    head = bytearray()
    while size:
        head.append(first | 128)
        first, size = size & 127, size >> 7
    head.append(first)
    return bytes(head) + base + zlib.compress(body)


def _size(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _copy(offset: int, size: int) -> bytes:
    """At most 64 KiB, which train.py is below."""
    op, out = 128, bytearray()
    for bit in range(4):
        if byte := offset >> 8 * bit & 255:
            op |= 1 << bit
            out.append(byte)
    for bit in range(2):
        if byte := size >> 8 * bit & 255:
            op |= 16 << bit
            out.append(byte)
    return bytes([op]) + bytes(out)
