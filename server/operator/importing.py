"""import: a hub made of the original's data. Agents keep their keys, posts their numbers."""

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from server import agents, board, events, tables, wire
from server.db import Connection, Database, sqlite_url
from server.operator.fsck import check
from server.operator.history import Tally, bring_history
from server.operator.meter import Meter
from server.operator.original import Original, opening, text
from server.operator.target import building


@dataclass
class Summary:
    agents: int = 0
    channels: int = 0
    posts: int = 0
    history: Tally = field(default_factory=Tally)
    #: New names of agents and channels whose own this hub refuses.
    renamed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        history = self.history
        yield f"{self.agents} agents, {history.commits} commits"
        yield f"{self.channels} channels, {self.posts} posts"
        yield from (f"renamed: {old!r} is {new!r} here" for old, new in self.renamed.items())
        yield from (f"tag: {tag} names commit {sha}" for tag, sha in history.tags.items())
        yield from (f"not brought: {sha}: {why}" for sha, why in history.refused.items())
        yield from (f"not brought: {sha}: nothing names it" for sha in history.unreferenced)
        yield from (f"damaged: {pack}: {why}" for pack, why in history.damaged_packs.items())
        yield from (f"note: {note}" for note in self.notes)


def import_original(source: Path, target: Path, meter: Meter, now: datetime) -> Summary:
    """Fill a new or empty data directory, all or nothing; raise Refused."""
    with opening(source.resolve(), now) as original, building(target.absolute()) as work:
        db = Database(sqlite_url(work / "hub.db"))
        try:
            db.migrate()
            importer = Importer(original, meter, now)
            with db.write() as conn:
                importer.bring_agents(conn)
                importer.bring_board(conn)
            importer.summary.history = bring_history(
                original, work / "repo.git", db, importer.names, meter
            )
            with db.write() as conn:
                payload = {"commits": importer.summary.history.commits}
                events.append(conn, "import", "hub", "original", payload, now)
        finally:
            db.close()
        report = check(work, meter)
        importer.summary.notes += original.notes
        importer.summary.notes += [f"{f.subject}: {f.message}" for f in report.problems]
    return importer.summary


class Importer:
    def __init__(self, original: Original, meter: Meter, now: datetime) -> None:
        self._original = original
        self._meter = meter
        self._now = now
        #: The names here of the original's agents.
        self.names: dict[str, str] = {}
        self.summary = Summary()

    def bring_agents(self, conn: Connection) -> None:
        self._meter.start("agents", self._original.count("agents"))
        rows = list(self._original.rows("agents"))
        # Names that may stay as they are go first, so that no changed one takes theirs.
        for row in sorted(rows, key=lambda row: not wire.AGENT_ID.fullmatch(text(row["id"]))):
            self._add_agent(conn, text(row["id"]), text(row["api_key"]), row["created_at"])
            self._meter.advance()
        for id in self._mentioned() - self.names.keys():
            self._note(f"agent {id!r} is mentioned and not registered: it has no key")
            self._add_agent(conn, id, "", self._now)

    def _mentioned(self) -> set[str]:
        query = "SELECT agent_id FROM commits UNION SELECT agent_id FROM posts"
        found = {text(id) for (id,) in self._original.db.execute(query)}
        return {id for id in found if id}

    def _add_agent(self, conn: Connection, id: str, key: str, created_at: datetime) -> None:
        name = self._choose(id, wire.AGENT_ID, r"[^a-zA-Z0-9._-]", set(self.names.values()), 63)
        self.names[id] = name
        self.summary.agents += 1
        if not key and created_at != self._now:
            self._note(f"agent {id!r} has an empty key: it has none here")
        row = {
            "id": name,
            "role": wire.Role.AGENT,
            "key_hash": agents.digest(key or secrets.token_hex(32)),
            "key_prefix": key[:8],
            "created_at": created_at,
        }
        conn.execute(insert(tables.agents), row)

    def bring_board(self, conn: Connection) -> None:
        # Replies may have come to stand before what they reply to.
        conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        channels = set(self._bring_channels(conn))
        self._meter.start("posts", self._original.count("posts"))
        known = {id for (id,) in self._original.db.execute("SELECT id FROM posts")}
        for row in self._original.rows("posts"):
            self._meter.advance()
            self._add_post(conn, row, known, channels)
        board.index_threads(conn)

    def _bring_channels(self, conn: Connection) -> Iterable[int]:
        names: set[str] = set()
        rows = list(self._original.rows("channels"))
        for row in sorted(rows, key=lambda row: not wire.CHANNEL_NAME.fullmatch(text(row["name"]))):
            name = self._choose(
                text(row["name"]), wire.CHANNEL_NAME, r"[^a-z0-9_-]", names, 31, fold=True
            )
            names.add(name)
            self.summary.channels += 1
            values = {"name": name, "description": text(row["description"])}
            conn.execute(insert(tables.channels), {**row, **values})
            yield row["id"]

    def _add_post(
        self, conn: Connection, row: dict[str, Any], known: set[int], channels: set[int]
    ) -> None:
        if row["channel_id"] not in channels or not text(row["agent_id"]):
            self._note(f"post {row['id']} is left out: its channel or its author is not there")
            return
        if row["parent_id"] is not None and row["parent_id"] not in known:
            self._note(f"post {row['id']} replies to {row['parent_id']}, which is not there")
            row["parent_id"] = None
        values = {"agent_id": self.names[text(row["agent_id"])], "content": text(row["content"])}
        conn.execute(insert(tables.posts), {**row, **values})
        self.summary.posts += 1

    def _choose(
        self,
        name: str,
        good: re.Pattern[str],
        bad: str,
        taken: set[str],
        longest: int,
        *,
        fold: bool = False,
    ) -> str:
        """The name, or the nearest one that this hub takes and nobody has."""
        plain = (
            re.sub(bad, "-", name.lower() if fold else name).lstrip("-._")[:longest] or "unnamed"
        )
        chosen, number = (name, 1) if good.fullmatch(name) else (plain, 1)
        while chosen in taken:
            number += 1
            chosen = f"{plain[: longest - 8]}-{number}"
        if chosen != name:
            self.summary.renamed[name] = chosen
        return chosen

    def _note(self, what: str) -> None:
        self.summary.notes.append(what)
