"""Mutated bundles by the thousand, and those that once got through (`corpus/`)."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Hub, listing, uploads
from fuzz_bundles import SLOW_SECONDS, make_base, make_bundle, run, run_all
from starlette.testclient import TestClient

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.bundle"))
#: The first seed of the runs that are the same every time.
FIRST = 1_000_000


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(max_pushes_per_hour=0)


@pytest.fixture
def http(hub: Hub, tmp_path: Path) -> TestClient:
    """The front door of a hub that holds what mutated bundles build on."""
    forge = make_base()
    forge.path = tmp_path
    http = hub.http()
    push(hub, http, forge.bundle(list(forge.objects)[-1]).read_bytes())
    return http


def push(hub: Hub, http: TestClient, content: bytes) -> int:
    """Push as a stranger would; see that the answer is an answer and nothing is left behind."""
    before = listing(hub.data / "repo.git")
    started = time.monotonic()
    answer = http.post("/api/git/push", content=content)
    assert time.monotonic() - started < SLOW_SECONDS
    assert answer.status_code in (201, 400, 409, 413), answer.text
    assert not uploads(hub.data)
    if answer.status_code != 201:
        assert {"error", "code"} <= answer.json().keys()
        assert "Traceback" not in answer.text
        assert listing(hub.data / "repo.git") == before
    return answer.status_code


def ask_git(hub: Hub) -> None:
    command = ["git", "fsck", "--full", "--strict", "--no-dangling"]
    done = subprocess.run(
        command, cwd=hub.data / "repo.git", check=True, capture_output=True, text=True
    )
    assert "error" not in done.stdout + done.stderr


def test_the_same_seed_makes_the_same_bundle() -> None:
    base = list(make_base().objects.values())
    assert make_bundle(7, base) == make_bundle(7, list(make_base().objects.values()))
    assert make_bundle(7, base) != make_bundle(8, base)


def test_500_mutated_bundles_are_taken_whole_or_refused_without_a_trace() -> None:
    report = run(range(FIRST, FIRST + 500))
    assert report.findings == []
    # Neither may be rare, or the fuzzer looks at one side only.
    assert report.taken > 50
    assert report.refused.total() > 200
    assert len(report.refused) > 30


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.stress)])
def test_mutated_bundles_over_http_are_answered_and_never_with_a_500(
    hub: Hub, http: TestClient, count: int
) -> None:
    base = list(make_base().objects.values())
    answers = Counter(
        push(hub, http, make_bundle(seed, base)) for seed in range(FIRST, FIRST + count)
    )
    assert answers[201] > count // 20
    ask_git(hub)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_once_got_through_does_not_again(hub: Hub, http: TestClient, path: Path) -> None:
    assert push(hub, http, path.read_bytes()) == 400
    ask_git(hub)


@pytest.mark.stress
def test_100000_mutated_bundles_are_taken_whole_or_refused_without_a_trace() -> None:
    report = run_all(100_000, jobs=2)
    print(f"taken {report.taken}, refused {report.refused.total()}, slowest {report.slowest}")
    assert report.findings == []
