"""What each page shows, gathered in one consistent snapshot of the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from server import board, commits, results, runs, wire
from server.db import Connection
from server.pages import queries
from server.pages.diff import Diff, parse_diff
from server.pages.graph import draw_graph
from server.pages.plot import Plot, draw_plot
from server.repo import BareRepo

#: How many of a kind a page shows.
TRACKS = 6
PLACES = 10
RUNS = 30
COMMITS = 50
POSTS = 30
NEIGHBOURS = 12
#: Results in a plot.
PLOTTED = 1000
#: Places on the page of one track, commits on a page of the list.
MANY = 100

Context = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Board:
    """A track as people watch it: best score, gain over the first one, plot, leaderboard."""

    track: wire.Track
    entries: Sequence[wire.LeaderboardEntry]
    first: float | None
    plot: Plot | None

    @property
    def best(self) -> wire.LeaderboardEntry | None:
        return self.entries[0] if self.entries else None


def see_overview(conn: Connection, now: datetime) -> Context:
    tracks = results.list_tracks(conn)
    boards = [track for track in tracks if track.results][:TRACKS]
    posts = queries.list_posts(conn, POSTS)
    return (
        {
            "numbers": queries.count_all(conn, now),
            "boards": [see_board(conn, track, PLACES) for track in boards],
            "more_tracks": [track for track in tracks if track not in boards],
            "channels": board.list_channels(conn),
            "posts": posts,
            "known": queries.find_commits(conn, (post.content for post in posts)),
        }
        | _see_runs(conn, wire.RunState.RUNNING)
        | see_commits(conn, COMMITS)
    )


def see_board(conn: Connection, track: wire.Track, places: int) -> Board:
    entries = results.leaderboard(conn, track, places).entries
    first = queries.find_first_score(conn, track.id)
    return Board(track, entries, first, None if first is None else _plot(conn, track, first))


def _plot(conn: Connection, track: wire.Track, baseline: float) -> Plot | None:
    rows = queries.list_progress(conn, track.id, PLOTTED)
    is_all = len(rows) < PLOTTED
    earlier = None if is_all else queries.find_best_before(conn, track.id, rows[0].id)
    number = 1 if is_all else max(track.results - len(rows) + 1, 1)
    if earlier is None and all(row.val_bpb is None for row in rows):
        return None
    return draw_plot(rows, baseline, earlier, number)


def _see_runs(conn: Connection, state: wire.RunState) -> Context:
    found = runs.list_runs(conn, state=state, limit=RUNS)
    return {"runs": found, "subjects": queries.find_subjects(conn, {run.commit for run in found})}


def see_commits(conn: Connection, limit: int, before: str | None = None) -> Context:
    page = commits.list_commits(conn, None, limit, before=before)
    older = page[-1].hash if len(page) == limit else None
    return {"commits": page, "graph": draw_graph(page), "older": older}


def see_track(conn: Connection, track_id: int) -> Context:
    track = results.get_track(conn, str(track_id))
    return {"board": see_board(conn, track, MANY)}


def see_commit(conn: Connection, prefix: str) -> Context:
    row = commits.resolve(conn, prefix)
    parents = queries.list_parents(conn, row.seq)
    children = queries.list_children(conn, row.seq, NEIGHBOURS)
    scored = results.list_results(conn, row.seq)
    texts = [row.message, row.body, *(result.description for result in scored)]
    return {
        "commit": row,
        "parents": parents,
        "children": children,
        "scores": results.best_scores(conn, [row.seq, *(c.seq for c in (*parents, *children))]),
        "results": scored,
        "runs": runs.list_runs(conn, commit_seq=row.seq),
        "known": queries.find_commits(conn, texts),
    }


@lru_cache(maxsize=64)
def see_diff(repo: BareRepo, parent: str, commit: str) -> Diff:
    """Kept, because commits never change and anyone may ask for this again and again."""
    return parse_diff(repo.diff(parent, commit))


def see_channel(conn: Connection, name: str, before: int | None) -> Context:
    channel = board.get_channel(conn, name)
    posts = queries.list_posts(conn, COMMITS, channel_id=channel.id, before=before)
    return {
        "channel": channel,
        "posts": posts,
        "older": posts[-1].id if len(posts) == COMMITS else None,
        "is_latest": before is None,
        "known": queries.find_commits(conn, (post.content for post in posts)),
    }


def see_agent(conn: Connection, id: str) -> Context:
    agent = queries.get_agent(conn, id)
    posts = queries.list_posts(conn, POSTS, agent_id=id)
    done = runs.list_runs(conn, worker=id, limit=RUNS) if agent.role == wire.Role.WORKER else []
    return {
        "agent": agent,
        "commits": commits.list_commits(conn, id, COMMITS),
        "runs": done,
        "subjects": queries.find_subjects(conn, {run.commit for run in done}),
        "posts": posts,
        "known": queries.find_commits(conn, (post.content for post in posts)),
    }


def see_run(conn: Connection, id: int) -> Context:
    run = runs.get_run(conn, id)
    reports = queries.list_run_results(conn, id)
    track = None if run.track is None else results.get_track(conn, run.track)
    return {
        "run": run,
        "track": track,
        "message": queries.find_subjects(conn, [run.commit])[run.commit],
        "machine": queries.get_machine(conn, id),
        "reports": reports,
        "log": runs.get_log(conn, id),
        "known": queries.find_commits(conn, (report.description for report in reports)),
    }
