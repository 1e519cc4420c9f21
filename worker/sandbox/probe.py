"""Probe: runs a program in a sandbox that looks whether the sandbox keeps its promises."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worker.sandbox.base import Sandbox
from worker.trainer import Fault, Trainer
from worker.transcript import Transcript, clean_line

PROBE_SECONDS = 60.0
HELD = "the sandbox holds"

#: Prints HELD, or what it could do and should not.
_LOOK = f"""
import json, os, socket, sys
hidden, scratch = json.loads(sys.argv[1]), os.getcwd()
found = []
for path in [path for path in hidden if os.path.isfile(path)]:
    try:
        open(path).close()
        found.append("%s can be read" % path)
    except OSError:
        pass
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


def probe(sandbox: Sandbox, scratch: Path, hidden: Sequence[Path]) -> str:
    """Why this sandbox cannot be used; empty when it works and holds."""
    if obstacle := sandbox.obstacle():
        return obstacle
    transcript = Transcript()
    look = [sandbox.python, "-I", "-S", "-c", _LOOK, json.dumps([str(path) for path in hidden])]
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
