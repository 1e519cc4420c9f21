"""Doctor: looks at all that a worker needs, and says of each part what to do about it."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ah_cli import git
from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire
from worker.device import Device, ask_driver, find_device
from worker.mirror import measure
from worker.offer import find_python, open_own_sandbox
from worker.settings import DEFAULT_BUDGET_SECONDS, Refused, Settings
from worker.template import Data, load_template
from worker.trainer import Fault, capture

#: Beyond it logs of hub and worker are hard to compare, and TLS may fail.
SKEW_SECONDS = 30
LOW_BYTES, LITTLE_BYTES = 10**9, 10 * 10**9
TORCH_SECONDS = 120

#: What the interpreter's torch says of itself.
_TORCH = """
import json, torch
told = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
told["gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps(told))
"""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    level: Level
    said: str
    #: What to do about it.
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.name:<8} {self.said}" + (f": {self.todo}" * bool(self.todo))


def examine(settings: Settings, devices: Sequence[str], now: Callable[[], datetime]) -> list[Check]:
    """All checks, none of which stops at what another one found."""
    found: list[Device] = []
    checks = [_check_device(name, found) for name in devices]
    device = found[0] if found else None
    checks += _check_python(settings, device)
    if device is not None:
        checks.append(_check_sandbox(settings, device))
    fingerprint, told = _check_data(settings, device)
    checks += [told, *_check_disk(settings), _check_git()]
    with HubClient(settings.hub, settings.key) as hub:
        checks += _check_hub(hub, now)
        if device is not None and fingerprint:
            checks += _check_track(hub, settings, device, fingerprint)
    return checks


def to_json(checks: Sequence[Check]) -> str:
    return json.dumps([asdict(check) for check in checks], indent=2)


def _check_device(name: str, found: list[Device]) -> Check:
    try:
        device = find_device(name)
    except Refused as error:
        todo = "install the driver, or choose another with --gpus"
        return Check("device", Level.FAIL, str(error), todo)
    found.append(device)
    if device.profile == "cpu":
        level = Level.WARN if name == "auto" else Level.OK
        todo = "fine for small runs; else install the driver" if name == "auto" else ""
        return Check("device", level, f"no GPU, {device.model}" if todo else device.model, todo)
    driver = ask_driver(device.visible)
    memory = f", {device.vram_mb} MiB" if device.vram_mb else ""
    said = f"{name} is {device.platform} ({device.model}{memory}), driver {driver or 'unknown'}"
    return Check("device", Level.OK, said)


def _check_python(settings: Settings, device: Device | None) -> Iterator[Check]:
    try:
        python = find_python(settings.python)
        Data(load_template(settings.template), python, "cpu", settings.data).check_packages()
    except Refused as error:
        yield Check("python", Level.FAIL, str(error), "pip install 'agenthub[train]' there")
        return
    yield Check("python", Level.OK, python)
    yield _check_torch(python, device)


def _check_torch(python: str, device: Device | None) -> Check:
    try:
        status, output, complaint = capture([python, "-c", _TORCH], seconds=TORCH_SECONDS)
        told: dict[str, Any] = json.loads(output) if not status else {}
    except (OSError, ValueError) as error:
        told, complaint = {}, str(error)
    if not told:
        last = (complaint.strip().splitlines() or ["it says nothing"])[-1]
        todo = "install torch in this interpreter, or name another with --python"
        return Check("torch", Level.FAIL, last, todo)
    built = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['hip']}" * bool(told["hip"])
    said = f"{told['version']}, built for {built or 'CPUs'}"
    if device is not None and device.profile == "gpu" and not told["gpus"]:
        todo = "update the driver, or install a torch that is built for this one"
        return Check("torch", Level.FAIL, f"{said}, sees no GPU", todo)
    return Check("torch", Level.OK, said)


def _check_sandbox(settings: Settings, device: Device) -> Check:
    try:
        sandbox = open_own_sandbox(settings, _find_data(settings, device), device)
    except (Refused, Fault, OSError) as error:
        return Check("sandbox", Level.FAIL, str(error))
    if sandbox.kind == "none":
        return Check(
            "sandbox", Level.WARN, "none", "strangers' code would run as you; see --sandbox"
        )
    return Check("sandbox", Level.OK, f"{sandbox.kind}, tried out")


def _check_data(settings: Settings, device: Device | None) -> tuple[str, Check]:
    try:
        data = _find_data(settings, device)
        fingerprint = data.find_fingerprint()
    except (Fault, Refused, OSError) as error:
        return "", Check("data", Level.WARN, str(error), "`ah-worker run` prepares it first")
    name = data.find_name() or "data"
    return fingerprint, Check("data", Level.OK, f"{name} for {data.profile}, {fingerprint[:8]}")


def _find_data(settings: Settings, device: Device | None) -> Data:
    profile = settings.profile
    if profile == "auto":
        profile = device.profile if device is not None else "cpu"
    python = find_python(settings.python)
    return Data(load_template(settings.template), python, profile, settings.data)


def _check_disk(settings: Settings) -> Iterator[Check]:
    try:
        settings.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = settings.cache / "doctor"
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield Check("cache", Level.FAIL, str(error), "name a folder of yours with --cache")
        return
    free = shutil.disk_usage(settings.cache).free
    level = Level.FAIL if free < LOW_BYTES else Level.WARN if free < LITTLE_BYTES else Level.OK
    todo = "" if level is Level.OK else "make room, or lower --cache-gb"
    yield Check("disk", level, f"{free / 1e9:.1f} GB free at {settings.cache}", todo)
    size = measure(settings.cache / "mirror.git")
    limit = settings.cache_bytes / 1e9
    yield Check("cache", Level.OK, f"commits take {size / 1e9:.2f} of {limit:g} GB")


def _check_git() -> Check:
    try:
        return Check("git", Level.OK, git.git("version").strip())
    except git.GitError as error:
        return Check("git", Level.FAIL, str(error), "install git")


def _check_hub(hub: HubClient, now: Callable[[], datetime]) -> Iterator[Check]:
    try:
        theirs = hub.clock()
        me = hub.whoami()
    except HubUnreachable as error:
        yield Check("hub", Level.FAIL, str(error), "check --hub, and that it runs")
        return
    except ApiError as error:
        todo = "make a key with `ah join --role worker`"
        yield Check("hub", Level.FAIL, f"{hub.url} refuses the key: {error}", todo)
        return
    if me.role is not wire.Role.WORKER:
        todo = f"ah join {hub.url} --name NAME --role worker"
        yield Check("hub", Level.FAIL, f"{me.id} is no worker but an {me.role}", todo)
    else:
        yield Check("hub", Level.OK, f"{me.id} on {hub.url}")
    if theirs is not None:
        yield _check_clock((now() - theirs).total_seconds())


def _check_clock(ahead: float) -> Check:
    if abs(ahead) < SKEW_SECONDS:
        return Check("clock", Level.OK, "as the hub's, to some seconds")
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's"
    return Check("clock", Level.WARN, said, "let NTP set it; leases go by the hub's clock alone")


def _check_track(
    hub: HubClient, settings: Settings, device: Device, fingerprint: str
) -> Iterator[Check]:
    """Whether scores of this machine would stand beside others."""
    platform = device.platform if settings.platform == "auto" else settings.platform
    profile = device.profile if settings.profile == "auto" else settings.profile
    budget = settings.budget_seconds or DEFAULT_BUDGET_SECONDS[profile]
    try:
        tracks = hub.tracks()
    except (HubUnreachable, ApiError):
        return  # Told already.
    like = [one for one in tracks if (one.platform, one.budget_seconds) == (platform, budget)]
    like = [one for one in like if one.results and one.scoring == settings.scoring]
    name = f"{platform}/{budget}s/{fingerprint[:8]}"
    if any(one.data_fingerprint == fingerprint for one in like):
        yield Check("track", Level.OK, f"{name}, which the hub has")
    elif like:
        others = ", ".join(sorted({one.name for one in like}))
        todo = "scores on other data are never compared; prepare the same data, or go on alone"
        yield Check("track", Level.WARN, f"{name} is new to the hub, which has {others}", todo)
    else:
        yield Check("track", Level.OK, f"{name}, the first of its kind here")


def utc_now() -> datetime:
    return datetime.now(UTC)
