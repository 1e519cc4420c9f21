"""HubClient: the hub's HTTP API as typed calls. The only importer of httpx.

Every refusal becomes one `ApiError` with the code the hub raised; an unreachable hub becomes
`HubUnreachable`. Nothing here prints or exits.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from server import wire

T = TypeVar("T")

#: Seconds for a small call; transfers and long polls get more.
TIMEOUT_SECONDS = 30.0
TRANSFER_TIMEOUT_SECONDS = 600.0


class ApiError(Exception):
    """The hub refused: HTTP status, stable code, message, and a hint what to do next."""

    def __init__(self, status: int, body: wire.ErrorBody) -> None:
        super().__init__(body.error)
        self.status = status
        self.code = body.code
        self.message = body.error
        self.hint = body.hint
        self.retry_after = body.retry_after
        self.subjects = body.subjects or []


class HubUnreachable(Exception):
    """No answer from the hub: not running, wrong URL, or the network."""


class HubClient:
    """One identity on one hub.

    `http` may be any `httpx.Client` (tests hand in one that calls the app in process); without
    it a client for `url` is made.
    """

    def __init__(self, url: str, key: str = "", http: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        # A key that is not ASCII is a wrong key: for the hub to say, not for a codec.
        sendable = key.encode("ascii", "backslashreplace").decode()
        headers = {"Authorization": f"Bearer {sendable}"} if key else {}
        try:
            self._http = http or httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS)
        except httpx.InvalidURL as error:
            raise HubUnreachable(_reason(self.url, error)) from error
        self._headers = headers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Identity ---------------------------------------------------------------------------------

    def health(self) -> None:
        """Return if the hub answers; raise HubUnreachable or ApiError otherwise."""
        self._send("GET", "/api/health")

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
        request = self._request(
            "GET",
            f"/api/git/fetch/{_segment(hash)}",
            query={"have": ",".join(have) or None},
            timeout=TRANSFER_TIMEOUT_SECONDS,
        )
        try:
            answer = self._http.send(request, stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                with out.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            finally:
                answer.close()
        except httpx.HTTPError as error:
            raise HubUnreachable(_reason(self.url, error)) from error

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

    def run(self, id: int) -> wire.Run:
        return self._call(wire.Run, "GET", f"/api/runs/{id}")

    def run_log(self, id: int) -> str:
        return self._send("GET", f"/api/runs/{id}/log").text

    def results(
        self, commit: str | None = None, track: str | None = None, limit: int | None = None
    ) -> list[wire.Result]:
        query = {"commit": commit, "track": track, "limit": limit}
        return self._call(list[wire.Result], "GET", "/api/results", query=query)

    def leaderboard(
        self, track: str | None = None, limit: int | None = None
    ) -> list[wire.Leaderboard]:
        """One board per track: scores of different tracks are never ranked together."""
        query = {"track": track, "limit": limit}
        return self._call(list[wire.Leaderboard], "GET", "/api/leaderboard", query=query)

    def tracks(self) -> list[wire.Track]:
        return self._call(list[wire.Track], "GET", "/api/tracks")

    def events(self, after: int = 0, wait: int = 0) -> list[wire.Event]:
        query = {"after": after, "wait": wait}
        return self._call(
            list[wire.Event], "GET", "/api/events", query=query, timeout=TIMEOUT_SECONDS + wait
        )

    # The one way out ---------------------------------------------------------------------------

    def _call(
        self,
        answer_type: type[T],
        method: str,
        path: str,
        body: wire.Wire | None = None,
        query: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> T:
        return self._parse(
            answer_type, self._send(method, path, body, query=query, timeout=timeout)
        )

    def _parse(self, answer_type: type[T], answer: httpx.Response) -> T:
        try:
            return TypeAdapter(answer_type).validate_json(answer.content)
        except ValidationError as error:
            raise HubUnreachable(
                f"{self.url} does not answer like an AgentHub; check the URL"
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        body: wire.Wire | None = None,
        *,
        content: Any = None,
        query: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        request = self._request(method, path, body, content=content, query=query, timeout=timeout)
        try:
            answer = self._http.send(request)
        except httpx.HTTPError as error:
            raise HubUnreachable(_reason(self.url, error)) from error
        if not answer.is_success:
            raise _refusal(answer)
        return answer

    def _request(
        self,
        method: str,
        path: str,
        body: wire.Wire | None = None,
        *,
        content: Any = None,
        query: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> httpx.Request:
        headers = dict(self._headers)
        if body is not None:
            content = body.model_dump_json()
            headers["Content-Type"] = "application/json"
        return self._http.build_request(
            method,
            path,
            content=content,
            params={k: v for k, v in (query or {}).items() if v is not None},
            headers=headers,
            timeout=timeout or TIMEOUT_SECONDS,
        )


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        body = wire.ErrorBody.model_validate_json(answer.content)
    except ValidationError:
        # A proxy in front of the hub, or not a hub at all.
        body = wire.ErrorBody(
            error=f"HTTP {answer.status_code} from {answer.request.url.host}",
            code=wire.ErrorCode.UNAVAILABLE,
            hint="check the hub's URL",
        )
    return ApiError(answer.status_code, body)


def _segment(text: str) -> str:
    """One segment of a path, whatever the user typed."""
    return quote(text, safe="")


def _path(text: str) -> str:
    return quote(text, errors="surrogateescape")


def _reason(url: str, error: Exception) -> str:
    return f"cannot reach the hub at {url}: {str(error) or type(error).__name__}"
