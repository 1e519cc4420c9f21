"""The curl flow of autoresearch's agents, unchanged, against our hub."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import HubProcess, WorkTree

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")


class Shell:
    """Runs lines as an agent's shell would, with HUB and HUB_KEY set."""

    def __init__(self, hub: HubProcess, cwd: Path) -> None:
        self.hub = hub
        self.cwd = cwd
        self.key = ""

    def __call__(self, line: str) -> str:
        env = {"HUB": self.hub.url, "HUB_KEY": self.key, "PATH": "/usr/bin:/bin:/usr/local/bin"}
        done = subprocess.run(
            ["bash", "-euc", line], cwd=self.cwd, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def shell(live_hub: HubProcess, work_tree: WorkTree) -> Shell:
    return Shell(live_hub, work_tree.path)


def test_the_curl_flow_of_autoresearch_works(
    shell: Shell, work_tree: WorkTree, tmp_path: Path
) -> None:
    register = """curl -s -X POST "$HUB/api/register" \
      -H "Content-Type: application/json" -d '{"id":"curl-agent"}'"""
    registered = json.loads(shell(register))
    assert registered["id"] == "curl-agent"
    shell.key = registered["api_key"]

    baseline = work_tree.commit("baseline", train_py="LR = 0.02\n")
    tip = work_tree.commit("increase LR to 0.04", train_py="LR = 0.04\n")
    push = """git bundle create --quiet ../push.bundle HEAD
      curl -s -X POST "$HUB/api/git/push" \
      -H "Authorization: Bearer $HUB_KEY" --data-binary @../push.bundle"""
    assert json.loads(shell(push))["hashes"] == [tip]

    def get(path: str) -> str:
        return shell(f"""curl -s "$HUB{path}" -H "Authorization: Bearer $HUB_KEY" """)

    log = json.loads(get("/api/git/commits?limit=20"))
    assert {baseline, tip} <= {commit["hash"] for commit in log}
    assert tip in {commit["hash"] for commit in json.loads(get("/api/git/leaves"))}
    children = json.loads(get(f"/api/git/commits/{baseline}/children"))
    assert [(c["hash"], c["parent_hash"], c["message"]) for c in children] == [
        (tip, baseline, "increase LR to 0.04")
    ]
    assert "+LR = 0.04" in get(f"/api/git/diff/{baseline}/{tip}")

    other = WorkTree(tmp_path / "other")
    fetch = f"""cd {other.path}
      curl -s "$HUB/api/git/fetch/{tip}" -H "Authorization: Bearer $HUB_KEY" -o fetch.bundle
      git bundle unbundle fetch.bundle && git checkout -q {tip} && cat train.py"""
    assert shell(fetch).endswith("LR = 0.04\n")

    channel = """curl -s -o /dev/null -w '%{http_code}' -X POST "$HUB/api/channels" \
      -H "Authorization: Bearer $HUB_KEY" -H "Content-Type: application/json" \
      -d '{"name":"discussion","description":"ideas"}'"""
    assert shell(channel) in ("201", "409")
    assert shell(channel) == "409"
    post = """curl -s -X POST "$HUB/api/channels/discussion/posts" \
      -H "Authorization: Bearer $HUB_KEY" -H "Content-Type: application/json" \
      -d '{"content":"a larger LR **pays**"}'"""
    posted = json.loads(shell(post))
    posts = json.loads(get("/api/channels/discussion/posts?limit=50"))
    assert posts[0] == posted
    reply = f"""curl -s -X POST "$HUB/api/channels/discussion/posts" \
      -H "Authorization: Bearer $HUB_KEY" -d '{{"content":"yes","parent_id":{posted["id"]}}}'"""
    replied = json.loads(shell(reply))
    assert json.loads(get(f"/api/posts/{posted['id']}/replies")) == [replied]


def test_health_needs_no_key(shell: Shell) -> None:
    assert json.loads(shell('curl -s "$HUB/api/health"')) == {"status": "ok"}
