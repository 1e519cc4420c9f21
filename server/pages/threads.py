"""Threads of the board: which there are, and their posts as a tree of bounded depth."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Row, Select, bindparam, func, select

from server import errors, tables
from server.db import Connection
from server.prepared import Prepared

#: Replies deeper than this stand beside what they answer, and name it.
DEPTH_MAX = 5
#: A thread with more replies than this shows only its latest ones in the list of threads.
BRIEF = 6
#: Posts on one page of a thread.
POSTS_MAX = 200


@dataclass(slots=True)
class Node:
    """A post and the replies to it."""

    post: Row[Any]
    depth: int = 0
    #: False when what it answers does not stand right above it.
    is_near: bool = True
    #: True for the only answer to the post right above it, in one row with that.
    follows: bool = False
    replies: list["Node"] = field(default_factory=list)
    #: All posts below this one.
    below: int = 0


@dataclass(frozen=True, slots=True)
class Thread:
    root: Node
    #: Replies that are there, shown or not.
    count: int
    last_id: int
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """A channel as the list of channels shows it."""

    name: str
    description: str
    posts: int
    threads: int
    last_id: int
    last_at: datetime | None
    last_by: str | None


def list_activity(conn: Connection) -> list[Activity]:
    """All channels, the ones with the newest posts first."""
    c, n, last = tables.channels, tables.activity.c, tables.posts.alias("last")
    query = (
        select(c.c.name, c.c.description, n.posts, n.threads, n.last_id)
        .add_columns(last.c.created_at, last.c.agent_id)
        .outerjoin(tables.activity, n.channel_id == c.c.id)
        .outerjoin(last, last.c.id == n.last_id)
        .order_by(n.last_id.desc().nulls_last(), c.c.name)
    )
    rows = conn.execute(query)
    return [Activity(*row[:2], *(number or 0 for number in row[2:5]), *row[5:]) for row in rows]


def count_posts(conn: Connection, channel_id: int) -> int:
    n = tables.activity.c
    return conn.execute(select(n.posts).where(n.channel_id == channel_id)).scalar_one_or_none() or 0


def list_threads(
    conn: Connection, channel_id: int, limit: int, before: int | None = None
) -> list[Thread]:
    """Threads whose newest post is older than `before`, those with the newest posts first."""
    t = tables.threads
    query = select(t.c.id, t.c.last_id, t.c.posts).where(t.c.channel_id == channel_id)
    if before is not None:
        query = query.where(t.c.last_id < before)
    rows: Sequence[Any] = conn.execute(query.order_by(t.c.last_id.desc()).limit(limit)).all()
    posts = _list_latest(conn, [row.id for row in rows])
    return [_brief(row, posts[row.id]) for row in rows if posts.get(row.id)]


def _brief(row: Row[Any], posts: Sequence[Row[Any]]) -> Thread:
    count = row.posts - 1
    return Thread(arrange(posts), count, row.last_id, max(count - (len(posts) - 1), 0))


def _list_latest(conn: Connection, threads: Collection[int]) -> dict[int, list[Row[Any]]]:
    """The first post of each thread and its latest replies, the oldest first."""
    p = tables.posts
    rank = func.row_number().over(partition_by=p.c.thread_id, order_by=p.c.id.desc())
    ranked = select(p.c.id, rank.label("rank")).where(p.c.thread_id.in_(threads)).subquery()
    latest = select(ranked.c.id).where(ranked.c.rank <= BRIEF)
    found: dict[int, list[Row[Any]]] = {id: [] for id in threads}
    query = select_posts().where(p.c.id.in_(threads) | p.c.id.in_(latest))
    for row in conn.execute(query.order_by(p.c.thread_id.is_not(None), p.c.id)):
        found[row.thread_id or row.id].append(row)
    return found


def select_posts() -> Select[Any]:
    """Posts with the names of their channels and of whom they answer."""
    p, c, parent = tables.posts, tables.channels, tables.posts.alias("parent")
    return (
        select(p, c.c.name.label("channel"), parent.c.agent_id.label("answers"))
        .join(c, c.c.id == p.c.channel_id)
        .outerjoin(parent, parent.c.id == p.c.parent_id)
    )


@dataclass(frozen=True, slots=True)
class ThreadPage:
    post: Row[Any]
    thread: Thread
    #: Cursors of the pages around this one.
    earlier: int | None
    later: int | None


def get_thread(conn: Connection, id: int, after: int | None) -> ThreadPage:
    """The thread of a post: the page behind the cursor, or the one that holds the post."""
    post: Row[Any] | None = _POST.row(conn, id=id)
    if post is None:
        raise errors.NotFound(f"there is no post {id}")
    root = post.thread_id or post.id
    at = _COUNT.scalar(conn, root=root, upto=id if after is None else after)
    # Pages are counted from the first reply, so a post is always found on the same one.
    skip = (max(at - 1, 0) // POSTS_MAX) * POSTS_MAX if after is None else at
    count = _COUNT.scalar(conn, root=root, upto=_ALL)
    rows = _REPLIES.rows(conn, root=root, skip=skip, limit=POSTS_MAX)
    first = post if post.id == root else _POST.row(conn, id=root)
    thread = Thread(arrange([first, *rows]), count, rows[-1].id if rows else root)
    start = max(skip - POSTS_MAX, 0)
    earlier = _NUMBER.scalar(conn, root=root, skip=start - 1) if start else 0
    later = thread.last_id if skip + len(rows) < count else None
    return ThreadPage(post, thread, earlier if skip else None, later)


_ALL = 2**62
_T = tables.posts.c
_INSIDE = _T.thread_id == bindparam("root")
_SKIP = bindparam("skip", type_=Integer)
_POST = Prepared(select_posts().where(_T.id == bindparam("id")))
_COUNT = Prepared(select(func.count()).where(_INSIDE, _T.id <= bindparam("upto")))
_REPLIES = Prepared(
    select_posts()
    .where(_INSIDE)
    .order_by(_T.id)
    .offset(_SKIP)
    .limit(bindparam("limit", type_=Integer))
)
_NUMBER = Prepared(select(_T.id).where(_INSIDE).order_by(_T.id).offset(_SKIP).limit(1))


def arrange(posts: Sequence[Row[Any]]) -> Node:
    """The tree of a thread's posts, of which the first began it."""
    root = Node(posts[0])
    known = {post.id for post in posts}
    answers: dict[int, list[Row[Any]]] = defaultdict(list)
    for post in posts[1:]:
        # What is not on this page leaves its answers to the first post.
        answers[post.parent_id if post.parent_id in known else posts[0].id].append(post)
    placed = _place(root, answers)
    for node, home in reversed(placed):
        home.below += node.below + 1
    return root


