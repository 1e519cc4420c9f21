"""Pages as answers: the template environment, the headers, refusals as HTML, packaged files."""

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from server import errors
from server.pages import text

#: No scripts, nothing from elsewhere, and style only from the packaged file.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_STATIC = {
    name: files("server.pages").joinpath("static", name).read_bytes()
    for name in ("hub.css", "icon.svg")
}
#: Changes with the packaged files, so that browsers may keep them for ever.
VERSION = hashlib.sha256(b"".join(_STATIC.values())).hexdigest()[:12]


def show_page(template: str, now: datetime, status: int = 200, **context: Any) -> HTMLResponse:
    html = _environment.get_template(template).render(context, now=now, version=VERSION)
    return HTMLResponse(html, status, HEADERS)


def show_refusal(error: errors.HubError, now: datetime) -> HTMLResponse:
    return show_page("error.html", now, error.status, error=error)


def serve_static(name: str, version: str) -> Response:
    """One of the packaged files; raise NotFound for any other name."""
    if name not in _STATIC:
        raise errors.NotFound("no such file")
    kept = "public, max-age=31536000, immutable" if version == VERSION else "no-cache"
    media_type = mimetypes.guess_type(name)[0]
    return Response(_STATIC[name], 200, HEADERS | {"Cache-Control": kept}, media_type)


# What templates can say ------------------------------------------------------------------------


def _finalize(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return text.clean(value) if is_text else value


@pass_context
def _when(context: Context, moment: datetime) -> Markup:
    shown = text.tell_age(moment, context["now"])
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"{moment:%Y-%m-%d %H:%M:%S} UTC", shown
    )


@pass_context
def _linked(context: Context, content: str) -> Markup:
    known: Mapping[str, str] = context["known"]
    return text.link_hashes(content, known)


def _shorten(content: str, length: int = 160) -> str:
    content = " ".join(content[: length * 4].split())
    return content if len(content) <= length else content[: length - 1] + "…"


def _metric(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": _when,
        "linked": _linked,
        "shorten": _shorten,
        "metric": _metric,
        "bpb": lambda score: f"{score:.6f}",
        "count": lambda number: f"{number:,}",
        "duration": text.tell_duration,
        "fold": text.fold,
    }
    return environment


_environment = _make_environment()
