"""wrk: GETs as fast as a hub answers them."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.hub.table import Figures

_SCRIPT = Path(__file__).with_name("wrk.lua")
MISSING = "wrk is not installed: `apt-get install wrk` or `brew install wrk`, then run this again"


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def get(
    url: str,
    paths: Sequence[str],
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    seed: int = 1,
) -> Figures:
    """Ask for these paths, at random where there are several."""
    with tempfile.NamedTemporaryFile("w", suffix=".paths") as file:
        file.write("\n".join(paths) + "\n")
        file.flush()
        told = [part for pair in (headers or {}).items() for part in ("-H", ": ".join(pair))]
        order = "random" if len(paths) > 1 else "one"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", "20s", "-s", str(_SCRIPT), *told, url, "--"]
        command += [file.name, order, str(seed)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(out.strip().splitlines()[-1])
    return Figures(
        requests=found["requests"],
        seconds=found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        errors=found["errors"],
        bytes=found["bytes"],
    )
