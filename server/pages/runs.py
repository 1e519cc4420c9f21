"""A run's page: what happened to it, how far it is, its curve, log and result."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Row, select

from server import results, runs, tables, wire
from server.db import Connection
from server.deps import TheHub
from server.pages import queries
from server.pages.curve import Curve, draw_curve
from server.pages.frame import open_router, parse_id, show_page
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE

router = open_router(dependencies=[MAY_SEE])

#: Other runs of the same code that are listed.
SIBLINGS = 30


@dataclass(frozen=True, slots=True)
class Moment:
    """A step in the life of a run."""

    at: datetime
    #: queued, claimed, or how it ended.
    what: str
    worker: str | None = None
    note: str = ""


@router.get("/runs/{id}")
def run(id: str, request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        seen = see_run(conn, parse_id(id))
    return show_page(request, "run.html", **seen)


def see_run(conn: Connection, id: int) -> dict[str, Any]:
    run = runs.get_run(conn, id)
    row = conn.execute(select(tables.runs).where(tables.runs.c.id == id)).one()
    reports = queries.list_run_results(conn, id)
    siblings = _list_siblings(conn, row)
    told = [results.get_result(conn, report.id) for report in reports]
    return {
        "run": run,
        "track": None if run.track is None else results.get_track(conn, run.track),
        "message": queries.find_subjects(conn, [run.commit])[run.commit],
        "machine": row.worker,
        "moments": _list_moments(conn, run),
        "curve": _see_curve(conn, run),
        "reports": list(zip(told, reports, strict=True)),
        "siblings": siblings,
        "rerun": _find_rerun(conn, row),
        "log": runs.get_log(conn, id),
        "known": find_refs(conn, (report.description for report in reports)),
    }


def _list_moments(conn: Connection, run: wire.Run) -> list[Moment]:
    t = tables.leases
    leases = conn.execute(select(t).where(t.c.run_id == run.id).order_by(t.c.fence)).all()
    told = [Moment(run.created_at, "queued")]
    for number, lease in enumerate(leases, 1):
        again = f"attempt {number}" if len(leases) > 1 else ""
        told.append(Moment(lease.created_at, "claimed", lease.worker_id, again))
    if run.finished_at is not None:
        told.append(Moment(run.finished_at, run.outcome or "finished", run.worker_id))
    return told


def _see_curve(conn: Connection, run: wire.Run) -> Curve | None:
    return draw_curve(runs.list_beats(conn, run.id, run.fence))


def _find_rerun(conn: Connection, row: Row[Any]) -> int | None:
    """The repetition of a run that was throttled."""
    r = tables.runs
    mine = (r.c.code == row.code, r.c.track_id == row.track_id, r.c.rerun_of == row.id)
    return conn.scalars(select(r.c.id).where(*mine)).first()


def _list_siblings(conn: Connection, row: Row[Any]) -> list[wire.Run]:
    """Other runs of the same code in the same track: the first one, replicates, audits."""
    r = tables.runs
    query = select(r.c.id).where(r.c.code == row.code, r.c.id != row.id, r.c.code != "")
    if row.track_id is not None:
        query = query.where(r.c.track_id == row.track_id)
    return [runs.get_run(conn, id) for id in conn.scalars(query.order_by(r.c.id).limit(SIBLINGS))]
