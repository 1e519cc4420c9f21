"""Markdown of posts as HTML that is safe to show: no tags of the author's, no images, no scripts.

markdown-it reads it with HTML off, `Refs` links what it names, nh3 lets only a few tags through.
What costs too much, or says too much in too few characters, is shown as plain text.
"""

import re
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from server.kept import Shelf
from server.pages.code import colour
from server.pages.refs import Refs
from server.pages.text import clean

#: Elements of one post.
TOKENS_MAX = 4_000
NESTING_MAX = 20
#: A larger table is shown as the text that it was written in.
COLUMNS_MAX = 24
CELLS_MAX = 8_000

_TAGS = {
    *("p", "br", "hr", "a", "em", "strong", "s", "code", "pre", "span", "blockquote"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "div"),
}
_ATTRIBUTES = {
    "a": {"href", "title", "class"},
    "code": {"class"},
    "span": {"class"},
    "div": {"class", "dir", "tabindex"},
    "p": {"class"},
    "th": {"class"},
    "td": {"class"},
    "ol": {"start"},
}
# Other links stay text. Those without a scheme lead to pages of this hub.
_TARGET = re.compile(r"https?://|mailto:|/(?!/)|#")
_SCHEMES = {"http", "https", "mailto"}
_REL = "nofollow noopener noreferrer"


def show_markdown(content: str, refs: Refs) -> Markup:
    """A post as HTML."""
    content = clean(content)
    # Pages that know other things of a post may show it otherwise.
    key = content, refs.digest
    found = _shown.get(key)
    if found is None:
        found = _show(content, refs)
        _shown.put(key, found)
    return found


_shown: Shelf[tuple[str, bytes], Markup] = Shelf(sys.getsizeof)


def _show(content: str, refs: Refs) -> Markup:
    lines = content.split("\n")
    columns = max(line.count("|") for line in lines)
    reader = (
        _with_tables if columns <= COLUMNS_MAX and columns * len(lines) <= CELLS_MAX else _plain
    )
    tokens = reader.parse(content)
    count = sum(1 + len(token.children or ()) for token in tokens)
    # What is nested deeper than that, markdown-it leaves out.
    if count > TOKENS_MAX or any(token.level >= NESTING_MAX - 1 for token in tokens):
        return Markup('<p class="text">{}</p>').format(refs.link(content))
    html = reader.renderer.render(tokens, reader.options, {"refs": refs, "links": 0})
    return Markup(  # noqa: S704 - what nh3 lets through is safe
        nh3.clean(html, tags=_TAGS, attributes=_ATTRIBUTES, url_schemes=_SCHEMES, link_rel=_REL)
    )


# How tokens are shown ---------------------------------------------------------------------------

Tokens = Sequence[Token]
Env = MutableMapping[str, Any]


# Plain strings are joined to what they return: as Markup it would escape those.


def _text(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    text = tokens[at].content
    return str(escape(text) if env["links"] else env["refs"].link(text))


def _link_open(self: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    env["links"] += 1
    target = str(tokens[at].attrGet("href") or "")
    if not target.startswith(("/", "#")):
        tokens[at].attrSet("class", "outside")
    shown: str = self.renderToken(tokens, at, options, env)
    return shown


def _link_close(*_: Any) -> str:
    env: Env = _[-1]
    env["links"] -= 1
    return "</a>"


def _code_inline(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    return f"<code>{_text(_, tokens, at, options, env)}</code>"


def _code_block(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    language = tokens[at].info.split(maxsplit=1)[0] if tokens[at].info.strip() else ""
    lines = colour(tokens[at].content.rstrip("\n"), language)
    code = Markup("\n").join(lines)
    return f'<div class="code" tabindex="0" dir="ltr"><pre>{code}</pre></div>\n'


def _image(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    """A link: a picture from elsewhere would tell its host who looks at the board."""
    target, shown = str(tokens[at].attrGet("src") or ""), tokens[at].content or "image"
    if env["links"]:
        return str(escape(shown))
    return f'<a class="outside" href="{escape(target)}">{escape(shown)}</a>'


def _heading_open(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    # Not a heading of the page, whose outline is ours.
    return f'<p class="heading {tokens[at].tag}">'


def _heading_close(*_: Any) -> str:
    return "</p>\n"


def _table_open(*_: Any) -> str:
    return '<div class="wide" tabindex="0"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"


def _cell_open(_: Any, tokens: Tokens, at: int, options: Any, env: Env) -> str:
    align = str(tokens[at].attrGet("style") or "").rpartition(":")[2]
    return f'<{tokens[at].tag} class="{align}">' if align else f"<{tokens[at].tag}>"


_RULES = {
    "text": _text,
    "link_open": _link_open,
    "link_close": _link_close,
    "code_inline": _code_inline,
    "code_block": _code_block,
    "fence": _code_block,
    "image": _image,
    "heading_open": _heading_open,
    "heading_close": _heading_close,
    "table_open": _table_open,
    "table_close": _table_close,
    "th_open": _cell_open,
    "td_open": _cell_open,
}


def _make_reader(*extensions: str) -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": NESTING_MAX})
    reader.enable(list(extensions))
    reader.validateLink = lambda target: bool(_TARGET.match(target))  # type: ignore[assignment,method-assign]
    for name, rule in _RULES.items():
        reader.add_render_rule(name, rule)
    return reader


_with_tables = _make_reader("table", "strikethrough")
_plain = _make_reader("strikethrough")
