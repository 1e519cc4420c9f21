"""What of the hub a clone may see: commits that have a row, and what they hold."""

from collections.abc import Collection

from server import commits, errors
from server.clone.protocol import FRONTIER_MAX
from server.db import Connection, Database
from server.repo import BareRepo


def list_frontier(conn: Connection) -> list[str]:
    return commits.list_leaf_hashes(conn, FRONTIER_MAX)


def check_wants(db: Database, repo: BareRepo, wants: Collection[str]) -> None:
    """Raise NotFound for an object that no pushed commit holds.

    Partial clones ask for trees and files too; those are in the repo because of some commit.
    """
    with db.read() as conn:
        known = set(commits.find_known(conn, list(wants)))
    for sha in wants:
        if sha not in known and not repo.has_content(sha):
            raise errors.NotFound(f"{sha} is not on this hub", "`ah log` lists its commits")
