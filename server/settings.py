"""Settings of one hub: read once from flags and AGENTHUB_* variables, then frozen."""

import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from server.db import sqlite_url


class Registration(StrEnum):
    """Who may register: anyone, holders of an invite code, or only the admin key."""

    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Settings:
    data: Path
    admin_key: str
    registration: Registration = Registration.INVITE
    max_bundle_mb: int = 50
    #: Quotas per agent (registrations: per address) and hour; 0 means none.
    max_pushes_per_hour: int = 100
    max_posts_per_hour: int = 100
    max_diffs_per_hour: int = 60
    max_registrations_per_hour: int = 10
    #: A run is given to another worker when its own was silent for this long.
    lease_seconds: float = 60.0
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
    def incoming_path(self) -> Path:
        """Where bodies of pushes wait on disk; emptied at start."""
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
    if given:
        return given, False
    path = data / "admin.key"
    key = secrets.token_hex(32)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip(), False
    with os.fdopen(file, "w") as out:
        out.write(key + "\n")
        out.flush()
        os.fsync(out.fileno())
    return key, True
