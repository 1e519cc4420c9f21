"""Session: one worker process from its first word to the hub to its last."""

import platform
from contextlib import suppress

from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire
from worker.drain import Drain, Drained
from worker.exits import Exit
from worker.loop import Loop
from worker.member import obey_supervisor
from worker.offer import make_offer
from worker.patience import Patience, is_passing
from worker.settings import NO_SANDBOX_RISK, Refused, Settings
from worker.view import open_view
from worker.workspace import Cache


def work(settings: Settings) -> int:
    """Check what is needed, then work; return the exit code of the process."""
    view = open_view(settings.log, settings.device)
    drain = Drain()
    drain.install()
    obey_supervisor()
    patience = Patience(drain, view.note)
    if settings.sandbox == "none":
        view.note(f"warning: {NO_SANDBOX_RISK}")
    with HubClient(settings.hub, settings.key) as hub:
        me = find_me(hub, patience)
        if me is None:
            return 0
        try:
            with drain.at_once():
                offer = make_offer(settings, view.note)
        except Drained:
            return 0
        cache = Cache(settings.cache, settings.cache_bytes)
        try:
            facts = offer.claim.model_dump() | {"model": offer.device.model}
            facts["device"] = offer.device.name
            view.ready(f"{me} on {hub.url}, {offer}", worker=me, hub=hub.url, **facts)
            loop = Loop(hub, offer, cache, view, drain, patience)
            loop.give_back_left()
            _report_halt(hub, settings, None)
            code = loop.work(settings.max_runs, settings.idle_exit_seconds)
            if code == Exit.QUARANTINED:
                _report_halt(hub, settings, loop.last_fault)
            return code
        finally:
            cache.close()


def _report_halt(hub: HubClient, settings: Settings, reason: str | None) -> None:
    """Let people see at the hub that this process stopped itself, or that it works again."""
    place = f"{platform.node()[:63]} {settings.device}".strip()
    # An older hub has no such call, and then the log must do.
    with suppress(HubUnreachable, ApiError):
        hub.report_halt(wire.HaltReport(place=place, reason=reason))


def find_me(hub: HubClient, patience: Patience) -> str | None:
    """This worker's name, once the hub answers; None when drained before. Raises Refused."""
    try:
        me = patience.call(hub.whoami)
    except HubUnreachable:
        return None
    except ApiError as error:
        if is_passing(error):
            return None
        raise Refused(f"{hub.url} does not answer like a hub: {error}") from error
    if me.role is not wire.Role.WORKER:
        raise Refused(
            f"{me.id} is no worker but an {me.role}: make one by "
            f"`ah join {hub.url} --name NAME --role worker`"
        )
    return me.id
