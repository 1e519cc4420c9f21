"""Runs one Python program in a sandbox and tells how it ended, as JSON. A process of its own, so
that the tests can start it as somebody else, and kill it: `python sandboxed.py FOLDER WHAT`."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.sandbox.base import GIB, MIB, Limits
from worker.sandbox.choice import open_sandbox
from worker.settings import Refused
from worker.trainer import Trainer
from worker.transcript import Transcript

LIMITS = Limits(2 * GIB, scratch_bytes=64 * MIB, shm_bytes=32 * MIB, file_bytes=48 * MIB)


def main(folder: Path, what: dict[str, Any]) -> dict[str, Any]:
    home, cache, scratch = (folder / name for name in ("home", "cache", "cache/scratch"))
    limits = replace(LIMITS, **what["limits"])
    try:
        hidden = [home / "key", home, cache]
        withheld = what["withheld"]
        sandbox = open_sandbox(what["kind"], sys.executable, "", hidden, cache, limits, withheld)
    except Refused as refused:
        return {"refused": str(refused)}
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("tree", "home", "tmp"):
        (scratch / name).mkdir(parents=True)
    (scratch / "tree/train.py").write_text(what["program"])
    out = os.memfd_create("out")
    command = sandbox.command(
        [sandbox.python, "train.py", *([str(out)] if what["hand_in"] else [])],
        scratch=scratch,
        cwd=scratch / "tree",
        env={"HOME": f"{scratch}/home", "TMPDIR": f"{scratch}/tmp", "PATH": "/usr/bin:/bin"},
        readable=[folder / what["data"]],
        pass_fds=[out] if what["hand_in"] else [],
    )
    transcript = Transcript()
    with Trainer(command, transcript) as trainer:
        status = trainer.wait(what["seconds"])
    told = {"kind": sandbox.kind, "status": status, "text": transcript.text()}
    written = os.pread(out, 1000, 0).decode()
    return {**told, "out": written, "is_ready": trainer.is_ready, "is_too_big": trainer.is_too_big}


def bubblewrap_runs(prefix: tuple[str, ...] = ()) -> bool:
    command = ("bwrap", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true")
    if not shutil.which("bwrap"):
        return False
    return not subprocess.run([*prefix, *command], check=False, capture_output=True).returncode


def engine_runs(engine: str) -> bool:
    """Whether podman or docker runs a container of this machine's own programs."""
    if not shutil.which(engine):
        return False
    with tempfile.NamedTemporaryFile(suffix=".tar") as empty:
        tarfile.open(empty.name, "w").close()
        image = ("import", empty.name, "localhost/agenthub-tests")
        if subprocess.run([engine, *image], check=False, capture_output=True).returncode:
            return False
    shown = [
        f"--volume={name}:{name}:ro" for name in ("/usr", "/lib", "/lib64") if Path(name).is_dir()
    ]
    run = [engine, "run", "--rm", "--network=none", "--ulimit=nofile=1024", "--ulimit=nproc=1024"]
    run += [*shown, "localhost/agenthub-tests", "/usr/bin/true"]
    return not subprocess.run(run, check=False, capture_output=True).returncode


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
