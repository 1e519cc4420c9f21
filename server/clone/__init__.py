"""Clones: the hub as a git remote that can be read, never written, with plain git.

What a clone sees comes from the index: `refs/heads/newest`, which is HEAD, and one branch
`leaf/<hash>` for each leaf. Any commit with a row can be fetched by its hash. The refs of the repo
on disk only keep objects and are shown to nobody.
"""

import shutil
from pathlib import Path

from server.clone.c_git import CGit
from server.clone.in_process import Dulwich
from server.clone.packs import STALL_SECONDS, UploadPack
from server.clone.protocol import Request, advertise, advertise_v0, list_refs, parse, refuse
from server.clone.view import check_wants, list_frontier

__all__ = [
    "STALL_SECONDS",
    "Request",
    "UploadPack",
    "advertise",
    "advertise_v0",
    "check_wants",
    "list_frontier",
    "list_refs",
    "open_upload_pack",
    "parse",
    "refuse",
]


def open_upload_pack(repo: Path) -> UploadPack:
    repo = repo.absolute()
    program = shutil.which("git")
    return CGit(program, repo) if program else Dulwich(repo)
