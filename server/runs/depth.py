"""Depth: how much waits for workers, for those who start and stop machines."""

from sqlalchemy import func, select

from server import results, tables, wire
from server.db import Connection
from server.runs import queue


def read_depth(conn: Connection) -> wire.QueueDepth:
    """What is queued and running, by track.

    The queue of a track is brought up to date by claims only, so what was pushed since the last
    one is counted here: a fleet of no workers at all must see that there is work.
    """
    r, t = tables.runs, tables.tracks
    counts = {
        (row.track_id, row.state): row.number
        for row in conn.execute(
            select(r.c.track_id, r.c.state, func.count().label("number"))
            .where(r.c.state.in_([wire.RunState.QUEUED, wire.RunState.RUNNING]))
            .group_by(r.c.track_id, r.c.state)
        )
    }
    tracks = []
    for track in conn.execute(select(t).where(t.c.scoring != results.REPORTED).order_by(t.c.id)):
        queued = counts.get((track.id, wire.RunState.QUEUED), 0)
        told = wire.TrackDepth(
            track=results.track_name(track),
            queued=queued + queue.count_unseen(conn, track.id, track.seen_seq),
            running=counts.get((track.id, wire.RunState.RUNNING), 0),
        )
        tracks.append(told)
    anywhere = counts.get((None, wire.RunState.QUEUED), 0)
    if not tracks:
        anywhere += queue.count_unseen(conn, None, 0)
    return wire.QueueDepth(
        queued=anywhere + sum(one.queued for one in tracks),
        running=sum(one.running for one in tracks),
        anywhere=anywhere,
        tracks=tracks,
    )
