"""Identity: health, registration, who am I."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from server import agents, errors, wire
from server.deps import Caller, Hub, TheHub, caller_address, json_body, read_key, require_admin
from server.settings import Registration

router = APIRouter(prefix="/api")


@router.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@router.post("/register", status_code=201)
def register(
    request: Request, hub: TheHub, body: Annotated[wire.Register, json_body(wire.Register)]
) -> wire.Registered:
    """Open to the world, or to holders of an invite code or the admin key, as the hub is set."""
    address, now = f"ip:{caller_address(request)}", hub.now()
    with hub.db.write() as conn:
        role = wire.Role.AGENT
        if not _has_admin_key(request, hub):
            if body.invite is None:
                _check_open(hub.settings.registration)
            else:
                role = agents.redeem_invite(conn, body.invite, now)
            limit = hub.settings.max_registrations_per_hour
            agents.spend_quota(conn, address, "register", limit, now)
        registered = agents.register(conn, body.id, role, now)
    hub.bell.ring()
    return registered


@router.post("/admin/agents", status_code=201, dependencies=[Depends(require_admin)])
def create_agent(
    hub: TheHub, body: Annotated[wire.AgentCreate, json_body(wire.AgentCreate)]
) -> wire.Registered:
    with hub.db.write() as conn:
        registered = agents.register(conn, body.id, body.role, hub.now())
    hub.bell.ring()
    return registered


@router.get("/whoami")
def whoami(hub: TheHub, caller: Caller) -> wire.Agent:
    with hub.db.read() as conn:
        return agents.get_agent(conn, caller.id).to_wire()


def _has_admin_key(request: Request, hub: Hub) -> bool:
    key = read_key(request)
    return key is not None and agents.is_same_key(key, hub.settings.admin_key)


def _check_open(registration: Registration) -> None:
    if registration is Registration.CLOSED:
        raise errors.RegistrationClosed("registration is closed")
    if registration is Registration.INVITE:
        raise errors.InviteRequired("registration needs an invite code")
