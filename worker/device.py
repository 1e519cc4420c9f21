"""Device: what trains here, and its readable name as a platform. Asks the driver, never torch."""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from worker.settings import Refused
from worker.trainer import capture

#: What a name carries beside the model: makers, families, and memory, which is told in megabytes.
_NOISE = re.compile(
    r"NVIDIA|AMD|Intel|Corporation|Advanced|Micro|Devices|Inc\.?|ATI|GeForce|Tesla|Quadro|Instinct"
    r"|Radeon|Graphics|Generation|Accelerator|OAM|VF|GPU|\d+(\.\d+)?G[iB]?B?|HBM\w*|SXM\d*",
    re.IGNORECASE,
)


NO_GPU = "neither nvidia-smi nor rocm-smi lists it"


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
        raise Refused(f"there is no {wanted}: {NO_GPU}; see --device")
    return gpu


def list_devices(gpus: str, env: Mapping[str, str] = os.environ) -> list[str]:
    """The devices of `all`, of numbers as in `0,2`, or of `cpu`; raise Refused for others."""
    if gpus == "cpu":
        return ["cpu"]
    if gpus == "all":
        found = len(_visible(env))
        if not found:
            raise Refused(f"{NO_GPU}: use --gpus cpu, or install the driver")
        return [f"cuda:{number}" for number in range(found)]
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise Refused(f"--gpus must be all, numbers as in 0,2, or cpu, not {gpus!r}")
    return [f"cuda:{number}" for number in dict.fromkeys(gpus.split(","))]


def platform_name(model: str) -> str:
    """`H100` of `NVIDIA H100 80GB HBM3`, `RTX-4090` of `NVIDIA GeForce RTX 4090`."""
    model = re.sub(r"\[.*\]|\(.*?\)", " ", model)
    words = [word for word in re.split(r"[^A-Za-z0-9.]+", model) if not _NOISE.fullmatch(word)]
    return "-".join(word for word in words if word)[:64] or "unknown"


def ask_driver(id: str) -> str:
    """Version of the driver of a GPU; empty when it does not tell."""
    told = _ask(["nvidia-smi", "-i", id, "--query-gpu=driver_version", "--format=csv,noheader"])
    if told:
        return told.strip().partition("\n")[0]
    told = _ask(["rocm-smi", "--showdriverversion", "--json"])
    found = re.search(r'"Driver version":\s*"([^"]+)"', told)
    return found[1] if found else ""


def _find_gpu(number: int, env: Mapping[str, str]) -> Device | None:
    """The GPU a process would call `cuda:number`, as far as CUDA_VISIBLE_DEVICES lets it see."""
    visible = _visible(env)
    if number >= len(visible):
        return None
    name, vram_mb = _ask_nvidia(visible[number]) or _ask_amd(visible[number]) or ("", 0)
    if not name:
        return None
    return Device("cuda:0", platform_name(name), name, vram_mb, visible[number])


def _visible(env: Mapping[str, str]) -> list[str]:
    """What the driver calls the GPUs that a process may see, in their order."""
    allowed = env.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return [str(number) for number in range(_count_gpus())]
    ids = [id.strip() for id in allowed.split(",")]
    # As CUDA reads it: the first that names no device ends the list.
    return list(takewhile(lambda id: id not in ("", "-1", "NoDevFiles"), ids))


def _count_gpus() -> int:
    listed = _ask(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"])
    return len(listed.splitlines()) or len(_read_amd())


def _ask_nvidia(id: str) -> tuple[str, int] | None:
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    told = _ask(["nvidia-smi", "-i", id, *query])
    name, _, memory = told.strip().partition("\n")[0].rpartition(",")
    return (name.strip(), _whole(memory)) if name else None


def _ask_amd(id: str) -> tuple[str, int] | None:
    cards = _read_amd()
    card = cards.get(f"card{id}")
    if card is None:
        return None
    name = card.get("card series") or card.get("card model") or ""
    return name, _whole(card.get("vram total memory (b)", "")) // 2**20


def _read_amd() -> dict[str, dict[str, str]]:
    """What rocm-smi tells of each card, by names in small letters, for versions differ."""
    told = _ask(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"])
    try:
        cards = json.loads(told) if told else {}
        return {
            card: {key.lower(): str(value) for key, value in facts.items()}
            for card, facts in cards.items()
            if re.fullmatch(r"card\d+", card)
        }
    except (ValueError, AttributeError):
        return {}


def _ask(command: list[str]) -> str:
    """What a driver's tool prints; nothing if it fails or is not there."""
    try:
        status, output, _ = capture(command)
    except OSError:
        return ""
    return "" if status else output


def _whole(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


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
