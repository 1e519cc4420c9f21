"""Rows of runs as the wire shows them."""

from functools import cache
from typing import Any

from sqlalchemy import Integer, Row, Select, and_, bindparam, select

from server import errors, results, tables, wire
from server.db import Connection
from server.prepared import Prepared


def get_run(conn: Connection, run_id: int) -> wire.Run:
    row = _shown().row(conn, id=run_id)
    if row is None:
        raise errors.NotFound(f"run not found: {run_id}", "GET /api/runs lists them (`ah runs`)")
    return _to_wire(row)


def get_log(conn: Connection, run_id: int) -> str:
    """The last lines the training printed; empty until the run has ended."""
    log: str = get_row(conn, run_id).log
    return log


def list_runs(
    conn: Connection,
    commit_seq: int | None = None,
    worker: str | None = None,
    state: wire.RunState | None = None,
    limit: int = wire.LIST_DEFAULT,
    before: int | None = None,
) -> list[wire.Run]:
    """Newest first."""
    filters = {
        "commit_seq": commit_seq,
        "worker": worker or None,
        "state": state or None,
        "before": before,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    listing = _listing(frozenset(given))
    return [_to_wire(row) for row in listing.rows(conn, **given, limit=limit)]


@cache
def _listing(names: frozenset[str]) -> Prepared:
    r = tables.runs
    filters = {
        "commit_seq": r.c.commit_seq == bindparam("commit_seq"),
        "worker": r.c.worker_id == bindparam("worker"),
        "state": r.c.state == bindparam("state"),
        "before": r.c.id < bindparam("before"),
    }
    query = _select_runs().where(*(filters[name] for name in sorted(names)))
    return Prepared(query.order_by(r.c.id.desc()).limit(bindparam("limit", type_=Integer)))


def get_row(conn: Connection, run_id: int) -> Row[Any]:
    row: Row[Any] | None = _ROW.row(conn, id=run_id)
    if row is None:
        raise errors.NotFound(f"run not found: {run_id}")
    return row


_ROW = Prepared(select(tables.runs).where(tables.runs.c.id == bindparam("id")))


@cache
def _shown() -> Prepared:
    return Prepared(_select_runs().where(tables.runs.c.id == bindparam("id")))


def _select_runs() -> Select[Any]:
    r, c, t, s = tables.runs, tables.commits, tables.tracks, tables.results
    columns = [column for column in r.c if column.name != "log"]
    return (
        select(
            *columns,
            c.c.hash,
            t.c.platform,
            t.c.budget_seconds,
            t.c.data_fingerprint,
            t.c.scoring,
            s.c.val_bpb,
        )
        .join(c, c.c.seq == r.c.commit_seq)
        .outerjoin(t, t.c.id == r.c.track_id)
        .outerjoin(s, and_(s.c.run_id == r.c.id, s.c.late == 0))
    )


def _to_wire(row: Row[Any]) -> wire.Run:
    return wire.Run(
        id=row.id,
        commit=row.hash,
        kind=row.kind,
        state=row.state,
        fence=row.fence,
        attempt=row.attempt,
        seed=row.seed,
        budget_seconds=row.budget_seconds,
        track=results.track_name(row) if row.track_id is not None else None,
        worker_id=row.worker_id,
        outcome=row.outcome,
        failure=row.failure,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        lease_expires_at=row.lease_expires_at,
        deadline=row.deadline_at,
        progress=row.progress,
        step=row.step,
        loss=row.loss,
        tokens=row.tokens,
        val_bpb=row.val_bpb,
        rerun_of=row.rerun_of,
    )


def story(run: wire.Run) -> dict[str, Any]:
    return {
        "commit": run.commit,
        "state": run.state,
        "attempt": run.attempt,
        "kind": run.kind,
        "track": run.track,
    }
