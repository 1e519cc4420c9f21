"""Template: the trusted files that every training runs with, and the data they prepare.

The files are read once, at start; nothing a training does to them on disk reaches the next one.
All but train.py are frozen.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from worker.settings import Refused
from worker.trainer import Fault, capture, run_aloud
from worker.transcript import clean_line

TRAINED_FILE = "train.py"

#: Prints the names among its arguments that are not installed.
_MISSING = """
import importlib.metadata, json, sys
def is_missing(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
print(json.dumps([name for name in sys.argv[1:] if is_missing(name)]))
"""


@dataclass(frozen=True, slots=True)
class Template:
    directory: Path
    #: Contents of the frozen files by their path below the template.
    frozen: Mapping[PurePosixPath, bytes]


def load_template(directory: Path) -> Template:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    below = {PurePosixPath(path.relative_to(directory).as_posix()): path for path in paths}
    frozen = {
        name: path.read_bytes()
        for name, path in sorted(below.items())
        if name != PurePosixPath(TRAINED_FILE) and not _is_litter(name)
    }
    return Template(directory.resolve(), frozen)


@dataclass(frozen=True, slots=True)
class Data:
    """The data of one profile, prepared by the template's prepare.py."""

    template: Template
    python: str
    profile: str
    directory: Path

    def check_packages(self) -> None:
        """Raise Refused when the interpreter lacks what the template needs."""
        wanted = self._wanted_packages()
        if not wanted:
            return
        status, missing, complaint = capture([self.python, "-c", _MISSING, *wanted])
        if status:
            raise Refused(f"{self.python} does not work: {clean_line(complaint[-300:])}")
        if names := " ".join(json.loads(missing)):
            raise Refused(f"{self.python} lacks {names}: install them there, or see --python")

    def check_imports(self) -> None:
        """Raise Fault when packages were lost since the start, or torch does not work any more."""
        try:
            self.check_packages()
        except Refused as lost:
            raise Fault(str(lost)) from lost
        if "torch" in self._wanted_packages():
            status, _, complaint = capture([self.python, "-c", "import torch"], _environment())
            if status:
                last = (complaint.strip().splitlines() or ["it says nothing"])[-1]
                raise Fault(f"torch does not work here any more: {clean_line(last)}")

    def find_fingerprint(self) -> str:
        """What a score on this data is comparable with; raise Fault when it is not prepared."""
        if self.is_upstream:
            return self._digest_upstream()
        status, output, complaint = capture(self._command("--fingerprint"), _environment())
        if status or not re.fullmatch(r"[0-9a-f]{8,64}", output.strip()):
            lines = (complaint or output).strip().splitlines() or ["prepare.py says nothing"]
            raise Fault(clean_line(lines[-1]))
        return output.strip()

    def read_layout(self) -> dict[str, Any]:
        """What it takes to score a checkpoint apart; raise Refused when prepare.py cannot tell."""
        status, output, _ = capture(self._command("--layout"), _environment())
        try:
            layout = json.loads(output) if not status else None
        except ValueError:
            layout = None
        if not isinstance(layout, dict):
            raise Refused(
                "prepare.py of this template does not know --layout, so its models cannot be "
                "scored apart: say --scoring inline"
            )
        return layout

    def find_withheld(self) -> dict[str, list[str]]:
        """Folders of this machine that no training may read, but for the files named with each."""
        if b"--withheld" not in self._prepare_file():
            return {}
        status, output, complaint = capture(self._command("--withheld"), _environment())
        if status:
            raise Refused(clean_line((complaint.strip().splitlines() or ["prepare.py fails"])[-1]))
        told: dict[str, list[str]] = json.loads(output)
        return told

    def find_name(self) -> str | None:
        """What the data set is called, for people; None when prepare.py does not tell."""
        if self.is_upstream:
            return None
        status, output, _ = capture(self._command("--dataset"), _environment())
        name = output.strip()
        return name if not status and re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,63}", name) else None

    def prepare(self) -> None:
        """Prepare the data, telling on standard error how it goes; raise Fault if that fails."""
        if self.is_upstream:
            self.find_fingerprint()
        elif status := run_aloud(self._command(), _environment()):
            raise Fault(f"prepare.py ended with status {status}; the data is not prepared")

    @property
    def is_upstream(self) -> bool:
        """Whether prepare.py is autoresearch's own: without options, data where it likes them."""
        return b"--fingerprint" not in self._prepare_file()

    def _prepare_file(self) -> bytes:
        return self.template.frozen.get(PurePosixPath("prepare.py"), b"")

    def _digest_upstream(self) -> str:
        """It names its data and how much of it there is; what lies there it does not check."""
        if not self.directory.is_dir():
            script = self.template.directory / "prepare.py"
            raise Fault(
                f"no data in {self.directory}: run {script}, and say with --data where it "
                "keeps them (autoresearch: ~/.cache/autoresearch)"
            )
        return hashlib.sha256(self._prepare_file()).hexdigest()

    def _command(self, *more: str) -> list[str]:
        script = str(self.template.directory / "prepare.py")
        where = ["--profile", self.profile, "--data", str(self.directory)]
        return [self.python, "-B", script, *where, *more]

    def _wanted_packages(self) -> list[str]:
        text = self.template.frozen.get(PurePosixPath("pyproject.toml"), b"").decode()
        try:
            wanted = tomllib.loads(text).get("project", {}).get("dependencies", [])
        except ValueError as error:
            raise Refused(f"pyproject.toml of the template cannot be read: {error}") from error
        names = [re.match(r"[\w.-]+", need) for need in wanted if ";" not in need]
        return [name[0] for name in names if name]


def _environment() -> dict[str, str]:
    """Ours but for the hub's key: preparing may need the network, proxies and tokens."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTHUB_")}


def _is_litter(name: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.parts)
