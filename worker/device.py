"""Device: what trains here, and its readable name as a platform. Asks the driver, never torch."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.settings import Refused
from worker.trainer import capture

#: What a name carries beside the model: makers, families, and memory, which is told in megabytes.
_NOISE = re.compile(
    r"NVIDIA|GeForce|Tesla|Quadro|Generation|GPU|\d+GB|HBM\w*|SXM\d*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Device:
    #: As the trainer is told: cpu, mps or cuda:0.
    name: str
    platform: str
    model: str
    vram_mb: int = 0
    #: CUDA_VISIBLE_DEVICES of the trainer: it sees one GPU, or none.
    visible: str = ""

    @property
    def profile(self) -> str:
        return "gpu" if self.name.startswith("cuda") else "cpu"


def find_device(wanted: str, env: Mapping[str, str] = os.environ) -> Device:
    """The device of this name, `auto` being the first GPU if there is one."""
    if wanted == "auto":
        return _find_gpu(0, env) or _find_cpu()
    if wanted == "cpu":
        return _find_cpu()
    if wanted == "mps":
        return Device("mps", platform_name(_cpu_model()), _cpu_model())
    gpu = _find_gpu(int(wanted.partition(":")[2] or 0), env)
    if gpu is None:
        raise Refused(f"there is no {wanted}: nvidia-smi does not list it; see --device")
    return gpu


def platform_name(model: str) -> str:
    """`H100` of `NVIDIA H100 80GB HBM3`, `RTX-4090` of `NVIDIA GeForce RTX 4090`."""
    words = [word for word in re.split(r"[^A-Za-z0-9.]+", model) if not _NOISE.fullmatch(word)]
    return "-".join(words)[:64] or "unknown"


def _find_gpu(number: int, env: Mapping[str, str]) -> Device | None:
    """The GPU a process would call `cuda:number`, as far as CUDA_VISIBLE_DEVICES lets it see."""
    allowed = env.get("CUDA_VISIBLE_DEVICES")
    visible = [str(number)] if allowed is None else [id.strip() for id in allowed.split(",")]
    place = 0 if allowed is None else number
    if place >= len(visible) or visible[place] in ("", "-1", "NoDevFiles"):
        return None
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        status, output, _ = capture(["nvidia-smi", "-i", visible[place], *query])
    except OSError:
        return None
    name, _, memory = output.strip().partition("\n")[0].rpartition(",")
    if status or not name:
        return None
    vram_mb = int(memory) if memory.strip().isdecimal() else 0
    return Device("cuda:0", platform_name(name), name.strip(), vram_mb, visible[place])


def _find_cpu() -> Device:
    return Device("cpu", "cpu", f"{_cpu_model()}, {os.cpu_count()} cores")


def _cpu_model() -> str:
    try:
        told = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        told = None
    return told[1].strip() if told else platform.processor() or platform.machine()
