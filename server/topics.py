"""Topics: what the hub holds, each with a version that differs after every change of it.

Triggers give a topic a new version in the transaction of the change, whoever makes it: another
process, an import, a repair. Versions are random, not counted, so that one that was seen stands
for the same content for ever, also after a backup was restored.
"""

import threading
from collections.abc import Mapping
from enum import StrEnum

from sqlalchemy import select

from server import tables
from server.db import Database, Watch
from server.prepared import Prepared

_T = tables.topics
_VERSIONS = Prepared(select(_T.c.name, _T.c.version))


class Topic(StrEnum):
    #: Who may call, and as what; not when somebody was seen.
    AGENTS = "agents"
    #: The DAG: rows, links, counts of children.
    COMMITS = "commits"
    #: What commits are worth: scores and the names of their tracks.
    SCORES = "scores"
    CHANNELS = "channels"
    POSTS = "posts"


Versions = Mapping[str, int]


class Topics:
    """The versions as they stand, asked on every request: it costs some microseconds.

    SQLite only, as the watch is.
    """

    def __init__(self, db: Database) -> None:
        self._lock = threading.Lock()
        self._watch = Watch(db)
        self._conn = db.engine.connect()
        self._versions: Versions = {}
        self._moves = 0

    def read(self) -> Versions:
        """At least as new as every commit before the call; the same object while none came."""
        with self._lock:
            # In this order: a commit in between makes the versions newer, never older.
            if self._watch.moved():
                self._moves += 1
                versions: Versions = dict(_VERSIONS.all(self._conn))
                if versions != self._versions:
                    self._versions = versions
            return self._versions

    def count_moves(self) -> int:
        """A number that is another one whenever anything at all was committed since."""
        self.read()
        return self._moves

    def close(self) -> None:
        with self._lock:
            self._watch.close()
            self._conn.close()
