"""The depth of the queue, for autoscalers: as JSON and in Prometheus' text format."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from server import runs, wire
from server.deps import Caller, TheHub

router = APIRouter()

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/api/queue")
def read_queue(hub: TheHub, caller: Caller) -> wire.QueueDepth:
    """How many runs wait and run, in all and by track."""
    with hub.db.read() as conn:
        return runs.read_depth(conn)


@router.get("/metrics", response_class=PlainTextResponse)
def read_metrics(hub: TheHub, caller: Caller) -> Response:
    with hub.db.read() as conn:
        depth = runs.read_depth(conn)
    return Response(write_metrics(depth), media_type=PROMETHEUS)


def write_metrics(depth: wire.QueueDepth) -> str:
    lines = []
    for name, meaning in (
        ("queued", "Runs that wait for a worker"),
        ("running", "Runs on workers"),
    ):
        lines += [f"# HELP agenthub_runs_{name} {meaning}.", f"# TYPE agenthub_runs_{name} gauge"]
        lines += [
            f'agenthub_runs_{name}{{track="{_escape(one.track)}"}} {getattr(one, name)}'
            for one in depth.tracks
        ]
        if name == "queued":
            # What any worker may take; without a track of its own.
            lines.append(f'agenthub_runs_queued{{track=""}} {depth.anywhere}')
    return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
