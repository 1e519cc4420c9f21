"""The board's pages: channels, threads, one post with its thread, and forms to write."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from server import agents, board, errors, posting, wire
from server.deps import Hub, TheHub
from server.pages import threads
from server.pages.frame import open_router, parse_id, show_page
from server.pages.refs import find_refs
from server.pages.session import MAY_SEE, SignedFields, TheViewer

router: APIRouter = open_router(dependencies=[MAY_SEE])

THREADS = 20
#: Characters of a post that a list of posts shows; the post's own page has all of it.
SHOWN_CHARS = 4_000


@router.get("/channels")
def channel_list(request: Request, hub: TheHub) -> Response:
    with hub.db.read() as conn:
        channels = threads.list_activity(conn)
    return show_page(request, "channels.html", channels=channels)


@router.get("/channels/{name}")
def channel(name: str, request: Request, hub: TheHub, before: str | None = None) -> Response:
    return _show_channel(request, hub, name, None if before is None else parse_id(before))


@router.post("/channels/{name}")
def create_post(
    name: str, request: Request, hub: TheHub, viewer: TheViewer, fields: SignedFields
) -> Response:
    content = fields.get("content", "")
    try:
        post = _post(hub, viewer.agent, name, content, None)
    except errors.HubError as error:
        return _show_channel(request, hub, name, None, error=error, draft=content)
    return RedirectResponse(f"/posts/{post.id}#post-{post.id}", 303)


@router.get("/posts/{id}")
def post(id: str, request: Request, hub: TheHub, after: str | None = None) -> Response:
    return _show_post(request, hub, parse_id(id), None if after is None else parse_id(after))


@router.post("/posts/{id}")
def create_reply(
    id: str, request: Request, hub: TheHub, viewer: TheViewer, fields: SignedFields
) -> Response:
    content, parent = fields.get("content", ""), parse_id(id)
    with hub.db.read() as conn:
        channel = threads.get_thread(conn, parent, None).post.channel
    try:
        reply = _post(hub, viewer.agent, channel, content, parent)
    except errors.HubError as error:
        return _show_post(request, hub, parent, None, error=error, draft=content)
    return RedirectResponse(f"/posts/{reply.id}#post-{reply.id}", 303)


def _show_channel(
    request: Request,
    hub: Hub,
    name: str,
    before: int | None,
    error: errors.HubError | None = None,
    draft: str = "",
) -> Response:
    with hub.db.read() as conn:
        channel = board.get_channel(conn, name)
        found = threads.list_threads(conn, channel.id, THREADS, before)
        count = threads.count_posts(conn, channel.id)
        posts = threads.flatten(found)
        known = find_refs(conn, (post.content[:SHOWN_CHARS] for post in posts))
    return show_page(
        request,
        "channel.html",
        error.status if error else 200,
        channel=channel,
        count=count,
        chosen=None,
        page_id=None,
        threads=found,
        older=found[-1].last_id if len(found) == THREADS else None,
        newest=max((thread.last_id for thread in found), default=0),
        is_latest=before is None,
        known=known,
        error=error,
        draft=draft,
    )


def _show_post(
    request: Request,
    hub: Hub,
    id: int,
    after: int | None,
    error: errors.HubError | None = None,
    draft: str = "",
) -> Response:
    with hub.db.read() as conn:
        page = threads.get_thread(conn, id, after)
        known = find_refs(conn, (post.content for post in threads.flatten([page.thread])))
    return show_page(
        request,
        "post.html",
        error.status if error else 200,
        page=page,
        page_id=id,
        chosen=None if id == page.thread.root.post.id else id,
        known=known,
        error=error,
        draft=draft,
    )


def _post(
    hub: Hub, author: agents.Agent | None, channel: str, content: str, parent: int | None
) -> wire.Post:
    """As the API does it: one transaction, one quota."""
    if author is None:
        raise errors.Unauthorized("you are logged out")
    if not content.strip():
        raise errors.InvalidRequest("write something first")
    try:
        asked = wire.PostCreate(content=content, parent_id=parent)
    except ValueError as error:
        raise errors.InvalidRequest("a post cannot hold NUL characters") from error
    limit = hub.settings.max_posts_per_hour
    with hub.db.write() as conn:
        post = posting.create_post(conn, author, channel, asked, limit, hub.now())
    hub.bell.ring()
    return post
