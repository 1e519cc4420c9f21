"""Install: what to do on this system so that a sandbox works."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

#: By the ID or ID_LIKE of /etc/os-release.
INSTALL = {
    "debian": "apt install bubblewrap",
    "fedora": "dnf install bubblewrap",
    "rhel": "dnf install bubblewrap",
    "arch": "pacman -S bubblewrap",
    "suse": "zypper install bubblewrap",
    "opensuse": "zypper install bubblewrap",
    "alpine": "apk add bubblewrap",
}
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
#: Switches that forbid namespaces to users, and the value that does.
SWITCHES = {
    Path("/proc/sys/user/max_user_namespaces"): "0",
    Path("/proc/sys/kernel/unprivileged_userns_clone"): "0",
}
APPARMOR_REMEDY = """\
AppArmor keeps user namespaces from programs without a profile here. Give bwrap one, as root:
    printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile bwrap /usr/bin/bwrap \
flags=(unconfined) {\\n  userns,\\n}\\n' > /etc/apparmor.d/bwrap
    apparmor_parser -r /etc/apparmor.d/bwrap"""


def advise(reasons: Mapping[str, str]) -> str:
    """Why no kind of sandbox works here, and how to get one."""
    lines = ["no sandbox works here, and strangers' code is not run without one:"]
    lines += [f"  {kind}: {reason}" for kind, reason in reasons.items()]
    if sys.platform != "linux":
        return "\n".join([*lines, "Sandboxes need Linux; elsewhere there is only --sandbox none."])
    lines += _remedies()
    return "\n".join([*lines, "Or run without one, at your own risk: --sandbox none"])


def _remedies() -> list[str]:
    if _read(APPARMOR) == "1":
        return [APPARMOR_REMEDY]
    for switch, off in SWITCHES.items():
        if os.geteuid() and _read(switch) == off:
            name = ".".join(switch.parts[3:])
            return [f"User namespaces are switched off here by {name}={off}; root can raise it."]
    if shutil.which("bwrap"):
        return [
            "bubblewrap 0.7 or newer works where users may make user namespaces. In a container "
            "they often may not; then run the worker outside of it."
        ]
    return [f"Install bubblewrap 0.7 or newer: {install_line()}"]


def install_line(release: Path = Path("/etc/os-release")) -> str:
    """The command that installs bubblewrap on this system."""
    told = dict(line.split("=", 1) for line in _read(release).splitlines() if "=" in line)
    names = f"{told.get('ID', '')} {told.get('ID_LIKE', '')}".replace('"', "").split()
    known = [INSTALL[name.split("-")[0]] for name in names if name.split("-")[0] in INSTALL]
    return known[0] if known else "install the package `bubblewrap` of your distribution"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
