"""The database: engine, pragmas, and the two ways to use it, `read()` and `write()`.

Routes wrap one call of a noun in one of them, so a request's writes are committed, durably,
before its answer is built. On SQLite every writing transaction starts with BEGIN IMMEDIATE: a
plain BEGIN that writes later dies of "database is locked" under concurrency.
"""

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, event, inspect, make_url
from sqlalchemy.exc import IntegrityError, OperationalError

from server import errors
from server.turns import NoTurn, Turns

__all__ = [
    "Connection",
    "Database",
    "IntegrityError",
    "NoTurn",
    "Watch",
    "insert_into",
    "sqlite_url",
]

#: How long a write waits for those of this process that came before it, seconds.
WAIT_SECONDS = 30.0
#: Hubs and commands take turns, so whoever else holds the database's own lock is a tool that
#: looks into it. It may do so this long, milliseconds.
BUSY_TIMEOUT_MS = 5_000
#: Pages of the database a connection of the pool keeps in memory; there may be ten of them. Those
#: it does not have are in the system's memory, some microseconds away.
CACHE_KIB = 256
#: Statements that each connection keeps, the driver's own 128; a large one takes 150 KiB.
STATEMENTS_KEPT = 24
#: The same of a reader of its own.
READER_CACHE_KIB = 2 * 1024

_TELL = "nothing was kept; tell the operator, the disk may be full, and try again later"

_REVISION = re.compile(r'^revision = "(.+)"$', re.MULTILINE)
_BEFORE = re.compile(r'^down_revision = "(.+)"$', re.MULTILINE)

log = logging.getLogger("agenthub")


class Database:
    """One engine; safe to share between threads."""

    def __init__(self, url: str) -> None:
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        args = {"cached_statements": STATEMENTS_KEPT} if is_sqlite else {}
        # The pool is larger than the server's thread pool, so no request waits for a connection.
        self.engine = create_engine(url, pool_size=10, max_overflow=60, connect_args=args)
        file = self.engine.url.database
        self._turns = Turns(Path(file) if is_sqlite and file else None)
        if is_sqlite:
            event.listen(self.engine, "connect", _set_pragmas)
            event.listen(self.engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; nothing written in it is kept."""
        with self.engine.connect() as conn:
            # At once: the driver alone would read each statement in a snapshot of its own.
            conn.begin()
            yield conn

    def open_reader(self) -> Connection:
        """A connection of the caller's own for many small reads, each in a snapshot of its own
        unless the caller begins one; pages it read before cost no call of the system."""
        conn = self.engine.connect()
        if self.engine.dialect.name == "sqlite":
            cursor = conn.connection.cursor()
            cursor.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            cursor.close()
        return conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends, rolled back when it raises.

        Raises Unavailable, with nothing written, when the database is locked or its disk is full.
        """
        with refusing_failures(), self.turn(WAIT_SECONDS), self.engine.connect() as conn:
            conn = conn.execution_options(writes=True)
            with conn.begin():
                yield conn

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Keep all other writers of all processes out; raise NoTurn when that takes too long.

        Whoever has it may begin a transaction on a connection of its own. With 0 it does not wait.
        """
        with self._turns.take(seconds):
            yield

    def migrate(self) -> None:
        """Bring the schema up to date, all or nothing; hubs starting together take turns."""
        if self._is_newest():
            return
        # Imported here, so that a hub that is up to date starts and stays without its 9 MiB.
        from alembic import command
        from alembic.config import Config

        with as_file(files("migrations")) as scripts, self.write() as conn:
            config = Config()
            config.set_main_option("script_location", str(scripts))
            config.attributes["connection"] = conn
            command.upgrade(config, "head")

    def _is_newest(self) -> bool:
        with self.read() as conn:
            if not inspect(conn).has_table("alembic_version"):
                return False
            found = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        return found == [_find_head()]

    def close(self) -> None:
        self.engine.dispose()
        self._turns.close()


def insert_into(dialect: str, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, which each database has in its own words."""
    # Looked up, so that a hub does not hold the words of those it does not use.
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


@contextmanager
def refusing_failures() -> Iterator[None]:
    """Tell clients what they can do about a database that cannot be written."""
    try:
        yield
    except OperationalError as error:
        refusal = _explain(error)
        if refusal is None:
            raise
        log.error("the database cannot be written: %s", error.orig)
        raise refusal from error


def is_locked(error: OperationalError) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: OperationalError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF


def _explain(error: OperationalError) -> errors.Unavailable | None:
    if is_locked(error):
        return errors.Unavailable("the database is locked by another program", retry_after=5)
    if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return errors.Unavailable("the hub's disk cannot be written", _TELL, retry_after=30)
    return None


class Watch:
    """Tells cheaply whether anything was committed, by any connection of any process.

    It costs some microseconds, so it may be asked on every request. Of one thread, or of several
    that take turns. SQLite only: PostgreSQL has LISTEN for it.
    """

    def __init__(self, db: Database) -> None:
        self._conn = db.engine.raw_connection()
        self._seen: object = None

    def moved(self) -> bool:
        """Whether something was committed since the last call; True the first time."""
        cursor = self._conn.cursor()
        # Its own commits do not count, so this connection never writes.
        (version,) = cursor.execute("PRAGMA data_version").fetchone()
        cursor.close()
        before, self._seen = self._seen, version
        return bool(version != before)

    def close(self) -> None:
        self._conn.close()


def _find_head() -> str:
    """The revision that no other one follows, as Alembic's scripts say in their own words."""
    scripts = files("migrations.versions").iterdir()
    text = "".join(script.read_text() for script in scripts if script.is_file())
    (head,) = {*_REVISION.findall(text)} - {*_BEFORE.findall(text)}
    return str(head)


def _set_pragmas(dbapi_connection: Any, _: Any) -> None:
    # The driver's own transaction handling would delay BEGIN; `_begin` says it itself.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL also survives a power cut, not only a killed process.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.close()


def _begin(conn: Connection) -> None:
    writes = conn.get_execution_options().get("writes", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"
