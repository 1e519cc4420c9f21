"""What needs a human: workers that stall or stopped, doubted results, given up runs, questions.

A question is a post in a channel called `questions`, or one that names @human, @humans or @admin,
for as long as nobody has answered it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select

from server import finder, halts, results, runs, tables, wire
from server.db import Connection

#: Of each kind so many are told.
SHOWN = 4
CHALLENGERS = 2
#: Older questions and broken runs are history.
SPAN = timedelta(days=3)
#: Posts and runs that are looked at for one.
_LOOKED_AT = 200
_CHANNEL = "questions"
_CALLED = ("human", "humans", "admin")
_CALL = re.compile(r"(?<![\w@.-])@(?:humans?|admin)(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Challenger:
    """A score that would be the record, and how far its replicates are."""

    track: str
    commit: str
    message: str
    val_bpb: float
    done: int
    to_come: int


@dataclass(frozen=True, slots=True)
class Needs:
    stale: list[wire.WorkerStat]
    halted: list[wire.Halt]
    doubted: list[wire.Result]
    doubted_in_all: int
    challengers: list[Challenger]
    broken: list[wire.Run]
    questions: list[Row[Any]]
    #: Runs that wait while no worker is there.
    waiting: int

    def __len__(self) -> int:
        lists: tuple[Sequence[Any], ...] = (
            self.stale, self.halted, self.challengers, self.broken,
        )  # fmt: skip
        return self.doubted_in_all + len(self.questions) + sum(map(len, lists)) + bool(self.waiting)


def find_needs(
    conn: Connection,
    tracks: Sequence[wire.Track],
    workers: Sequence[wire.WorkerStat],
    now: datetime,
) -> Needs:
    is_there = any(one.state is not wire.WorkerState.GONE for one in workers)
    return Needs(
        stale=[one for one in workers if one.state is wire.WorkerState.STALE],
        halted=halts.list_halts(conn, limit=SHOWN),
        doubted=results.list_results(conn, limit=SHOWN, is_quarantined=True),
        doubted_in_all=sum(track.quarantined for track in tracks),
        challengers=_list_challengers(conn),
        broken=_list_broken(conn, now),
        questions=_list_questions(conn, now),
        waiting=0 if is_there else _count_waiting(conn),
    )


def _list_challengers(conn: Connection) -> list[Challenger]:
    s, c, t = tables.scores, tables.commits, tables.tracks
    rows = conn.execute(
        select(s, c.c.hash, c.c.message, t.c.platform, t.c.budget_seconds, t.c.data)
        .add_columns(t.c.data_fingerprint, t.c.scoring)
        .join(c, c.c.seq == s.c.commit_seq)
        .join(t, t.c.id == s.c.track_id)
        .where(s.c.state == wire.ScoreState.CHALLENGER)
        .order_by(s.c.val_bpb)
        .limit(CHALLENGERS)
    ).all()
    return [
        Challenger(
            track=results.track_label(row),
            commit=row.hash,
            message=row.message,
            val_bpb=row.val_bpb,
            done=row.n,
            to_come=_count_to_come(conn, row),
        )
        for row in rows
    ]


def _count_to_come(conn: Connection, score: Row[Any]) -> int:
    r = tables.runs
    live = r.c.state.in_([wire.RunState.QUEUED, wire.RunState.RUNNING])
    of_code = (r.c.code == score.code, r.c.track_id == score.track_id)
    query = select(func.count()).where(*of_code, r.c.kind == wire.RunKind.REPLICATE, live)
    count: int = conn.execute(query).scalar_one()
    return count


def _list_broken(conn: Connection, now: datetime) -> list[wire.Run]:
    """Runs given up after their attempts failed; none of whose commits a later run has ended."""
    given_up = runs.list_runs(conn, state=wire.RunState.QUARANTINED, limit=SHOWN)
    return [run for run in given_up if (run.started_at or run.created_at) > now - SPAN]


def _count_waiting(conn: Connection) -> int:
    r = tables.runs
    query = select(func.count()).where(r.c.state == wire.RunState.QUEUED)
    count: int = conn.execute(query).scalar_one()
    return count


def _list_questions(conn: Connection, now: datetime) -> list[Row[Any]]:
    p, c, reply = tables.posts, tables.channels, tables.posts.alias("reply")
    asked = {*finder.find_any(conn, _CALLED, _LOOKED_AT), *_list_first_posts(conn)}
    query = (
        select(p, c.c.name.label("channel"))
        .join(c, c.c.id == p.c.channel_id)
        .where(p.c.id.in_(asked), p.c.created_at > now - SPAN)
        .where(~select(reply.c.id).where(reply.c.parent_id == p.c.id).exists())
        .order_by(p.c.id.desc())
    )
    found = conn.execute(query).all()
    return [one for one in found if one.channel == _CHANNEL or _CALL.search(one.content)][:SHOWN]


def _list_first_posts(conn: Connection) -> Sequence[int]:
    """The newest that are no replies in the channel of questions."""
    p, c = tables.posts, tables.channels
    channel = select(c.c.id).where(c.c.name == _CHANNEL).scalar_subquery()
    query = select(p.c.id).where(p.c.channel_id == channel, p.c.thread_id.is_(None))
    return conn.scalars(query.order_by(p.c.id.desc()).limit(_LOOKED_AT)).all()
