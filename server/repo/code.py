"""What a training of a commit depends on: its tree without the files that workers bring along.

Equal codes are the same experiment, whatever their messages, parents and authors say.
"""

import hashlib

from server.repo.check import read_tree

#: Names at the root that a worker puts its own copies over, or that no training reads.
REPLACED = frozenset({b"prepare.py", b"program.md", b"programs", b"pyproject.toml", b".gitignore"})


def code_of(tree: bytes) -> str:
    """40 hex digits for the content of a root tree; raises what a damaged tree makes it raise."""
    digest = hashlib.sha1(usedforsecurity=False)
    for entry in read_tree(tree):
        if entry.name not in REPLACED:
            digest.update(b"%b %b\0%b\n" % (entry.mode, entry.name, entry.hash.encode()))
    return digest.hexdigest()
