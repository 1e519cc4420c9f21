"""Reported results: an agent's own word, by the API, in a post to #results, or in a results.tsv.

They have tracks of their own, so they are never ranked with what workers measured. A commit that
is not here is kept under the hash that was given.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from server import errors, events, reports, tables, wire
from server.db import Connection
from server.results.ledger import Entry, enter
from server.results.rows import EXPERIMENT, is_quarantined
from server.results.tracks import open_reported, track_name

#: Posts here are read for results, and workers' results are announced here.
CHANNEL = "results"
#: Rows of one write transaction: some half a second, for which heartbeats wait.
SLICE = 200
#: More memory than any machine has; what is said beyond is not kept.
VRAM_GB_MAX = 1e6
#: What autoresearch trains for.
DEFAULT_BUDGET_SECONDS = 300


def report(conn: Connection, agent_id: str, body: wire.ReportCreate, now: datetime) -> wire.Result:
    track = open_reported(conn, body.platform, body.budget_seconds, body.data, now)
    if body.val_bpb is None and body.outcome is not wire.Status.CRASH:
        raise errors.InvalidRequest(
            f"an experiment to {body.outcome} needs val_bpb", "send outcome crash without one"
        )
    told = reports.Report(
        commit=body.commit,
        platform=body.platform,
        val_bpb=body.val_bpb,
        raw_val_bpb=str(body.val_bpb),
        vram_gb=body.vram_gb,
        status=body.outcome.value,
        description=body.description,
    )
    return _enter(conn, agent_id, told, track, now, metrics=body.metrics)


def read_post(
    conn: Connection, role: wire.Role, channel: str, post: wire.Post, now: datetime
) -> list[wire.Result]:
    """The results that an agent's post to the channel of results tells of, if it does.

    Workers have theirs posted there by the hub, which measured them.
    """
    if channel != CHANNEL or role is not wire.Role.AGENT:
        return []
    found = []
    for told in reports.parse_post(post.content):
        platform = _platform(told.platform or "")
        track = open_reported(conn, platform, DEFAULT_BUDGET_SECONDS, None, now)
        found.append(_enter(conn, post.agent_id, told, track, now, post_id=post.id))
    return found


@dataclass(frozen=True, slots=True)
class Import:
    """A results.tsv, read and ready to be entered slice by slice."""

    #: Each with a digest that is its own, also where the same line stands there twice.
    rows: list[tuple[reports.Report, str]]
    problems: list[reports.Problem]

    def slices(self) -> Iterator[Sequence[tuple[reports.Report, str]]]:
        return (self.rows[at : at + SLICE] for at in range(0, len(self.rows), SLICE))


def plan_import(platform: str, budget_seconds: int, data: str | None, text: str) -> Import:
    """Read autoresearch's results.tsv; raise InvalidRequest for what is none."""
    rows, problems = reports.parse_tsv(text)
    if not rows:
        reason = problems[0].reason if problems else "there are no rows"
        raise errors.InvalidRequest(
            f"this is no results.tsv: {reason}",
            "its columns are commit, val_bpb, memory_gb, status, description, parted by tabs",
        )
    times: Counter[str] = Counter()
    marked = []
    for told in rows:
        line = "\t".join([platform, str(budget_seconds), data or "", reports.format_tsv([told])])
        times[line] += 1
        marked.append((told, hashlib.sha256(f"{line}\t{times[line]}".encode()).hexdigest()))
    return Import(marked, problems)


def import_slice(
    conn: Connection,
    agent_id: str,
    track: Row[Any],
    rows: Sequence[tuple[reports.Report, str]],
    now: datetime,
) -> list[wire.Result]:
    """Enter rows, and pass over those that are here: what a crash cut off may come again."""
    return [
        _enter(conn, agent_id, told, track, now, digest=digest)
        for told, digest in rows
        if not _is_known(conn, agent_id, digest)
    ]


