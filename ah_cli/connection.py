"""Connection: one identity's way to a hub over HTTP. The only importer of httpx.

Every refusal becomes one `ApiError` with the code the hub raised; an unreachable hub becomes
`HubUnreachable`. Nothing here prints or exits.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

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


class Connection:
    """As `HubClient` is used; what it may say is there."""

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

    def _save(self, method: str, path: str, out: Path, query: dict[str, Any] | None = None) -> None:
        """Write the answer to a file as it comes."""
        request = self._request(method, path, query=query, timeout=TRANSFER_TIMEOUT_SECONDS)
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


def _reason(url: str, error: Exception) -> str:
    return f"cannot reach the hub at {url}: {str(error) or type(error).__name__}"
