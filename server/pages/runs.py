"""A run's page: what happened to it, how far it is, its curve, log and result."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Row, bindparam, select

from server import results, runs, tables, wire
from server.db import Connection
from server.deps import TheHub
from server.pages import queries
from server.pages.curve import Curve, draw_curve
from server.pages.frame import open_router, parse_id, show_page
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE
from server.prepared import Prepared

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
    row = _RUN.row(conn, id=id)
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
        "log": row.log,
        "known": find_refs(conn, (report.description for report in reports)),
    }


def _list_moments(conn: Connection, run: wire.Run) -> list[Moment]:
    leases = _LEASES.rows(conn, run=run.id)
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
    rerun: int | None = _RERUN.scalar(conn, code=row.code, track=row.track_id, id=row.id)
    return rerun


def _list_siblings(conn: Connection, row: Row[Any]) -> list[wire.Run]:
    """Other runs of the same code in the same track: the first one, replicates, audits."""
    if not row.code:
        return []
    asked = {"code": row.code, "id": row.id}
    if row.track_id is None:
        found = _ANY_SIBLINGS.all(conn, **asked)
    else:
        found = _SIBLINGS.all(conn, **asked, track=row.track_id)
    return [runs.get_run(conn, number) for (number,) in found]


_R, _L = tables.runs, tables.leases
_IN_TRACK = _R.c.track_id == bindparam("track")
_OF_CODE = (_R.c.code == bindparam("code"), _R.c.id != bindparam("id"))
_OTHERS = select(_R.c.id).where(*_OF_CODE).order_by(_R.c.id).limit(SIBLINGS)
_RUN = Prepared(select(_R).where(_R.c.id == bindparam("id")))
_LEASES = Prepared(select(_L).where(_L.c.run_id == bindparam("run")).order_by(_L.c.fence))
_ANY_SIBLINGS, _SIBLINGS = Prepared(_OTHERS), Prepared(_OTHERS.where(_IN_TRACK))
_RERUN = Prepared(
    select(_R.c.id).where(
        _R.c.code == bindparam("code"), _IN_TRACK, _R.c.rerun_of == bindparam("id")
    )
)
