"""Caps: what one push may cost. Each has one clear refusal, raised before the cost is paid."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caps:
    bundle_bytes: int = 50 * 2**20
    #: Objects in one pack, read from its header before anything is inflated.
    objects: int = 200_000
    #: Everything a pack inflates to, deltas and their results included.
    inflated_bytes: int = 512 * 2**20
    #: One object of any kind; compared with its declared size.
    blob_bytes: int = 64 * 2**20
    #: New commits in one push.
    commits: int = 20_000
    parents: int = 128
    #: Refs, and prerequisites, in one bundle.
    refs: int = 10_000
    #: All trees of one push, inflated: what is checked entry by entry, a million in some seconds.
    tree_bytes: int = 128 * 2**20
    tree_depth: int = 100
    #: Paths of one commit's whole tree: a few small objects can name billions of files.
    tree_paths: int = 200_000
    path_bytes: int = 4096
    #: Git's own maximum is 4095.
    delta_depth: int = 4096
