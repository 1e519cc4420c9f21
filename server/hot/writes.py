"""Hot calls that write: posts and all that workers send, many of them in one commit."""

from server import agents, posting, runs, wire
from server.db import Connection
from server.hot.calls import Call, NotHot, Reply, Table


def add_to(routes: Table) -> None:
    routes.post("/api/channels/{name}/posts")(create_post)
    routes.post("/api/runs")(claim)
    routes.post("/api/runs/{id}/heartbeat")(heartbeat)
    routes.put("/api/runs/{id}/result")(finish)


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


async def claim(call: Call) -> Reply:
    hub, worker = call.hub, _get_worker(call)
    asked = call.parse(wire.Claim)

    def work(conn: Connection) -> wire.Run | None:
        now = hub.now()
        if not runs.has_work(conn, asked, now):
            raise NotHot
        return runs.claim(conn, worker, asked, hub.terms, now)

    run = await hub.group.write(work, runs.CLAIM_COST)
    hub.bell.ring()
    if run is None:
        raise NotHot  # FastAPI's route says so, or waits.
    return Reply(run, 201)


async def heartbeat(call: Call) -> Reply:
    hub, worker, id = call.hub, _get_worker(call), call.run_id
    beat = call.parse(wire.Heartbeat)
    lease = await hub.group.write(
        lambda conn: runs.heartbeat(conn, worker, id, beat, hub.terms, hub.now())
    )
    return Reply(lease)


async def finish(call: Call) -> Reply:
    hub, worker, id = call.hub, _get_worker(call), call.run_id
    report = call.parse(wire.ResultCreate)
    finished = await hub.group.write(
        lambda conn: runs.finish(conn, worker.id, id, report, hub.now()), runs.FINISH_COST
    )
    hub.bell.ring()
    finished.check()
    return Reply(finished.result, 201 if finished.is_new else 200)


def _get_worker(call: Call) -> agents.Agent:
    """Who calls; what is wrong with any other is said by FastAPI."""
    if call.agent.role is not wire.Role.WORKER:
        raise NotHot
    return call.agent
