"""What happened lately, in words: the newest events, each with what it speaks of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import select

from server import results, tables, wire
from server.db import Connection
from server.pages import queries

#: Events that are looked through for what is told; some tell nothing new.
_LOOKED_AT = 400


@dataclass(frozen=True, slots=True)
class Happening:
    """An event with the subject of its commit or the words of its post, where it has one."""

    id: int
    #: commit, result, record, run or post.
    kind: str
    actor: str
    subject: str
    at: datetime
    payload: dict[str, Any]
    #: Subject line of the commit, or what the post says.
    words: str = ""
    commit: str | None = None
    #: How many reports of this agent, one after the other, it stands for.
    times: int = 1


def list_happenings(conn: Connection, limit: int) -> list[Happening]:
    """The newest first."""
    e = tables.events
    rows = conn.execute(select(e).order_by(e.c.id.desc()).limit(_LOOKED_AT)).all()
    groups = [list(group) for _, group in groupby(filter(_is_told, rows), _group)][:limit]
    told = [group[0] for group in groups]
    commits = [_commit_of(row) for row in told]
    subjects = queries.find_subjects(conn, {one for one in commits if one})
    posts = _find_posts(conn, [row for row in told if row.kind == "post"])
    return [
        Happening(
            id=row.id,
            kind=row.kind,
            actor=row.actor,
            subject=row.subject,
            at=row.created_at,
            payload=row.payload,
            words=posts.get(row.subject, "")
            if row.kind == "post"
            else subjects.get(commit or "", ""),
            commit=commit if commit in subjects else None,
            times=len(group),
        )
        for row, commit, group in zip(told, commits, groups, strict=True)
    ]


def _is_told(row: Any) -> bool:
    """Workers' posts repeat their results; a claim is seen among the runs."""
    if row.kind == "post":
        return bool(row.payload.get("channel") != results.CHANNEL)
    if row.kind == "run":
        return row.payload.get("state") in ("expired", wire.RunState.QUARANTINED)
    return row.kind in ("commit", "result", "record")


def _group(row: Any) -> object:
    """Reports come by the hundred when somebody imports them: those of one agent are one line."""
    is_plain = row.kind == "result" and "status" in row.payload
    is_report = is_plain and row.payload.get("run") is None and not row.payload.get("quarantine")
    return row.actor if is_report else row.id


def _commit_of(row: Any) -> str | None:
    if row.kind in ("commit", "record"):
        return str(row.subject)
    commit = row.payload.get("commit")
    return str(commit) if commit else None


def _find_posts(conn: Connection, rows: Sequence[Any]) -> dict[str, str]:
    p = tables.posts
    ids: Iterable[int] = [int(row.subject) for row in rows]
    found = conn.execute(select(p.c.id, p.c.content).where(p.c.id.in_(ids)))
    return {str(row.id): row.content for row in found}
