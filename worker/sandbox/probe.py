"""Probe: runs a program in a sandbox that looks whether the sandbox keeps its promises."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from worker.sandbox.base import Sandbox
from worker.sandbox.withheld import tail_of
from worker.trainer import Fault, Trainer
from worker.transcript import Transcript, clean_line

PROBE_SECONDS = 60.0
HELD = "the sandbox holds"
#: Of a copy of what is withheld; no other kind of sandbox would help.
COPIED = "can be read, and scores are made of that text"

#: Prints HELD, or what it could do and should not.
_LOOK = f"""
import json, os, socket, sys
hidden, withheld, shown = json.loads(sys.argv[1])
scratch, found = os.getcwd(), []
def is_readable(path):
    try:
        open(path).close()
        return True
    except OSError:
        return False
for path in [path for path in hidden if os.path.isfile(path)]:
    if is_readable(path):
        found.append("%s can be read" % path)
def find_copies():
    for path in shown if withheld else ():
        for folder, _, names in os.walk(path):
            for tail, kept in withheld:
                package = tail.split("/")[0]
                for name in names:
                    if name.startswith(package + "-") and name.endswith((".whl", ".zip", ".conda")):
                        yield os.path.join(folder, name)
                _, is_inside, below = (folder + "/").partition("/" + tail + "/")
                for name in names if is_inside else ():
                    if below + name not in kept:
                        yield os.path.join(folder, name)
copies = [path for path in find_copies() if is_readable(path)]
if copies:
    found.append("%s %s" % (copies[0], {COPIED!r}))
try:
    open("/usr/agenthub-probe", "w").close()
    found.append("/usr can be written")
except OSError:
    pass
try:
    with socket.socket() as line:
        line.settimeout(2)
        line.connect(("192.0.2.1", 9))
        found.append("there is a network")
except TimeoutError:
    found.append("there is a network")
except OSError:
    pass
if not os.geteuid():
    found.append("it runs as root")
with open(os.path.join(scratch, "probe"), "w") as file:
    file.write("written")
print("; ".join(found) or {HELD!r})
"""


def probe(
    sandbox: Sandbox,
    scratch: Path,
    hidden: Sequence[Path],
    withheld: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Why this sandbox cannot be used; empty when it works and holds."""
    if obstacle := sandbox.obstacle():
        return obstacle
    transcript = Transcript()
    tails = [(str(tail_of(Path(folder))), [*kept]) for folder, kept in withheld.items()]
    plan = [[*map(str, hidden)], tails, [*map(str, sandbox.system.shown)]]
    look = [sandbox.python, "-I", "-S", "-c", _LOOK, json.dumps(plan)]
    try:
        limits = replace(sandbox.limits, wall_seconds=None)
        env = {"LANG": "C.UTF-8"}
        command = sandbox.command(look, scratch=scratch, cwd=scratch, env=env, limits=limits)
        with Trainer(command, transcript) as trainer:
            status = trainer.wait(PROBE_SECONDS)
    except Fault as fault:
        return str(fault)
    told = [line for line in transcript.text().splitlines() if line.strip()]
    if status == 0 and told[-1:] == [HELD]:
        return ""
    if status is None:
        return f"it did not start within {PROBE_SECONDS:.0f} s"
    return clean_line(told[-1]) if told else f"it ended with status {status}"
