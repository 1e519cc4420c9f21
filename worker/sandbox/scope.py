"""Scope: a cgroup of systemd's around one sandbox, where there is a systemd to ask."""

import os
from dataclasses import dataclass
from pathlib import Path

from worker.trainer import capture

#: What `systemd-run --user` needs to find the user's manager.
PASSED = ("PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@dataclass(frozen=True, slots=True)
class Scope:
    environment: dict[str, str]

    def argv(self, memory_bytes: int, processes: int) -> list[str]:
        """The prefix of a command that puts it, and all it starts, under these limits."""
        whose = ["--user"] if os.geteuid() else []
        limits = {"MemoryMax": memory_bytes, "MemorySwapMax": 0, "TasksMax": processes}
        told = [part for name, most in limits.items() for part in ("-p", f"{name}={most}")]
        return ["systemd-run", *whose, "--scope", "--quiet", "--collect", *told, "--"]


def find_scope() -> Scope | None:
    """A scope that was seen to work here with its limits in force; None without one."""
    if not Path("/run/systemd/system").is_dir():
        return None
    scope = Scope({name: os.environ[name] for name in PASSED if name in os.environ})
    probe = [
        *scope.argv(2**28, 64),
        "sh",
        "-c",
        'cat "/sys/fs/cgroup$(cut -d: -f3- < /proc/self/cgroup)/memory.max"',
    ]
    try:
        status, told, _ = capture(probe, scope.environment, seconds=10)
    except OSError:
        return None
    return scope if not status and told.strip() == str(2**28) else None
