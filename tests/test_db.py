"""The database itself, where no route shows it."""

from pathlib import Path

from sqlalchemy import text

from server.db import Database, Watch, sqlite_url


def test_a_watch_sees_what_any_connection_commits(tmp_path: Path) -> None:
    here, other = (Database(sqlite_url(tmp_path / "hub.db")) for _ in range(2))
    watch = Watch(here)
    assert watch.moved()
    assert not watch.moved()
    for number, db in enumerate((here, other)):
        with db.write() as conn:
            conn.execute(text(f"CREATE TABLE t{number} (x INTEGER)"))
            assert not watch.moved()  # Not committed yet.
        assert watch.moved()
        assert not watch.moved()
    with other.read() as conn:
        conn.execute(text("SELECT * FROM t0"))
    assert not watch.moved()
    watch.close()
    for db in (here, other):
        db.close()
