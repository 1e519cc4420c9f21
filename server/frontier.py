"""The frontier as an agent sees it: what to build on next, ranked, with the reason in one line.

Candidates are the leaves, and the best commits of the track even if others built on them: a good
one whose children all failed is still the best place to start from.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
)

from server import results, tables, wire
from server.db import Connection
from server.policy import Candidate, Policy, rank
from server.prepared import Prepared, PreparedIn

#: How many candidates are weighed: the newest leaves, and the best scores of the track.
_LEAVES_MAX = 300
_BEST_MAX = 100
_ORDINALS = {1: "best", 2: "2nd best", 3: "3rd best"}

C, S, P = tables.commits, tables.scores, tables.commit_parents


@dataclass(frozen=True, slots=True)
class _Family:
    """What became of a commit's children in a track."""

    children: int
    failed: int
    touched_at: datetime | None


def list_next(
    conn: Connection,
    track: wire.Track | None,
    policy: Policy | None,
    limit: int,
    now: datetime,
    rng: random.Random,
) -> list[wire.FrontierEntry]:
    """Commits to build on, the first choice first; without a policy in random order.

    Commits that crashed or wait in quarantine are left out.
    """
    track_id = track.id if track else 0
    found = [row for row in _list_candidates(conn, track_id) if not _is_dead(row)]
    if not found:
        return []
    if policy is None:
        chosen = rng.sample(found, min(limit, len(found)))
        families = _read_families(conn, track_id, chosen)
    else:
        families = _read_families(conn, track_id, found)
        order = _order(conn, track, policy, found, families, rng)
        chosen = [found[index] for index in order[:limit]]
    places = _places(found)
    return [
        _entry(number, row, places.get(row.seq), families.get(row.seq), track, now)
        for number, row in enumerate(chosen, 1)
    ]


def _select_candidates() -> Select[Any]:
    r, u = tables.results, tables.runs
    track: BindParameter[int] = bindparam("track")
    tried = select(r.c.id).where(r.c.code == C.c.code, r.c.track_id == track).exists()
    # The largest of a state alone would be looked for among all that are queued.
    live = case((u.c.state.in_(_spelled("queued", "running")), u.c.state))
    of_code = (u.c.code == C.c.code, u.c.track_id == track)
    running = select(func.max(live)).where(*of_code).scalar_subquery()
    return select(
        *(C.c.seq, C.c.hash, C.c.agent_id, C.c.message, C.c.created_at, C.c.child_count),
        *(S.c.val_bpb, S.c.n, S.c.state, S.c.challenger),
        *(tried.label("is_tried"), running.label("training")),
    )


def _spelled(*words: str) -> list[Any]:
    """A list of values gets its length only when a statement runs; constants have one."""
    return [literal_column(f"'{word}'") for word in words]


_SCORED = and_(S.c.track_id == bindparam("track"), S.c.code == C.c.code)
_LEAVES = Prepared(
    _select_candidates()
    .outerjoin(S, _SCORED)
    .where(C.c.child_count == literal_column("0"))
    .order_by(C.c.seq.desc())
    .limit(_LEAVES_MAX)
)
_BEST = Prepared(
    _select_candidates()
    .join(S, _SCORED)
    .where(S.c.val_bpb.is_not(None), C.c.seq == S.c.commit_seq)
    .order_by(S.c.val_bpb)
    .limit(_BEST_MAX)
)


def _list_candidates(conn: Connection, track_id: int) -> Sequence[Row[Any]]:
    rows = [*_BEST.rows(conn, track=track_id), *_LEAVES.rows(conn, track=track_id)]
    return list({row.seq: row for row in rows}.values())


def _is_dead(row: Row[Any]) -> bool:
    """Whether it was tried in this track and nothing that counts came of it."""
    return row.val_bpb is None and row.is_tried and row.training is None


def _select_families(seqs: Sequence[Any]) -> Select[Any]:
    child, own, parent = C.alias("child"), S.alias("own"), C.alias("parent")
    track: BindParameter[int] = bindparam("track")
    failed = and_(S.c.code.is_not(None), (S.c.val_bpb.is_(None)) | (S.c.val_bpb >= own.c.val_bpb))
    return (
        select(P.c.parent, func.count().label("children"))
        .add_columns(func.sum(case((failed, 1), else_=0)).label("failed"))
        .add_columns(func.max(child.c.created_at).label("touched_at"))
        .join(child, child.c.seq == P.c.child)
        .join(parent, parent.c.seq == P.c.parent)
        .outerjoin(S, and_(S.c.track_id == track, S.c.code == child.c.code))
        .outerjoin(own, and_(own.c.track_id == track, own.c.code == parent.c.code))
        .where(P.c.parent.in_(seqs))
        .group_by(P.c.parent)
    )


_FAMILIES = PreparedIn(_select_families)


def _read_families(
    conn: Connection, track_id: int, found: Sequence[Row[Any]]
) -> dict[int, _Family]:
    rows = _FAMILIES.all(conn, [row.seq for row in found], track=track_id)
    return {parent: _Family(*family) for parent, *family in rows}


def _order(
    conn: Connection,
    track: wire.Track | None,
    policy: Policy,
    found: Sequence[Row[Any]],
    families: dict[int, _Family],
    rng: random.Random,
) -> list[int]:
    candidates = [
        Candidate(row.seq, row.val_bpb, max(row.n or 0, 1), _children(families, row.seq))
        for row in found
    ]
    total = sum(one.visits for one in candidates) + len(candidates)
    sigma = results.sigma_of(conn, track.id) if track else 1.0
    return rank(policy, candidates, total, sigma, rng)


def _children(families: dict[int, _Family], seq: int) -> int:
    family = families.get(seq)
    return family.children if family else 0


def _places(found: Sequence[Row[Any]]) -> dict[int, int]:
    """The place of each commit among the scores of the track."""
    scored = sorted((row.val_bpb, row.seq) for row in found if row.val_bpb is not None)
    return {seq: place for place, (_, seq) in enumerate(scored, 1)}


def _entry(
    number: int,
    row: Row[Any],
    place: int | None,
    family: _Family | None,
    track: wire.Track | None,
    now: datetime,
) -> wire.FrontierEntry:
    touched = max(row.created_at, (family.touched_at if family else None) or row.created_at)
    score = None
    if row.val_bpb is not None and track is not None:
        source = results.source_of(row.state)
        score = wire.Score(val_bpb=row.val_bpb, track=track.name, source=source, n=max(row.n, 1))
    return wire.FrontierEntry(
        rank=number,
        commit=row.hash,
        agent_id=row.agent_id or "",
        message=row.message,
        score=score,
        is_leaf=row.child_count == 0,
        children=family.children if family else 0,
        failed=family.failed if family else 0,
        touched_at=touched,
        why=", ".join(_reasons(row, place, family, now - touched)),
    )


def _reasons(row: Row[Any], place: int | None, family: _Family | None, age: timedelta) -> list[str]:
    return [_standing(row, place), _offspring(family), f"last touched {_tell(age)} ago"]


def _standing(row: Row[Any], place: int | None) -> str:
    if place is None:
        return {"running": "in training", "queued": "waits for training"}.get(
            row.training or "", "not trained here"
        )
    return f"{_ORDINALS.get(place, f'{place}th best')} {row.state}, n={max(row.n, 1)}"


def _offspring(family: _Family | None) -> str:
    if family is None or not family.children:
        return "nobody built on it"
    plural = "child" if family.children == 1 else "children"
    return f"{family.failed} of {family.children} {plural} failed"


def _tell(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    if minutes < 120:
        return f"{max(minutes, 0)} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"
