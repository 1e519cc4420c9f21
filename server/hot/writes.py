"""Hot calls that write: posts and heartbeats, many of them in one commit."""

from server import posting, runs, wire
from server.hot.calls import Call, NotHot, Reply, Table


def add_to(routes: Table) -> None:
    routes.post("/api/channels/{name}/posts")(create_post)
    routes.post("/api/runs/{id}/heartbeat")(heartbeat)


async def create_post(call: Call) -> Reply:
    hub, channel = call.hub, call.path["name"]
    if posting.may_take_long(call.agent, channel):
        raise NotHot
    asked, limit = call.parse(wire.PostCreate), hub.settings.max_posts_per_hour
    post = await hub.group.write(
        lambda conn: posting.create_post(conn, call.agent, channel, asked, limit, hub.now())
    )
    hub.bell.ring()
    return Reply(post, 201)


async def heartbeat(call: Call) -> Reply:
    hub, worker, id = call.hub, call.agent, call.path["id"]
    # What is wrong with any other is said by FastAPI.
    if worker.role is not wire.Role.WORKER or not (id.isascii() and id.isdigit() and len(id) < 19):
        raise NotHot
    beat = call.parse(wire.Heartbeat)
    lease = await hub.group.write(
        lambda conn: runs.heartbeat(conn, worker, int(id), beat, hub.terms, hub.now())
    )
    return Reply(lease)
