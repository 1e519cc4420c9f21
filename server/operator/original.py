"""The data directory of the original AgentHub, written in Go: `agenthub.db` and `repo.git`.

Its database has no types to speak of, so every value is looked at before it is believed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.operator.files import connect_read_only
from server.operator.target import Refused

_TABLES = {
    "agents": ("id", "api_key", "created_at"),
    "commits": ("hash", "parent_hash", "agent_id", "message", "created_at"),
    "channels": ("id", "name", "description", "created_at"),
    "posts": ("id", "channel_id", "agent_id", "parent_id", "content", "created_at"),
}


@dataclass
class Original:
    """One moment of it; rows come as dictionaries, oldest first."""

    folder: Path
    db: sqlite3.Connection
    now: datetime
    notes: list[str] = field(default_factory=list)

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        columns = _TABLES[table]
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY created_at, rowid"  # noqa: S608
        for values in self.db.execute(query):
            row = dict(zip(columns, values, strict=True))
            name = f"{table[:-1]} {row.get('id', row.get('hash'))}"
            yield row | {"created_at": self._moment(row["created_at"], name)}

    def count(self, table: str) -> int:
        number: int = self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        return number

    def _moment(self, value: object, name: str) -> datetime:
        """SQLite's own form without a zone, or any other ISO form; all in UTC."""
        try:
            moment = datetime.fromisoformat(text(value).removesuffix(" UTC").strip())
        except ValueError:
            self.notes.append(f"{name}: its time {value!r} cannot be read; the import's is taken")
            return self.now
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def text(value: object) -> str:
    """What a column of an untyped database holds, as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


@contextmanager
def opening(folder: Path, now: datetime) -> Iterator[Original]:
    """Read a data directory without writing it; raise Refused for what is none."""
    for part in ("agenthub.db", "repo.git/objects"):
        if not (folder / part).exists():
            raise Refused(
                f"{folder} is no data directory of the original AgentHub: it has no {part}",
                "name the folder that its --data named",
            )
    try:
        with closing(connect_read_only(folder / "agenthub.db")) as db:
            db.text_factory = lambda raw: raw.decode(errors="replace")
            db.execute("BEGIN")
            for table, columns in _TABLES.items():
                db.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 1")  # noqa: S608
            yield Original(folder, db, now)
    except sqlite3.Error as error:
        raise Refused(f"agenthub.db cannot be read: {error}") from error
