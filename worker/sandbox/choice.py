"""Choice: the strongest sandbox that works here, seen to work, or a refusal that says why not."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from worker.sandbox.base import Limits, Sandbox, default_limits
from worker.sandbox.bubblewrap import Bubblewrap
from worker.sandbox.container import Docker, Podman
from worker.sandbox.gpu import find_gpu
from worker.sandbox.install import advise
from worker.sandbox.landlock import Landlock
from worker.sandbox.none import NoSandbox
from worker.sandbox.probe import COPIED, probe
from worker.sandbox.scope import find_scope
from worker.sandbox.system import find_system
from worker.sandbox.withheld import withhold
from worker.settings import Refused

#: The strongest first; `none` is never chosen, only named.
ORDER: tuple[type[Sandbox], ...] = (Bubblewrap, Podman, Docker, Landlock)


def open_sandbox(
    wanted: str,
    python: str,
    visible: str,
    hidden: Sequence[Path],
    cache: Path,
    limits: Limits | None = None,
    withheld: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Sandbox:
    """The sandbox of this kind, or for `auto` the first that works; raise Refused without one.

    `visible` is the GPU as CUDA_VISIBLE_DEVICES names it, empty for none. What is `hidden` no
    training may see, and of folders `withheld` only the files that are named with each. Scratch
    folders will lie below `cache`.
    """
    limits = limits or default_limits()
    if wanted == NoSandbox.kind:
        return NoSandbox(find_system(python, ()), find_gpu(""), limits, None)
    system, gpu, scope = find_system(python, hidden), find_gpu(visible), find_scope()
    system = replace(system, withheld=withhold(withheld, system.shown, cache))
    reasons = {}
    for kind in [kind for kind in ORDER if wanted in ("auto", kind.kind)]:
        sandbox = kind(system, gpu, limits, scope)
        with tempfile.TemporaryDirectory(prefix="probe", dir=cache) as scratch:
            reasons[kind.kind] = reason = probe(sandbox, Path(scratch), hidden, withheld)
        if COPIED in reason:
            raise Refused(f"{reason}: remove it, or name an interpreter elsewhere with --python")
        if not reason:
            return sandbox
    raise Refused(advise(reasons))
