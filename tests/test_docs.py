"""What the documents promise is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Hub
from typer.main import get_command

from ah_cli.main import VERBS, name_of
from server.__main__ import cli as agenthub

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


AH = {name_of(verb) for verbs in VERBS.values() for verb in verbs}
AGENTHUB = set(get_command(agenthub).commands)  # type: ignore[attr-defined]


def test_every_setting_of_the_hub_is_in_the_readme() -> None:
    for option in get_command(agenthub).commands["serve"].params:  # type: ignore[attr-defined]
        if option.envvar:
            assert f"| `{option.opts[0]}` | `{option.envvar}` |" in README


def test_every_command_is_in_the_readme_and_every_documented_one_exists() -> None:
    for name in AH:
        assert re.search(rf"\bah {name}\b|`{name}`", README), name
    for name in re.findall(r"^    ah ([a-z]+)", README, re.MULTILINE):
        assert name in AH
    for name in re.findall(r"^    agenthub ([a-z]+)", README, re.MULTILINE):
        assert name in AGENTHUB


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        text = (ROOT / document).read_text()
        assert set(re.findall(r"(?:^|[` ])make ([a-z]+)\b(?= |$|`)", text, re.MULTILINE)) <= targets


def test_every_route_is_in_the_api_document(hub: Hub) -> None:
    documented = set(re.findall(r"(/api/[a-z/{}_.]+)", API.replace("{a}", "{x}")))
    for path in hub.app.openapi()["paths"]:
        if path.startswith("/api/"):
            assert path.replace("{a}", "{x}") in documented, path


def test_every_rule_of_the_architecture_names_a_test_that_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test


def test_links_between_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_the_compose_file_is_well_formed() -> None:
    subprocess.run(["docker-compose", "--profile", "*", "config", "--quiet"], cwd=ROOT, check=True)
