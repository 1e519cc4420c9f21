"""The hub's git repository: the only room that knows git's bytes, and the only one with dulwich.

Bundles go in through `BareRepo.stage` and `promote`; bundles and diffs come out. Hashes are
40-digit strings and messages are text on this side of the door.
"""

from server.repo.bare import BareRepo
from server.repo.caps import Caps
from server.repo.cgit import CGit, GitFailed, find_git
from server.repo.files import Node
from server.repo.outgoing import Plan
from server.repo.stage import Staged, StagedCommit
from server.repo.upload_pack import CAPABILITIES, upload_pack

__all__ = [
    "CAPABILITIES",
    "BareRepo",
    "CGit",
    "Caps",
    "GitFailed",
    "Node",
    "Plan",
    "Staged",
    "StagedCommit",
    "find_git",
    "upload_pack",
]
