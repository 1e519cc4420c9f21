"""Gpu: the device files of the one GPU that a training was given."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from worker.settings import Refused
from worker.trainer import capture

#: Shared by all GPUs; the driver checks what each process may do with them.
SHARED = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Gpu:
    """No files and no changes to the environment: no GPU."""

    nodes: tuple[Path, ...] = ()
    #: Inside, the only GPU is the first.
    environment: dict[str, str] = field(default_factory=dict)
    #: As nvidia-smi and containers' `--gpus` name it.
    name: str = ""


def find_gpu(visible: str) -> Gpu:
    """The GPU that CUDA_VISIBLE_DEVICES=`visible` means; raise Refused if it cannot be told apart.

    An empty name is no GPU.
    """
    if not visible:
        return Gpu()
    shared = tuple(path for path in map(Path, SHARED) if path.exists())
    if Path("/dev/dxg") in shared:  # Windows shows its GPUs to Linux as one device.
        return Gpu(shared, name=visible)
    node = Path(f"/dev/nvidia{find_minor(visible)}")
    if not node.exists():
        raise Refused(f"GPU {visible} should be {node}, which is missing: is the driver loaded?")
    if visible.startswith("MIG-"):
        return Gpu((node, *shared, *Path("/dev").glob("nvidia-caps/*")), name=visible)
    return Gpu((node, *shared), {"CUDA_VISIBLE_DEVICES": "0"}, visible)


def find_minor(visible: str) -> int:
    """The number of its device file, which need not be the number that nvidia-smi gives it."""
    query = ["nvidia-smi", "-i", visible, "--query-gpu=pci.bus_id", "--format=csv,noheader"]
    try:
        status, told, complaint = capture(query, seconds=30)
    except OSError as error:
        raise Refused(f"nvidia-smi cannot be run: {error}") from error
    bus = told.strip().lower()
    if status or not re.fullmatch(r"[0-9a-f:.]+", bus):
        raise Refused(f"nvidia-smi does not tell where GPU {visible} is: {complaint.strip()}")
    # The driver writes the domain with 4 digits, nvidia-smi with 8.
    about = Path("/proc/driver/nvidia/gpus", bus[-12:], "information")
    try:
        minor = re.search(r"^Device Minor:\s*(\d+)", about.read_text(), re.MULTILINE)
    except OSError:
        minor = None
    if minor is None:
        raise Refused(f"{about} does not tell which device file is GPU {visible}")
    return int(minor[1])
