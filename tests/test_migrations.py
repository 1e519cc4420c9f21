"""The schema: migrations lead exactly to the tables the code uses."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from server import tables
from server.db import Database, sqlite_url

COMPARED = {"compare_type": True, "include_name": tables.is_table}


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    db = Database(sqlite_url(tmp_path / "hub.db"))
    db.migrate()
    with db.read() as conn:
        context = MigrationContext.configure(conn, opts=COMPARED)
        assert compare_metadata(context, tables.metadata) == []
    db.close()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    db = Database(sqlite_url(tmp_path / "hub.db"))
    db.migrate()
    with sqlite3.connect(tmp_path / "hub.db") as file:
        before = file.execute("SELECT sql FROM sqlite_master").fetchall()
    db.migrate()
    with sqlite3.connect(tmp_path / "hub.db") as file:
        assert file.execute("SELECT sql FROM sqlite_master").fetchall() == before
    db.close()


def test_a_schema_that_is_newest_is_told_without_alembic(tmp_path: Path) -> None:
    start = (
        "import sys; from server.db import Database; "
        "Database(sys.argv[1]).migrate(); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", start, sqlite_url(tmp_path / "hub.db")]
    said = [subprocess.check_output(command, text=True).strip() for _ in range(2)]
    assert said == ["True", "False"]


def test_hubs_that_start_together_migrate_once(tmp_path: Path) -> None:
    databases = [Database(sqlite_url(tmp_path / "hub.db")) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.migrate, databases))
    with databases[0].read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar_one() == 1
    for db in databases:
        db.close()


def test_sqlite_is_set_up_to_survive(tmp_path: Path) -> None:
    db = Database(sqlite_url(tmp_path / "hub.db"))
    with db.write() as conn:
        values = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    db.close()
