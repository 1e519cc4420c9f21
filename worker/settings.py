"""Settings: what the command line and the environment asked for. Read once, then frozen."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: The template that is installed beside this package, whatever the current folder holds.
OWN_TEMPLATE = Path(__file__).resolve().parents[1] / "train_template"

DEFAULT_BUDGET_SECONDS = {"gpu": 300, "cpu": 60}

NO_SANDBOX_RISK = "--sandbox none runs strangers' train.py as you, with your files and your network"
#: From the weakest to what a hub expects; see docs/scoring.md.
SCORINGS = ("inline", "fresh", "isolated", "isolated+audit")
#: `auto` is the first of the others that works; `none` is never chosen, only named.
SANDBOXES = ("auto", "bubblewrap", "podman", "docker", "landlock", "none")


class Refused(Exception):
    """The worker cannot work like this, and a restart would not help; the message says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    hub: str
    key: str = field(repr=False)
    device: str
    profile: str
    platform: str
    #: None means the default of the profile.
    budget_seconds: int | None
    #: For start-up, compilation and evaluation; None means as much as the budget and 5 minutes.
    grace_seconds: float | None
    data: Path
    cache: Path
    #: How large the mirror of commits may get.
    cache_bytes: int
    template: Path
    python: str
    max_runs: int | None
    idle_exit_seconds: float | None
    sandbox: str
    scoring: str
    #: None means most of the machine's.
    memory_bytes: int | None
    prepare: bool
    log: str

    def __post_init__(self) -> None:
        kinds = f"{', '.join(SANDBOXES[:-1])} or {SANDBOXES[-1]}"
        _check("--sandbox", self.sandbox, "|".join(SANDBOXES), kinds)
        levels = f"{', '.join(SCORINGS[:-1])} or {SCORINGS[-1]}"
        _check("--scoring", self.scoring, "|".join(map(re.escape, SCORINGS)), levels)
        if self.scoring.startswith("isolated") and sys.platform != "linux":
            raise Refused(f"--scoring {self.scoring} needs Linux; say --scoring fresh or inline")
        _check("--device", self.device, r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda:N or mps")
        _check("--profile", self.profile, r"auto|cpu|gpu", "auto, cpu or gpu")
        _check("--log", self.log, r"text|json|feed", "text or json")
        for name in ("train.py", "prepare.py"):
            if not (self.template / name).is_file():
                raise Refused(f"no {name} in the template {self.template}; see --template")


def parse_duration(text: str) -> float:
    """Seconds of `45`, `30s`, `10m` or `2h`; raise Refused otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise Refused(f"{text!r} is no duration; write 30s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def parse_size(text: str) -> int:
    """Bytes of `512m` or `16g`; raise Refused otherwise."""
    match = re.fullmatch(r"(\d+)([mg])", text.strip().lower())
    if not match or not int(match[1]):
        raise Refused(f"{text!r} is no size; write 512m or 16g")
    return int(match[1]) << {"m": 20, "g": 30}[match[2]]


def _check(option: str, value: str, pattern: str, choices: str) -> None:
    if not re.fullmatch(pattern, value):
        raise Refused(f"{option} must be {choices}, not {value!r}")
