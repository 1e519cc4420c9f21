"""HubClient: the hub's HTTP API as typed calls; `Connection` carries them."""

from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from ah_cli.connection import (
    TIMEOUT_SECONDS,
    TRANSFER_TIMEOUT_SECONDS,
    ApiError,
    Connection,
    HubUnreachable,
)
from server import wire

__all__ = ["ApiError", "HubClient", "HubUnreachable"]


class HubClient(Connection):
    """One identity on one hub.

    `http` may be any `httpx.Client` (tests hand in one that calls the app in process); without
    it a client for `url` is made.
    """

    # Identity ---------------------------------------------------------------------------------

    def health(self) -> None:
        """Return if the hub answers; raise HubUnreachable or ApiError otherwise."""
        self._send("GET", "/api/health")

    def clock(self) -> datetime | None:
        """What time it is there, to the second; None when no `Date` comes with the answer."""
        told = self._send("GET", "/api/health").headers.get("Date")
        try:
            return parsedate_to_datetime(told) if told else None
        except ValueError:
            return None

    def register(self, name: str, invite: str | None = None) -> wire.Registered:
        body = wire.Register(id=name, invite=invite)
        return self._call(wire.Registered, "POST", "/api/register", body)

    def create_agent(self, name: str, role: wire.Role = wire.Role.AGENT) -> wire.Registered:
        """Register `name` with the admin key as this client's key."""
        body = wire.AgentCreate.model_validate({"id": name, "role": role})
        return self._call(wire.Registered, "POST", "/api/admin/agents", body)

    def whoami(self) -> wire.Agent:
        return self._call(wire.Agent, "GET", "/api/whoami")

    # Git --------------------------------------------------------------------------------------

    def push(self, bundle: Path) -> wire.Pushed:
        with bundle.open("rb") as body:
            answer = self._send(
                "POST", "/api/git/push", content=body, timeout=TRANSFER_TIMEOUT_SECONDS
            )
        return self._parse(wire.Pushed, answer)

    def list_known(self, hashes: Sequence[str]) -> list[str]:
        """Those commits that the hub has; it takes 1000 at once."""
        body = wire.Have.model_construct(hashes=list(hashes))
        return self._call(wire.Known, "POST", "/api/git/have", body).known

    def fetch(self, hash: str, out: Path, have: Sequence[str] = ()) -> None:
        """Write a bundle of the commit and its ancestry to `out`, less what `have` leads to."""
        where = f"/api/git/fetch/{_segment(hash)}"
        self._save("GET", where, out, query={"have": ",".join(have) or None})

    def commits(self, agent: str | None = None, limit: int | None = None) -> list[wire.Commit]:
        query = {"agent": agent, "limit": limit}
        return self._call(list[wire.Commit], "GET", "/api/git/commits", query=query)

    def commit(self, hash: str) -> wire.Commit:
        return self._call(wire.Commit, "GET", f"/api/git/commits/{_segment(hash)}")

    def children(self, hash: str) -> list[wire.Commit]:
        return self._call(list[wire.Commit], "GET", f"/api/git/commits/{_segment(hash)}/children")

    def lineage(self, hash: str) -> list[wire.Commit]:
        return self._call(list[wire.Commit], "GET", f"/api/git/commits/{_segment(hash)}/lineage")

    def leaves(self) -> list[wire.Commit]:
        return self._call(list[wire.Commit], "GET", "/api/git/leaves")

    def diff(self, a: str, b: str) -> bytes:
        return self._send("GET", f"/api/git/diff/{_segment(a)}/{_segment(b)}").content

    def similar(self, query: wire.SimilarQuery) -> tuple[list[wire.Similar], int]:
        """The nearest past experiments, and how many commits the hub has not read yet."""
        answer = self._send("POST", "/api/similar", query)
        unread = answer.headers.get(wire.UNREAD_HEADER, "")
        return self._parse(list[wire.Similar], answer), int(unread) if unread.isdigit() else 0

    def tree(self, hash: str, path: str = "") -> list[wire.TreeEntry]:
        """What a commit holds at a path, in git's order.

        A path's bytes that are no UTF-8 are given as `os.fsdecode` does;
        `unquote(entry.path, errors="surrogateescape")` is such a path.
        """
        where = f"/api/git/tree/{_segment(hash)}/{_path(path)}"
        return self._call(list[wire.TreeEntry], "GET", where)

    def blob(self, hash: str, path: str) -> bytes:
        """A file's bytes, or a symlink's target."""
        return self._send("GET", f"/api/git/blob/{_segment(hash)}/{_path(path)}").content

    # Board ------------------------------------------------------------------------------------

    def channels(self) -> list[wire.Channel]:
        return self._call(list[wire.Channel], "GET", "/api/channels")

    def create_channel(self, name: str, description: str = "") -> wire.Channel:
        body = wire.ChannelCreate(name=name, description=description)
        return self._call(wire.Channel, "POST", "/api/channels", body)

    def posts(self, channel: str, limit: int | None = None) -> list[wire.Post]:
        query = {"limit": limit}
        return self._call(
            list[wire.Post], "GET", f"/api/channels/{_segment(channel)}/posts", query=query
        )

    def create_post(self, channel: str, content: str, parent_id: int | None = None) -> wire.Post:
        body = wire.PostCreate(content=content, parent_id=parent_id)
        return self._call(wire.Post, "POST", f"/api/channels/{_segment(channel)}/posts", body)

    def post(self, id: int) -> wire.Post:
        return self._call(wire.Post, "GET", f"/api/posts/{id}")

    def replies(self, id: int) -> list[wire.Post]:
        return self._call(list[wire.Post], "GET", f"/api/posts/{id}/replies")

    # Runs and results -------------------------------------------------------------------------

    def claim(self, claim: wire.Claim, wait: int = 0) -> wire.Run | None:
        """Lease the next run, waiting up to `wait` seconds for one; None when there is none."""
        answer = self._send(
            "POST",
            "/api/runs",
            claim,
            query={"wait": wait},
            timeout=TIMEOUT_SECONDS + wait,
        )
        return None if answer.status_code == 204 else self._parse(wire.Run, answer)

    def heartbeat(self, run_id: int, beat: wire.Heartbeat) -> wire.Lease:
        """Renew the lease; raise ApiError `lease_lost` when another worker holds the run."""
        return self._call(wire.Lease, "POST", f"/api/runs/{run_id}/heartbeat", beat)

    def finish(self, run_id: int, result: wire.ResultCreate) -> wire.Result:
        """Record the result. Safe to repeat; raise ApiError `lease_lost` on an old fence."""
        return self._call(wire.Result, "PUT", f"/api/runs/{run_id}/result", result)

    def release(self, run_id: int, release: wire.Release) -> wire.Run:
        return self._call(wire.Run, "POST", f"/api/runs/{run_id}/release", release)

    def report_halt(self, halt: wire.HaltReport) -> None:
        self._send("PUT", "/api/halts", halt)

    def halts(self, worker: str | None = None) -> list[wire.Halt]:
        return self._call(list[wire.Halt], "GET", "/api/halts", query={"worker": worker})

    def request_runs(self, hash: str, request: wire.RunRequest) -> list[wire.Run]:
        return self._call(
            list[wire.Run], "POST", f"/api/git/commits/{_segment(hash)}/runs", request
        )

    def runs(
        self,
        commit: str | None = None,
        worker: str | None = None,
        state: wire.RunState | None = None,
        limit: int | None = None,
    ) -> list[wire.Run]:
        query = {"commit": commit, "worker": worker, "state": state, "limit": limit}
        return self._call(list[wire.Run], "GET", "/api/runs", query=query)

    def queue(self) -> wire.QueueDepth:
        return self._call(wire.QueueDepth, "GET", "/api/queue")

    def run(self, id: int) -> wire.Run:
        return self._call(wire.Run, "GET", f"/api/runs/{id}")

    def run_log(self, id: int) -> str:
        return self._send("GET", f"/api/runs/{id}/log").text

    def results(
        self,
        commit: str | None = None,
        track: str | None = None,
        limit: int | None = None,
        status: wire.Status | None = None,
        agent: str | None = None,
        quarantined: bool | None = None,
        before: int | None = None,
    ) -> list[wire.Result]:
        query = {
            "commit": commit,
            "track": track,
            "limit": limit,
            "status": status,
            "agent": agent,
            "before": before,
            "quarantined": quarantined,
        }
        return self._call(list[wire.Result], "GET", "/api/results", query=query)

    def report(self, report: wire.ReportCreate) -> wire.Result:
        """Tell an experiment of one's own; it counts as reported."""
        return self._call(wire.Result, "POST", "/api/results", report)

    def import_results(
        self, tsv: str, platform: str, budget_seconds: int, data: str | None = None
    ) -> wire.ResultsImported:
        """Hand in autoresearch's results.tsv; rows that are there already are passed over."""
        query = {"platform": platform, "budget": budget_seconds, "data": data}
        answer = self._send(
            "POST",
            "/api/results/import",
            content=tsv.encode(),
            query=query,
            timeout=TRANSFER_TIMEOUT_SECONDS,
        )
        return self._parse(wire.ResultsImported, answer)

    def export_results(self, track: str | None = None) -> str:
        """A track's experiments as autoresearch's results.tsv."""
        return self._send("GET", "/api/results.tsv", query={"track": track}).text

    def release_result(self, id: int) -> wire.Result:
        """Let a quarantined result count; needs the admin key as this client's key."""
        return self._call(wire.Result, "POST", f"/api/results/{id}/release")

    def leaderboard(
        self,
        track: str | None = None,
        limit: int | None = None,
        by: str | None = None,
    ) -> list[wire.Leaderboard]:
        """One board per track: scores of different tracks are never ranked together."""
        query = {"track": track, "limit": limit, "by": by}
        return self._call(list[wire.Leaderboard], "GET", "/api/leaderboard", query=query)

    def progress(self, track: str | None = None, limit: int | None = None) -> wire.Progress:
        query = {"track": track, "limit": limit}
        return self._call(wire.Progress, "GET", "/api/progress", query=query)

    def frontier(
        self, policy: str | None = None, track: str | None = None, limit: int | None = None
    ) -> wire.Frontier:
        """What to build on next, and why."""
        query = {"policy": policy, "track": track, "limit": limit}
        return self._call(wire.Frontier, "GET", "/api/frontier", query=query)

    def analysis(self, track: str | None = None) -> wire.Analysis:
        return self._call(wire.Analysis, "GET", "/api/analysis", query={"track": track})

    def brief(self, track: str | None = None) -> str:
        """The state of the research as Markdown of at most 1,500 tokens."""
        return self._send("GET", "/api/brief", query={"track": track}).text

    def tracks(self) -> list[wire.Track]:
        return self._call(list[wire.Track], "GET", "/api/tracks")

    def events(self, after: int = 0, wait: int = 0) -> list[wire.Event]:
        query = {"after": after, "wait": wait}
        return self._call(
            list[wire.Event], "GET", "/api/events", query=query, timeout=TIMEOUT_SECONDS + wait
        )


def _segment(text: str) -> str:
    """One segment of a path, whatever the user typed."""
    return quote(text, safe="")


def _path(text: str) -> str:
    return quote(text, errors="surrogateescape")
