"""System: the parts of this machine that a training sees, read-only: what Python needs to run."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.withheld import Withheld
from worker.settings import Refused
from worker.trainer import capture
from worker.transcript import clean_line

LIBRARIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SHOWN = (
    "/usr",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",
)
#: Counting cores and memory nodes; what CUDA wants beside it.
SYS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
SYS_GPU = ("/sys/devices", "/sys/bus/pci", "/sys/module", "/sys/class")

_ASK = """
import json, site, sys
folders = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
user = {site.getusersitepackages()} if site.ENABLE_USER_SITE else set()
print(json.dumps([sys.executable, sorted(folders), sorted(user)]))
"""


@dataclass(frozen=True, slots=True)
class System:
    python: str
    #: Folders and files, none below another.
    shown: tuple[Path, ...]
    #: Links to a shown folder, such as /lib, and where they point.
    links: tuple[tuple[Path, str], ...]
    #: Covered parts of what is shown.
    withheld: tuple[Withheld, ...] = ()


def find_system(python: str, hidden: Sequence[Path], env: Mapping[str, str] = os.environ) -> System:
    """What this interpreter needs; raise Refused if that would show something of `hidden`."""
    status, told, complaint = capture([python, "-c", _ASK], seconds=60)
    if status:
        raise Refused(f"{python} does not work: {clean_line(complaint[-300:])}")
    executable, folders, user = json.loads(told)
    libraries = [*env.get("LD_LIBRARY_PATH", "").split(":"), env.get("CUDA_HOME", "")]
    links = [path for path in map(Path, LIBRARIES) if path.is_symlink()]
    rest = [path for path in map(Path, LIBRARIES) if not path.is_symlink()]
    wanted = [
        *map(Path, SHOWN),
        *rest,
        *map(Path, folders + user),
        *map(Path, filter(None, libraries)),
    ]
    shown = outermost(path for path in wanted if path.exists() and path.is_absolute())
    check_hidden(shown, hidden)
    return System(executable, shown, tuple((path, str(path.readlink())) for path in links))


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return tuple(found)


def check_hidden(shown: Iterable[Path], hidden: Sequence[Path]) -> None:
    for path in shown:
        for secret in hidden:
            if secret.is_relative_to(path) or secret.resolve().is_relative_to(path.resolve()):
                raise Refused(f"trainings would see {path}, and with it {secret}: move one of them")
