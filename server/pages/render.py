"""Pages as answers: the template environment, the headers, refusals as HTML, packaged files."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.filters import do_urlencode
from jinja2.runtime import Context
from markupsafe import Markup

from server import errors
from server.deps import is_unchanged
from server.pages import text
from server.pages.markdown import show_markdown
from server.pages.refs import Refs
from server.sessions import ANYBODY, Viewer

#: Scripts and styles only from the packaged files, nothing from elsewhere.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers then hide from us where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}

#: A picture opened as a page may show nothing but itself; other sites may show it.
PICTURE_HEADERS = HEADERS | {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

_STATIC = {
    file.name: file.read_bytes()
    for file in sorted(files("server.pages").joinpath("static").iterdir(), key=lambda f: f.name)
    if file.is_file()
}
#: Not left to the machine's own table: browsers run no module of another type.
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
#: Changes with the packaged files, so that browsers may keep them for ever.
VERSION = hashlib.sha256(b"".join(_STATIC.values())).hexdigest()[:12]


def show_page(
    template: str,
    now: datetime,
    status: int = 200,
    viewer: Viewer = ANYBODY,
    path: str = "",
    **context: Any,
) -> HTMLResponse:
    shown = _environment.get_template(template)
    html = shown.render(context, now=now, version=VERSION, viewer=viewer, path=path)
    return HTMLResponse(html, status, HEADERS)


def show_refusal(
    error: errors.HubError, now: datetime, viewer: Viewer = ANYBODY, path: str = ""
) -> HTMLResponse:
    return show_page("error.html", now, error.status, viewer, path, error=error)


def list_static() -> list[str]:
    """The names of the packaged files."""
    return list(_STATIC)


def serve_static(name: str, version: str) -> Response:
    """One of the packaged files; raise NotFound for any other name."""
    if name not in _STATIC:
        raise errors.NotFound("no such file")
    kept = "public, max-age=31536000, immutable" if version == VERSION else "no-cache"
    media_type = _TYPES.get(PurePath(name).suffix)
    return Response(_STATIC[name], 200, HEADERS | {"Cache-Control": kept}, media_type)


def show_picture(
    request: Request, media_type: str, picture: str, encode: Callable[[str], bytes]
) -> Response:
    """The picture as `encode` makes it, which is spared when the client has this one already."""
    tag = hashlib.sha256(f"{VERSION} {media_type} {picture}".encode()).hexdigest()[:32]
    headers = PICTURE_HEADERS | {"ETag": f'"{tag}"'}
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(encode(picture), 200, headers, media_type)


# What templates can say ------------------------------------------------------------------------


def _finalize(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return text.clean(value) if is_text else value


@pass_context
def _when(context: Context, moment: datetime) -> Markup:
    iso = moment.isoformat(" ", "seconds")[:19]
    shown = text.tell_age(moment, context["now"])
    # Nothing of a stranger's is in it.
    return Markup(  # noqa: S704
        f'<time datetime="{iso[:10]}T{iso[11:]}Z" title="{iso} UTC">{shown}</time>'
    )


@pass_context
def _linked(context: Context, content: str) -> Markup:
    known: Refs = context["known"]
    return known.link(content)


@pass_context
def _markdown(context: Context, content: str) -> Markup:
    known: Refs = context["known"]
    return show_markdown(content, known)


def _ticked(content: str) -> Markup:
    """A hint as the API gives it: what stands between backticks is code."""
    code = Markup("<code>{}</code>")
    parts = enumerate(map(text.clean, content.split("`")))
    return Markup("").join(code.format(part) if n % 2 else part for n, part in parts)


def _shorten(content: str, length: int = 160) -> str:
    content = " ".join(content[: length * 4].split())
    return content if len(content) <= length else content[: length - 1] + "…"


def _metric(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _quote(value: Any) -> str:
    """As Jinja does it; names and hashes come again and again."""
    return _quote_text(value) if isinstance(value, str) else do_urlencode(value)


_quote_text = lru_cache(4_096)(do_urlencode)


def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        # They are packaged, and never change under a process.
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": _when,
        "linked": _linked,
        "markdown": _markdown,
        "size": text.tell_size,
        "shorten": _shorten,
        "ticked": _ticked,
        "metric": _metric,
        "bpb": lambda score: f"{score:.6f}",
        "count": lambda number: f"{number:,}",
        "duration": text.tell_duration,
        "fold": text.fold,
        "urlencode": _quote,
    }
    return environment


_environment = _make_environment()
