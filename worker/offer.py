"""Offer: what this worker brings to a run, found out and checked before the first claim."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from server import wire
from worker.device import Device, find_device
from worker.settings import DEFAULT_BUDGET_SECONDS, Refused, Settings
from worker.template import Data, Template, load_template
from worker.trainer import Fault

#: train.py prints its own val_bpb, by the restored prepare.py.
SCORING = "inline"


@dataclass(frozen=True, slots=True)
class Offer:
    claim: wire.Claim
    device: Device
    profile: str
    budget_seconds: int
    grace_seconds: float
    python: str
    template: Template
    data: Data

    def __str__(self) -> str:
        fingerprint = self.claim.data_fingerprint[:8]
        return (
            f"{self.claim.platform} ({self.device.name}), {self.budget_seconds} s per run, "
            f"data {fingerprint}, scoring {SCORING}, sandbox {self.claim.sandbox}"
        )


def make_offer(settings: Settings, say: Callable[[str], None]) -> Offer:
    """Find device, interpreter and data; raise Refused or Fault when one of them is missing."""
    device = find_device(settings.device)
    profile = device.profile if settings.profile == "auto" else settings.profile
    python = find_python(settings.python)
    template = load_template(settings.template)
    data = Data(template, python, profile, settings.data)
    data.check_packages()
    budget = settings.budget_seconds or DEFAULT_BUDGET_SECONDS[profile]
    grace = settings.grace_seconds
    return Offer(
        claim=_make_claim(settings, device, budget, _prepare(data, settings.prepare, say)),
        device=device,
        profile=profile,
        budget_seconds=budget,
        grace_seconds=budget + 300.0 if grace is None else grace,
        python=python,
        template=template,
        data=data,
    )


def find_python(wanted: str) -> str:
    """Absolute path of an interpreter, links kept: a virtual environment is known by its link."""
    found = shutil.which(wanted)
    if found is None:
        raise Refused(f"there is no interpreter {wanted}; see --python")
    return str(Path.cwd() / found)


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


def _make_claim(settings: Settings, device: Device, budget: int, fingerprint: str) -> wire.Claim:
    try:
        return wire.Claim(
            platform=device.platform if settings.platform == "auto" else settings.platform,
            budget_seconds=budget,
            data_fingerprint=fingerprint,
            scoring=SCORING,
            device=device.model[:200],
            vram_mb=device.vram_mb,
            sandbox=settings.sandbox,
            worker_version=_version(),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise Refused(f"{problem['loc'][0]}: {problem['msg']}") from error


def _version() -> str:
    try:
        return version("agenthub")
    except PackageNotFoundError:
        return ""
