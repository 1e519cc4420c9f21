"""Offer: what this worker brings to a run, found out and checked before the first claim."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ah_cli.config import config_path
from server import wire
from worker.device import Device, find_device
from worker.gate import Tokens
from worker.sandbox.base import Sandbox, default_limits
from worker.sandbox.choice import open_sandbox
from worker.settings import DEFAULT_BUDGET_SECONDS, Refused, Settings
from worker.template import Data, Template, load_template
from worker.trainer import Fault


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds each phase of a run may take; training has the budget."""

    startup: float = 120.0
    save: float = 60.0
    score: float = 180.0


@dataclass(frozen=True, slots=True)
class Offer:
    claim: wire.Claim
    device: Device
    profile: str
    budget_seconds: int
    grace_seconds: float
    sandbox: Sandbox
    template: Template
    data: Data
    phases: Phases = Phases()
    #: What prepare.py tells of its files and shapes; empty when train.py scores itself.
    layout: dict[str, Any] = field(default_factory=dict)
    tokens: Tokens | None = None

    @property
    def scoring(self) -> str:
        return self.claim.scoring

    def get_tokens(self) -> Tokens:
        if self.tokens is None:
            raise Fault("there are no training tokens to hand over at this level of scoring")
        return self.tokens

    def __str__(self) -> str:
        fingerprint = self.claim.data_fingerprint[:8]
        return (
            f"{self.claim.platform} ({self.device.name}), {self.budget_seconds} s per run, "
            f"data {fingerprint}, scoring {self.scoring}, sandbox {self.claim.sandbox}"
        )


def make_offer(settings: Settings, say: Callable[[str], None]) -> Offer:
    """Find device, interpreter and data; raise Refused or Fault when one of them is missing."""
    device = find_device(settings.device)
    profile = device.profile if settings.profile == "auto" else settings.profile
    python = find_python(settings.python)
    template = load_template(settings.template)
    data = Data(template, python, profile, settings.data)
    data.check_packages()
    sandbox = open_own_sandbox(settings, data, device)
    budget = settings.budget_seconds or DEFAULT_BUDGET_SECONDS[profile]
    grace = settings.grace_seconds
    claim = _make_claim(settings, device, budget, data, sandbox, say)
    layout = data.read_layout() if settings.scoring != "inline" else {}
    return Offer(
        claim=claim,
        device=device,
        profile=profile,
        budget_seconds=budget,
        grace_seconds=budget + 300.0 if grace is None else grace,
        sandbox=sandbox,
        template=template,
        data=data,
        layout=layout,
        tokens=_read_tokens(layout) if layout else None,
    )


def _read_tokens(layout: dict[str, Any]) -> Tokens:
    try:
        return Tokens([Path(layout["folder"], name) for name in layout["train"]])
    except (OSError, ValueError) as error:
        raise Fault(f"the training tokens cannot be read: {error}") from error


def find_python(wanted: str) -> str:
    """Absolute path of an interpreter, links kept: a virtual environment is known by its link."""
    found = shutil.which(wanted)
    if found is None:
        raise Refused(f"there is no interpreter {wanted}; see --python")
    return str(Path.cwd() / found)


def open_own_sandbox(settings: Settings, data: Data, device: Device) -> Sandbox:
    """The sandbox of this worker, tried out; raise Refused when none works."""
    settings.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = [config_path(), Path.home(), settings.cache]
    if settings.scoring != "inline":  # There train.py scores itself, on what lies in it.
        hidden.append(settings.data)
    limits = default_limits(settings.memory_bytes)
    return open_sandbox(
        settings.sandbox,
        data.python,
        device.visible,
        hidden,
        settings.cache,
        limits,
        data.find_withheld(),
    )


def _prepare(data: Data, may_prepare: bool, say: Callable[[str], None]) -> str:
    """The data's fingerprint, after preparing it if it is missing."""
    try:
        return data.find_fingerprint()
    except Fault as missing:
        if not may_prepare:
            raise Refused(f"{missing}, or drop --no-prepare") from missing
        say(f"{missing}; preparing it now")
    data.prepare()
    return data.find_fingerprint()


def _make_claim(
    settings: Settings,
    device: Device,
    budget: int,
    data: Data,
    sandbox: Sandbox,
    say: Callable[[str], None],
) -> wire.Claim:
    fingerprint = _prepare(data, settings.prepare, say)
    try:
        return wire.Claim(
            platform=device.platform if settings.platform == "auto" else settings.platform,
            budget_seconds=budget,
            data_fingerprint=fingerprint,
            scoring=settings.scoring,
            device=device.model[:200],
            vram_mb=device.vram_mb,
            sandbox=sandbox.kind,
            worker_version=_version(),
            data=data.find_name(),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise Refused(f"{problem['loc'][0]}: {problem['msg']}") from error


def _version() -> str:
    try:
        return version("agenthub")
    except PackageNotFoundError:
        return ""
