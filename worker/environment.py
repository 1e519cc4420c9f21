"""Environment: the variables a training sees. Built from nothing: no key, no home of ours."""

import os
import site
from collections.abc import Mapping
from pathlib import Path

from worker.device import Device
from worker.workspace import Workspace

DEFAULT_SEED = 42
#: Passed on where the worker has them.
PASSED = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "SSL_CERT_FILE", "TZ")


def build_environment(
    device: Device,
    space: Workspace,
    data: Path,
    profile: str,
    budget_seconds: int,
    seed: int | None,
    env: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    built = {name: env[name] for name in PASSED if name in env}
    built |= {
        "HOME": str(space.home),
        "TMPDIR": str(space.tmp),
        # A user id without a name, as in some containers, makes torch.compile fail.
        "USER": "trainer",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Packages that were installed with `pip install --user` lie below the true home.
        "PYTHONUSERBASE": env.get("PYTHONUSERBASE") or site.getuserbase(),
        "CUDA_VISIBLE_DEVICES": device.visible,
        # The order in which nvidia-smi counts.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TRAIN_PROFILE": profile,
        "TRAIN_DEVICE": device.name,
        "TRAIN_BUDGET": f"{budget_seconds}s",
        "TRAIN_SEED": str(DEFAULT_SEED if seed is None else seed),
        "TRAIN_DATA": str(data),
    }
    if device.name == "cpu":
        # Threads that spin on a busy machine cost far more than they bring.
        built |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return built