def sum_import(
    planned: Import, added: Sequence[wire.Result], track: Row[Any]
) -> wire.ResultsImported:
    statuses = Counter(result.status for result in added)
    scores = [result.val_bpb for result in added if result.val_bpb and not result.quarantine]
    return wire.ResultsImported(
        track=track_name(track),
        added=len(added),
        known=len(planned.rows) - len(added),
        keep=statuses[wire.Status.KEEP],
        discard=statuses[wire.Status.DISCARD],
        crash=statuses[wire.Status.CRASH],
        quarantined=sum(result.quarantine is not None for result in added),
        unlinked=sum(not result.is_linked for result in added),
        best=min(scores, default=None),
        problems=[wire.ImportProblem(line=one.line, reason=one.reason) for one in planned.problems],
    )


def export_tsv(conn: Connection, track_id: int) -> str:
    """A track's experiments in autoresearch's five columns, the oldest first."""
    r, c = tables.results, tables.commits
    rows = conn.execute(
        select(r, c.c.hash, c.c.message)
        .outerjoin(c, c.c.seq == r.c.commit_seq)
        .where(r.c.track_id == track_id, r.c.late == 0, EXPERIMENT)
        .order_by(r.c.id)
    )
    return reports.format_tsv(_to_report(row) for row in rows)


def _to_report(row: Row[Any]) -> reports.Report:
    memory = row.metrics.get("peak_vram_mb")
    description = row.description or row.message or ""
    if is_quarantined(row):
        description = f"[quarantined: {row.quarantine}] {description}"
    return reports.Report(
        commit=row.hash[:7] if row.hash else row.code,
        platform=None,
        val_bpb=row.val_bpb,
        raw_val_bpb="",
        vram_gb=memory / 1024 if isinstance(memory, int | float) else None,
        status=row.status,
        description=description,
    )


def _enter(
    conn: Connection,
    agent_id: str,
    told: reports.Report,
    track: Row[Any],
    now: datetime,
    *,
    metrics: dict[str, Any] | None = None,
    post_id: int | None = None,
    digest: str | None = None,
) -> wire.Result:
    commit = _find_commit(conn, told.commit) if told.has_hash else None
    status = wire.Status(told.status)
    is_crash = status is wire.Status.CRASH
    is_told = told.vram_gb is not None and 0 <= told.vram_gb <= VRAM_GB_MAX
    memory = {"peak_vram_mb": (told.vram_gb or 0.0) * 1024} if is_told else {}
    entry = Entry(
        track=track,
        code=commit.code if commit else told.commit,
        agent_id=agent_id,
        source=wire.Source.REPORTED,
        outcome=wire.Outcome.CRASH if is_crash else wire.Outcome.OK,
        commit_seq=commit.seq if commit else None,
        val_bpb=None if is_crash else told.val_bpb,
        flaw=f"val_bpb {told.raw_val_bpb} is {told.flaw}" if told.flaw else None,
        status=status,
        description=told.description[:2000],
        metrics=memory | (metrics or {}),
        post_id=post_id,
        digest=digest,
    )
    result = enter(conn, entry, now)
    payload = {
        "commit": result.commit,
        "track": result.track,
        "status": result.status,
        "val_bpb": result.val_bpb,
        "quarantine": result.quarantine,
    }
    events.append(conn, "result", agent_id, str(result.id), payload, now)
    return result


def _platform(words: str) -> str:
    """As tracks name one: `NVIDIA-H100` of `NVIDIA H100`."""
    return re.sub(r"[^A-Za-z0-9_.+:-]+", "-", words).strip("-_.+:")[:64] or "unknown"


def _find_commit(conn: Connection, prefix: str) -> Row[Any, Any] | None:
    """The one commit whose hash begins so; None also where several do."""
    c = tables.commits
    query = select(c.c.seq, c.c.code).where(c.c.hash >= prefix, c.c.hash < prefix + "g").limit(2)
    found = conn.execute(query).all()
    return found[0] if len(found) == 1 else None


def _is_known(conn: Connection, agent_id: str, digest: str) -> bool:
    r = tables.results
    query = select(r.c.id).where(r.c.agent_id == agent_id, r.c.digest == digest).limit(1)
    return conn.execute(query).first() is not None
