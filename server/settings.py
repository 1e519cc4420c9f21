"""Settings of one hub: read once from flags and AGENTHUB_* variables, then frozen."""

import os
import secrets
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from server.db import sqlite_url
from server.policy import Policy


class Registration(StrEnum):
    """Who may register: anyone, holders of an invite code, or only the admin key."""

    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


class Pages(StrEnum):
    """Who may look at the pages: everyone who reaches the hub, or holders of an API key."""

    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Settings:
    data: Path
    admin_key: str
    registration: Registration = Registration.INVITE
    pages: Pages = Pages.PUBLIC
    max_bundle_mb: int = 50
    #: Quotas per agent (registrations: per address) and hour; 0 means none.
    max_pushes_per_hour: int = 100
    max_posts_per_hour: int = 100
    max_diffs_per_hour: int = 60
    max_registrations_per_hour: int = 10
    #: A run is given to another worker when its own was silent for this long.
    lease_seconds: float = 60.0
    #: Order in which one agent's commits are trained; between agents the share is fair.
    policy: Policy = Policy.FIFO
    #: Loose objects that start the repository's upkeep; 0 means never.
    pack_after: int = 200

    @property
    def database_url(self) -> str:
        return sqlite_url(self.data / "hub.db")

    @property
    def repo_path(self) -> Path:
        return self.data / "repo.git"

    @property
    def bundles_path(self) -> Path:
        """The cache of bundles that were served; each process has a folder of its own in it."""
        return self.data / "bundles"

    @property
    def leader_path(self) -> Path:
        """Locked by the process that does what only one should do."""
        return self.data / "leader.lock"

    @property
    def incoming_path(self) -> Path:
        """Where bodies of pushes wait on disk; each process has a folder of its own in it."""
        return self.data / "incoming"


def open_data(directory: Path) -> Path:
    """Make the data directory, readable by its owner only, and return its absolute path."""
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def load_admin_key(data: Path, given: str | None) -> tuple[str, bool]:
    """The admin key to use, and whether it was made just now.

    Without a given key, the one stored in the data directory; made there, mode 0600, if none.
    """
    return (given, False) if given else _load_secret(data / "admin.key")


def load_session_secret(data: Path) -> str:
    """What signs the sessions of browsers; kept in the data directory, made there if none."""
    return _load_secret(data / "session.key")[0]


def _load_secret(path: Path) -> tuple[str, bool]:
    """The secret in a file, mode 0600, and whether it was made just now."""
    if path.exists():
        return path.read_text().strip(), False
    # Gets its name only when it is whole: half a secret is easily guessed.
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_hex(32) + "\n")
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, path)
        is_new = True
    except FileExistsError:
        is_new = False
    finally:
        Path(draft).unlink()
    return path.read_text().strip(), is_new