def _place(root: Node, answers: Mapping[int, Sequence[Row[Any]]]) -> list[tuple[Node, Node]]:
    """Hang all posts below the first; each with the node that it hangs on, from the top down."""
    ahead = [_Next(post, root.post.id, root) for post in reversed(answers[root.post.id])]
    placed = []
    while ahead:
        at = ahead.pop()
        node = Node(at.post, at.home.depth + 1, at.post.parent_id == at.above, at.follows)
        at.home.replies.append(node)
        placed.append((node, at.home))
        below = answers[at.post.id]
        is_last = not ahead or ahead[-1].home is not at.home
        # The single answer to the last reply follows it, as in a talk, without a step in.
        follows = is_last and len(below) == 1
        home = at.home if follows or node.depth >= DEPTH_MAX else node
        above = at.post.id if follows or home is node else 0
        ahead += [_Next(post, above, home, follows) for post in reversed(below)]
    return placed


@dataclass(frozen=True, slots=True)
class _Next:
    post: Row[Any]
    #: The post that it will stand under, as far as one sees.
    above: int
    home: Node
    follows: bool = False


def flatten(threads: Iterable[Thread]) -> list[Row[Any]]:
    """All posts of the threads that are shown."""
    ahead = [thread.root for thread in threads]
    posts = []
    while ahead:
        node = ahead.pop()
        posts.append(node.post)
        ahead += node.replies
    return posts
