"""The example files of deploy/ are what their programs read, and start a worker that exists."""

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from worker.exits import Exit
from worker.main import app

DEPLOY = Path(__file__).parent.parent / "deploy"
FILES = sorted(path.name for path in DEPLOY.iterdir())
RUN = get_command(app).commands["run"]  # type: ignore[attr-defined]


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def find_words(node: Any) -> Iterator[str]:
    """The command lines in a parsed file, as text."""
    if isinstance(node, dict):
        for value in node.values():
            yield from find_words(value)
    elif isinstance(node, list):
        yield " ".join(str(item) for item in node)
        for item in node:
            yield from find_words(item)
    else:
        yield str(node)


@pytest.mark.parametrize("name", FILES)
def test_each_starts_a_worker_with_options_and_variables_that_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    told = "\n".join(find_words(yaml.safe_load(text))) if name.endswith((".yaml", ".yml")) else text
    (options,) = set(re.findall(r"ah-worker run(.*)$", told, re.MULTILINE))
    known = {option for parameter in RUN.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", options)) <= known
    variables = {f"AGENTHUB_WORKER_{parameter.name.upper()}" for parameter in RUN.params}
    assert set(re.findall(r"AGENTHUB_WORKER_[A-Z_]+", text)) <= variables
    assert {"AGENTHUB_URL", "AGENTHUB_KEY"} <= set(re.findall(r"AGENTHUB_[A-Z]+", text))


def test_the_systemd_unit_restarts_what_a_restart_may_mend() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "agenthub-worker.service")
    service = unit["Service"]
    assert service["Restart"] == "on-failure"  # Which 0 is not.
    assert service["RestartPreventExitStatus"] == f"{Exit.QUARANTINED:d} {Exit.REFUSED:d}"
    assert (service["KillMode"], unit["Install"]["WantedBy"]) == ("mixed", "multi-user.target")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "agenthub-worker.service").read_text()
    unit = tmp_path / "agenthub-worker.service"
    unit.write_text(text.replace("/opt/agenthub/bin/ah-worker", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    # It looks through the machine's own units too; those are not ours.
    assert "agenthub-worker" not in done.stdout + done.stderr


def test_the_slurm_script_is_bash_with_directives_before_its_commands() -> None:
    script = DEPLOY / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    head, _, commands = script.read_text().partition("\nexec ")
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", head, re.MULTILINE))
    assert (directives["signal"], directives["gpus-per-node"]) == ("B:TERM@120", "1")
    assert re.fullmatch(r"\d+-\d+", directives["array"])
    assert "#SBATCH" not in commands


def test_the_kubernetes_deployment_selects_its_own_pods() -> None:
    manifest = load("kubernetes.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    pod = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert all("value" in one or "secretKeyRef" in one["valueFrom"] for one in container["env"])


def test_the_skypilot_task_asks_for_what_it_needs() -> None:
    task = load("skypilot.yaml")
    assert set(task) == {"name", "workdir", "resources", "envs", "secrets", "setup", "run"}
    # Null means that whoever launches it must say.
    assert (task["envs"]["AGENTHUB_URL"], task["secrets"]["AGENTHUB_KEY"]) == (None, None)
    assert re.fullmatch(r"\w+:\d+", task["resources"]["accelerators"])
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_the_dstack_task_asks_for_what_it_needs() -> None:
    task = load("worker.dstack.yml")
    assert (task["type"], task["spot_policy"]) == ("task", "auto")
    assert {"AGENTHUB_URL", "AGENTHUB_KEY"} <= set(task["env"])
    assert set(task["retry"]["on_events"]) <= {"no-capacity", "interruption", "error"}
    for command in task["commands"]:
        subprocess.run(["bash", "-n"], input=command.encode(), check=True)
