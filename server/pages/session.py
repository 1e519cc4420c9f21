"""Who looks at a page: the one door to every page, fragment and stream, logging in and out.

On a private hub nothing but the log-in page is shown without a session. Forms of a session bring
its token, and every form must come from a page of this hub.
"""

import hmac
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server import errors
from server.deps import Hub, TheHub
from server.pages.frame import open_router, show_page
from server.sessions import ANYBODY, LIFETIME, Viewer
from server.settings import Pages

COOKIE = "agenthub_session"
#: A post of 32 KiB in which every byte is percent-encoded, and the other fields.
FORM_BYTES = 128 * 1024
_FIELDS_MAX = 20


async def find_viewer(request: Request, hub: TheHub) -> Viewer:
    """Whose session the request belongs to; refuses nobody."""
    cookie = request.cookies.get(COOKIE, "")
    viewer = await run_in_threadpool(_find_session, hub, cookie) if cookie else ANYBODY
    # Where `show_page` and refusals look for it.
    request.state.viewer = viewer
    return viewer


def _find_session(hub: Hub, cookie: str) -> Viewer:
    with hub.db.read() as conn:
        return hub.sessions.find(conn, cookie, hub.now())


async def may_see(hub: TheHub, viewer: Annotated[Viewer, Depends(find_viewer)]) -> Viewer:
    """Who looks; raise Unauthorized where pages are private and nobody is logged in."""
    if viewer.agent is None and hub.settings.pages is Pages.PRIVATE:
        raise errors.Unauthorized("this hub is private", "log in with an API key at /login")
    return viewer


#: What every page route, fragment and stream depends on.
MAY_SEE = Depends(may_see)
TheViewer = Annotated[Viewer, MAY_SEE]


# Forms ------------------------------------------------------------------------------------------


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that a page of this hub sent."""
    _check_origin(request)
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > FORM_BYTES:
            raise errors.TooLarge(f"forms are at most {FORM_BYTES} bytes")
    try:
        fields = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX
        )
    except ValueError as error:
        raise errors.InvalidRequest("this form cannot be read") from error
    # Browsers send line breaks as \r\n.
    return {name: value.replace("\r\n", "\n") for name, value in fields}


def _check_origin(request: Request) -> None:
    """Raise Forbidden unless the browser says that one of our pages sent this."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin", "")
    # Browsers leave the first out on plain HTTP; the second fails where a proxy changes Host.
    is_ours = site == "same-origin" if site else _host(origin) == request.headers.get("Host")
    if not is_ours:
        raise errors.Forbidden(
            "this form came from another site", "open the page on this hub and send it from there"
        )


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


Fields = Annotated[dict[str, str], Depends(read_form)]


def check_form(viewer: TheViewer, fields: Fields) -> dict[str, str]:
    """The fields of a form of this very session."""
    if viewer.agent is None:
        raise errors.Unauthorized("you are logged out", "log in and send it again")
    if not hmac.compare_digest(fields.get("token", "").encode(), viewer.token.encode()):
        raise errors.Forbidden(
            "this form belongs to another session", "go back, reload the page and send it again"
        )
    return fields


SignedFields = Annotated[dict[str, str], Depends(check_form)]


# Logging in and out -----------------------------------------------------------------------------

router = open_router()


@router.get("/login", dependencies=[Depends(find_viewer)])
def login_page(request: Request, hub: TheHub, next: str = "/") -> Response:
    return show_page(request, "login.html", onward=_local(next), refusal=None)


@router.post("/login", dependencies=[Depends(find_viewer)])
def login(request: Request, hub: TheHub, fields: Fields) -> Response:
    onward = _local(fields.get("next", ""))
    try:
        agent = hub.keys.identify(fields.get("key", "").strip())
    except errors.HubError as error:
        return show_page(request, "login.html", error.status, onward=onward, refusal=error)
    with hub.db.read() as conn:
        cookie = hub.sessions.open(conn, agent, hub.now())
    answer = RedirectResponse(onward, 303)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def logout(request: Request, fields: SignedFields) -> Response:
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer


def _local(path: str) -> str:
    """The path to go on to; the overview unless it is one of this hub."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\", "/login"))
    return quote(path, safe="/?&=%#+:,~@!$'()*;") if is_local else "/"
