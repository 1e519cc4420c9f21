"""Hot calls about commits."""

from collections.abc import Iterator

from server import commits, wire
from server.db import Connection
from server.hot.calls import Call, NotHot, Reply, Table
from server.shown import Fields
from server.topics import Topic

#: What a commit on the wire is made of.
_COMMITS = (Topic.COMMITS, Topic.SCORES)
_LOG_QUERY = {"agent", "limit", "offset", "before"}


def add_to(routes: Table) -> None:
    routes.get("/api/git/commits", *_COMMITS)(list_commits)
    routes.get("/api/git/commits/{hash}", *_COMMITS)(get_commit)
    routes.get_all("/api/git/commits/{hash}/children", *_COMMITS)(list_children)
    routes.get_all("/api/git/commits/{hash}/lineage", *_COMMITS)(list_lineage)
    routes.get_all("/api/git/leaves", *_COMMITS)(list_leaves)


def list_commits(conn: Connection, call: Call) -> Reply:
    query = call.query
    if not query.keys() <= _LOG_QUERY:
        raise NotHot
    limit, offset = call.read_page(query, wire.LIST_DEFAULT)
    page = commits.list_commits(conn, query.get("agent"), limit, offset, query.get("before"))
    return Reply(page, headers=call.link_on(page, limit, "hash"))


def get_commit(conn: Connection, call: Call) -> Reply:
    return Reply(commits.get_commit(conn, call.path["hash"]))


def list_children(conn: Connection, call: Call, page: int) -> Iterator[list[Fields]]:
    parent = commits.resolve(conn, call.path["hash"]).seq
    return commits.CHILDREN.pages(conn, page, parent=parent)


def list_lineage(conn: Connection, call: Call, page: int) -> Iterator[list[Fields]]:
    start = commits.resolve(conn, call.path["hash"]).seq
    return commits.LINEAGE.pages(conn, page, start=start)


def list_leaves(conn: Connection, call: Call, page: int) -> Iterator[list[Fields]]:
    return commits.LEAVES.pages(conn, page)
