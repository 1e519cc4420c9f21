"""The database: engine, pragmas, and the two ways to use it, `read()` and `write()`.

Routes wrap one call of a noun in one of them, so a request's writes are committed, durably,
before its answer is built. On SQLite every writing transaction starts with BEGIN IMMEDIATE: a
plain BEGIN that writes later dies of "database is locked" under concurrency.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import IntegrityError

__all__ = ["Connection", "Database", "IntegrityError", "sqlite_url"]

#: A writer of another process may hold the lock this long before we give up, milliseconds.
BUSY_TIMEOUT_MS = 30_000


class Database:
    """One engine; safe to share between threads."""

    def __init__(self, url: str) -> None:
        # The pool is larger than the server's thread pool, so no request waits for a connection.
        self.engine = create_engine(url, pool_size=10, max_overflow=60)
        # A queue in front of the database's own lock: SQLite makes waiting writers poll, which
        # starves some of them. It decides nothing; the database still does.
        self._writers = threading.Lock()
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _set_pragmas)
            event.listen(self.engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; nothing written in it is kept."""
        with self.engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends, rolled back when it raises."""
        with self._writers, self.engine.connect() as conn:
            conn = conn.execution_options(writes=True)
            with conn.begin():
                yield conn

    def migrate(self) -> None:
        """Bring the schema up to date, all or nothing; hubs starting together take turns."""
        with as_file(files("migrations")) as scripts, self.write() as conn:
            config = Config()
            config.set_main_option("script_location", str(scripts))
            config.attributes["connection"] = conn
            command.upgrade(config, "head")

    def close(self) -> None:
        self.engine.dispose()


def _set_pragmas(dbapi_connection: Any, _: Any) -> None:
    # The driver's own transaction handling would delay BEGIN; `_begin` says it itself.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL also survives a power cut, not only a killed process.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(conn: Connection) -> None:
    writes = conn.get_execution_options().get("writes", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"
