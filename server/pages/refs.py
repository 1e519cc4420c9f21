"""What a text refers to: commits, agents, channels, posts and runs of this hub, made links.

`3f2a9c1d` is a commit if exactly one starts so, `@ada` an agent, `#general` a channel, `#12` a
post, `run 12` a run. What is not there stays text.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from markupsafe import Markup, escape
from sqlalchemy import Column, bindparam, select

from server import tables
from server.db import Connection
from server.pages.text import clean
from server.prepared import Prepared, PreparedIn

_REF = re.compile(
    r"(?<![\w/@#.-])(?:"
    r"(?P<hash>[0-9a-f]{7,40})(?![0-9A-Za-z_])"
    r"|@(?P<agent>[A-Za-z0-9][A-Za-z0-9._-]{0,62})"
    r"|#(?P<channel>[a-z0-9][a-z0-9_-]{0,30})(?![A-Za-z0-9_])"
    r"|(?P<run>[Rr]un [1-9][0-9]{0,17})(?![0-9A-Za-z_]|\.[0-9])"
    r"|(?P<url>https?://[^\s<>\"'`\\^{}|]{1,2000})"
    r")"
)
#: References of one kind on one page that are looked up; the rest stay text.
LOOKED_UP_MAX = 300
_NUMBER_MAX = 2**63
T = TypeVar("T", str, int)


@dataclass(frozen=True, slots=True)
class Refs:
    """What is there of all that the texts of one page name."""

    #: Hash or start of one, to the whole hash.
    commits: dict[str, str] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    posts: frozenset[int] = frozenset()
    runs: frozenset[int] = frozenset()
    #: Of all that, to tell one from another in less memory.
    digest: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        names = (self.agents, self.channels, self.posts, self.runs)
        text = repr((sorted(self.commits.items()), *(sorted(some) for some in names)))
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        object.__setattr__(self, "digest", digest)

    def link(self, text: str) -> Markup:
        """Escape a text and link what it refers to."""
        text = clean(text)
        parts, end = [], 0
        for found in _REF.finditer(text):
            kind = found.lastgroup or ""
            link = _LINKS[kind](self, found[kind])
            if link is not None:
                target, shown, css = link
                parts += [escape(text[end : found.start()]), _a(target, shown, css)]
                end = found.start() + len(shown)
        return Markup("").join([*parts, escape(text[end:])])


_COMMIT = Prepared(
    select(tables.commits.c.hash)
    .where(tables.commits.c.hash >= bindparam("start"), tables.commits.c.hash < bindparam("end"))
    .limit(2)
)


def _known(column: Column[Any]) -> PreparedIn:
    return PreparedIn(lambda values: select(column).where(column.in_(values)))


_AGENTS, _CHANNELS = _known(tables.agents.c.id), _known(tables.channels.c.name)
_POSTS, _RUNS = _known(tables.posts.c.id), _known(tables.runs.c.id)


def find_refs(conn: Connection, texts: Iterable[str]) -> Refs:
    """Look up all that these texts refer to."""
    named: dict[str, set[str]] = {kind: set() for kind in _LINKS}
    for text in texts:
        for found in _REF.finditer(clean(text)):
            if found.lastgroup is not None:
                named[found.lastgroup].add(found[found.lastgroup])
    names = {_trim(name) for name in named["agent"]} | named["agent"]
    numbers = {int(n) for n in named["channel"] if n.isdigit() and int(n) < _NUMBER_MAX}
    runs = {int(run[4:]) for run in named["run"]}

    def known(which: PreparedIn, values: Collection[T]) -> frozenset[T]:
        return frozenset(row[0] for row in which.all(conn, _some(values)))

    return Refs(
        find_commits(conn, named["hash"]),
        known(_AGENTS, names),
        known(_CHANNELS, named["channel"]),
        known(_POSTS, numbers),
        known(_RUNS, runs),
    )


def find_commits(conn: Connection, prefixes: Collection[str]) -> dict[str, str]:
    """Those of the starts of hashes that mean exactly one commit."""
    # "g" sorts behind every hexadecimal digit.
    found = {p: _COMMIT.all(conn, start=p, end=p + "g") for p in _some(prefixes)}
    return {prefix: rows[0][0] for prefix, rows in found.items() if len(rows) == 1}


def _some(values: Collection[T]) -> list[T]:
    return sorted(values)[:LOOKED_UP_MAX]


# Links ------------------------------------------------------------------------------------------

#: Target, the text that is the link, and its class.
_Link = tuple[str, str, str]


def _a(target: str, shown: str, css: str) -> Markup:
    rel = ' rel="nofollow noopener noreferrer"' if css == "outside" else ""
    return Markup(f'<a class="{css}" href="{escape(target)}"{rel}>{escape(shown)}</a>')  # noqa: S704


def _link_commit(refs: Refs, name: str) -> _Link | None:
    hash = refs.commits.get(name)
    return None if hash is None else (f"/commits/{hash}", name, "hash")


def _link_agent(refs: Refs, name: str) -> _Link | None:
    # A sentence may end behind a name.
    known = next((one for one in (name, _trim(name)) if one in refs.agents), None)
    return None if known is None else (f"/agents/{known}", f"@{known}", "agent")


def _link_channel(refs: Refs, name: str) -> _Link | None:
    if name in refs.channels:
        return f"/channels/{name}", f"#{name}", "channel"
    is_post = name.isdigit() and int(name) in refs.posts
    return (f"/posts/{int(name)}", f"#{name}", "post-ref") if is_post else None


def _link_run(refs: Refs, name: str) -> _Link | None:
    return (f"/runs/{int(name[4:])}", name, "run") if int(name[4:]) in refs.runs else None


def _link_url(_: Refs, url: str) -> _Link:
    url = url.rstrip(".,;:!?)]*_~")
    return url, url, "outside"


def _trim(name: str) -> str:
    return name.rstrip("._-")


_LINKS: dict[str, Callable[[Refs, str], _Link | None]] = {
    "hash": _link_commit,
    "agent": _link_agent,
    "channel": _link_channel,
    "run": _link_run,
    "url": _link_url,
}
