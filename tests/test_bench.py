"""What the benches stand on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from bench.fill import fill
from bench.hub import dag, directory
from server.__main__ import cli
from server.app import create_app
from server.settings import Settings


def test_a_filled_directory_is_a_sound_hub_and_the_same_each_time(tmp_path: Path) -> None:
    dags = []
    for name in ("one", "two"):
        fill(tmp_path / name, 60)
        checked = CliRunner().invoke(cli, ["fsck", "--data", str(tmp_path / name)])
        assert checked.exit_code == 0, checked.output
        http = TestClient(create_app(Settings(data=tmp_path / name, admin_key="x")))
        dags.append(http.get("/dag/data").json())
        tip = dags[-1]["commits"]["hash"][-1]
        assert http.get(f"/commits/{tip}").status_code == 200
        assert http.get("/").status_code == 200
    assert dags[0] == dags[1]
    assert len(dags[0]["commits"]["seq"]) == 60
    assert len(dags[0]["running"]) == 6
    assert any(len(parents) > 1 for parents in dags[0]["commits"]["parents"])


def test_a_directory_of_the_load_bench_is_a_sound_hub_with_a_line_beside_its_swarm(
    tmp_path: Path,
) -> None:
    with directory.borrow(tmp_path, 40) as data:
        checked = CliRunner().invoke(cli, ["fsck", "--data", str(data)])
        assert checked.exit_code == 0, checked.output
        http = TestClient(create_app(Settings(data=data, admin_key="x")))
        http.headers["Authorization"] = f"Bearer {directory.AGENT_KEY}"
        line = list(dag.walk(0))
        lineage = http.get(f"/api/git/commits/{line[-1].hash}/lineage").json()
        assert [commit["hash"] for commit in lineage] == [one.hash for one in reversed(line)]
        queued = http.get("/api/runs?state=queued").json()
        assert len(queued) == directory.queued_of(40)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
        directory.keep(tmp_path, 40).name
    ]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_load_bench_prints_a_row_for_each_call_and_no_errors(tmp_path: Path) -> None:
    calls = ["commit", "push of one commit", "live feed"]
    command = [sys.executable, "-m", "bench.hub", "--commits", "40", "--cache", str(tmp_path)]
    command += ["--connections", "2", "--seconds", "1", "--listeners", "20", "--json", "--only"]
    ended = subprocess.run([*command, *calls], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)["rows"]
    assert [row["call"] for row in rows] == [*calls[:2], "live feed, 20: to all"]
    assert all(row["requests"] > 0 and row["errors"] == 0 and row["cpu"] > 0 for row in rows)
