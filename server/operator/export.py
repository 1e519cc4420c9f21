"""export: everything a hub holds, for other programs: one git bundle, and JSON by lines.

One moment of the index, read row by row. Keys, invites and quotas stay out.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select

from server import tables
from server.db import Connection
from server.operator.files import find_hub, reading
from server.operator.meter import Meter
from server.operator.target import building
from server.repo.whole import write_whole

FORMAT = 1
_SECRET = {"key_hash", "key_prefix"}


def export(data: Path, target: Path, meter: Meter, now: datetime) -> dict[str, Any]:
    """Fill a new or empty folder and return its manifest; raise Refused."""
    data = find_hub(data)
    with building(target.absolute()) as work:
        with reading(data / "hub.db") as db, db.read() as conn:
            counts = {name: _write(conn, name, work, meter) for name in _QUERIES}
            leaves = _leaves(conn)
        if leaves:
            meter.start("bundle", counts["commits"])
            write_whole(data / "repo.git", leaves, work / "repo.bundle", meter.advance)
        manifest = {
            "format": FORMAT,
            "created_at": _plain(now),
            "counts": counts | {"leaves": max(len(leaves) - 1, 0)},
            "files": {path.name: _describe(path) for path in sorted(work.iterdir())},
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _leaves(conn: Connection) -> dict[str, str]:
    """A branch for each leaf; HEAD, which a clone checks out, is the newest."""
    t = tables.commits
    query = select(t.c.hash).where(t.c.child_count == 0).order_by(t.c.seq.desc())
    hashes = list(conn.scalars(query))
    branches = {f"refs/heads/leaf-{sha}": sha for sha in hashes}
    return branches | {"HEAD": hashes[0]} if hashes else {}


def _of_commit(table: Any) -> Select[Any]:
    """Rows that speak of a commit by its number, with its hash and the whole track instead."""
    t = tables.tracks
    columns = [column for column in table.c if column.name not in ("commit_seq", "track_id")]
    track = [t.c[name].label(f"track_{name}") for name in _TRACK]
    return (
        select(*columns, tables.commits.c.hash.label("commit"), *track)
        .outerjoin(tables.commits, tables.commits.c.seq == table.c.commit_seq)
        .outerjoin(t, t.c.id == table.c.track_id)
        .order_by(table.c.id)
    )


def _of_channel() -> Select[Any]:
    posts, channels = tables.posts, tables.channels
    joined = select(*posts.c, channels.c.name.label("channel"))
    return joined.join(channels, channels.c.id == posts.c.channel_id).order_by(posts.c.id)


def _all(table: Any, order: str) -> Select[Any]:
    columns = [column for column in table.c if column.name not in _SECRET]
    return select(*columns).order_by(table.c[order])


_TRACK = ("platform", "budget_seconds", "data_fingerprint", "scoring")
_QUERIES = {
    "agents": _all(tables.agents, "id"),
    "commits": _all(tables.commits, "seq"),
    "channels": _all(tables.channels, "id"),
    "posts": _of_channel(),
    "runs": _of_commit(tables.runs),
    "results": _of_commit(tables.results),
    "events": _all(tables.events, "id"),
}


def _write(conn: Connection, name: str, folder: Path, meter: Meter) -> int:
    query = _QUERIES[name]
    meter.start(name, conn.scalar(select(func.count()).select_from(query.subquery())))
    count = 0
    with (folder / f"{name}.jsonl").open("w") as out:
        for row in _rows(conn, name, query):
            out.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")
            meter.advance()
            count += 1
    return count


def _rows(conn: Connection, name: str, query: Select[Any]) -> Iterator[dict[str, Any]]:
    for row in conn.execute(query.execution_options(yield_per=1000)):
        values = dict(row._mapping)
        if name == "commits":
            values["parents"] = _parents(conn, values["seq"])
        yield values


def _parents(conn: Connection, seq: int) -> list[str]:
    t, p = tables.commits, tables.commit_parents
    query = select(t.c.hash).join(p, p.c.parent == t.c.seq).where(p.c.child == seq)
    return list(conn.scalars(query.order_by(p.c.position)))


def _plain(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"no JSON for {value!r}")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
