"""Plain git against a hub: clones and fetches work, pushes are refused, no process is left."""

import base64
import contextlib
import gzip
import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import DEADLINE_SECONDS, Hub, HubProcess, WorkTree, wait_for

MakeWorkTree = Callable[[str], WorkTree]
StartHub = Callable[..., HubProcess]


@dataclass
class Remote:
    """A hub as git's user sees it."""

    hub: HubProcess
    key: str

    @property
    def url(self) -> str:
        return self.with_key(self.key)

    def with_key(self, key: str) -> str:
        return f"{self.hub.url.replace('://', f'://x:{key}@')}/repo.git"

    def push(self, bundle: Path) -> None:
        with self.hub.client(self.key) as client:
            client.push(bundle)


@pytest.fixture
def remote(start_hub: StartHub) -> Remote:
    hub = start_hub()
    return Remote(hub, hub.key("ada"))


@pytest.fixture(scope="module")
def shared(live_hub: HubProcess) -> Remote:
    """A hub with the commits of other tests, for tests that don't look at the frontier."""
    return Remote(live_hub, live_hub.key("cloner"))


def git(*args: str, cwd: Path | None = None, **env: str) -> str:
    """Run git as a user without any configuration; fail with what it says."""
    done = try_git(*args, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def try_git(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return subprocess.run(
        ["git", *args],
        cwd=cwd,
        env={**os.environ, **clean, "GIT_TERMINAL_PROMPT": "0", **env},
        capture_output=True,
        text=True,
    )


def refs(path: Path) -> dict[str, str]:
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=path).splitlines()
    return dict(line.split() for line in lines)


def grow(work_tree: WorkTree, count: int, every: int = 100) -> None:
    """A chain of `count` commits with a branch at each `every`-th, by fast-import."""
    lines: list[str] = []
    for mark in range(1, count + 1):
        branch = f"refs/heads/side{mark}" if mark % every == 0 else "refs/heads/main"
        text = f"LR = {mark}\n" + "".join(f"line {n * mark % 97}\n" for n in range(40))
        lines += [f"commit {branch}", f"mark :{mark}"]
        lines += [f"committer A <a@b> {1_700_000_000 + mark} +0000", f"data {len(str(mark))}"]
        lines += [str(mark)]
        if mark > 1:
            lines += [f"from :{mark - 2 if (mark - 1) % every == 0 else mark - 1}"]
        lines += [f"M 100644 inline f{mark % 9}", f"data {len(text)}", text]
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=work_tree.path,
        input="\n".join(lines).encode(),
        check=True,
    )


def diamond(work_tree: WorkTree) -> dict[str, str]:
    """A root, an inner commit, and two leaves upon it."""
    made = {"root": work_tree.commit("root", train_py="LR = 1\n")}
    made["inner"] = work_tree.commit("inner", train_py="LR = 2\n")
    made["left"] = work_tree.commit("left", train_py="LR = 3\n")
    work_tree.git("checkout", "--quiet", "-b", "other", made["inner"])
    made["right"] = work_tree.commit("right", train_py="LR = 4\n")
    return made


# Clones -----------------------------------------------------------------------------------------


def test_a_clone_has_the_frontier_and_a_checked_out_tree(
    remote: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    made = diamond(work_tree)
    remote.push(work_tree.bundle("main"))
    remote.push(work_tree.bundle("other"))
    origin = "refs/remotes/origin"
    for version in ("0", "1", "2"):
        copy = tmp_path / version
        done = try_git("-c", f"protocol.version={version}", "clone", remote.url, str(copy))
        assert (done.returncode, done.stderr) == (0, f"Cloning into '{copy}'...\n")
        assert refs(copy) == {
            "refs/heads/newest": made["right"],
            f"{origin}/HEAD": made["right"],
            f"{origin}/newest": made["right"],
            f"{origin}/leaf/{made['left']}": made["left"],
            f"{origin}/leaf/{made['right']}": made["right"],
        }
        assert (copy / "train.py").read_text() == "LR = 4\n"
        assert git("status", "--porcelain", cwd=copy) == ""
        git("fsck", "--full", "--strict", cwd=copy)


def test_a_shallow_clone_deepens(remote: Remote, work_tree: WorkTree, tmp_path: Path) -> None:
    made = diamond(work_tree)
    remote.push(work_tree.bundle("--all"))
    for version in ("0", "2"):
        copy, use = tmp_path / version, ("-c", f"protocol.version={version}")
        git(*use, "clone", "--depth", "1", "--no-single-branch", remote.url, str(copy))
        assert set(git("rev-list", "--all", cwd=copy).split()) == {made["left"], made["right"]}
        git(*use, "fetch", "--deepen", "1", cwd=copy)
        assert made["inner"] in git("rev-list", "--all", cwd=copy)
        git(*use, "fetch", "--unshallow", cwd=copy)
        assert set(git("rev-list", "--all", cwd=copy).split()) == set(made.values())


def test_a_partial_clone_gets_files_when_it_needs_them(
    remote: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    made = diamond(work_tree)
    remote.push(work_tree.bundle("--all"))
    copy = tmp_path / "copy"
    git("clone", "--filter=blob:none", "--no-checkout", remote.url, str(copy))
    missing = git("rev-list", "--all", "--objects", "--missing=print", cwd=copy)
    assert missing.count("?") == 4
    assert git("show", f"{made['inner']}:train.py", cwd=copy) == "LR = 2"


def test_a_mirror_follows_the_frontier(remote: Remote, work_tree: WorkTree, tmp_path: Path) -> None:
    made = diamond(work_tree)
    remote.push(work_tree.bundle("main"))
    mirror = tmp_path / "mirror.git"
    git("clone", "--mirror", remote.url, str(mirror))
    assert set(refs(mirror)) == {"refs/heads/newest", f"refs/heads/leaf/{made['left']}"}
    work_tree.git("checkout", "--quiet", "main")
    tip = work_tree.commit("tip")
    remote.push(work_tree.bundle("main", "other"))
    git("remote", "update", "--prune", cwd=mirror)
    assert refs(mirror) == {
        "refs/heads/newest": made["right"],
        f"refs/heads/leaf/{made['right']}": made["right"],
        f"refs/heads/leaf/{tip}": tip,
    }


def test_an_empty_hub_can_be_cloned(remote: Remote, tmp_path: Path) -> None:
    for version in ("0", "2"):
        copy = tmp_path / version
        git("-c", f"protocol.version={version}", "clone", remote.url, str(copy))
        assert refs(copy) == {}


def test_2000_commits_and_their_leaves_arrive_whole(
    remote: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    grow(work_tree, 2000)
    remote.push(work_tree.bundle("--all"))
    copy = tmp_path / "copy"
    git("clone", remote.url, str(copy))
    assert git("rev-list", "--all", cwd=copy) == work_tree.git("rev-list", "--all")
    assert len([name for name in refs(copy) if "/leaf/" in name]) == 20
    git("fsck", "--full", "--strict", cwd=copy)


@pytest.mark.stress
def test_10000_commits_clone_in_seconds(
    remote: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    grow(work_tree, 10_000, every=10)
    remote.push(work_tree.bundle("--all"))
    spent = {}
    for name, options in {
        "all": [],
        "depth 1": ["--depth", "1"],
        "no files": ["--filter=blob:none", "--no-checkout"],
        "version 0": ["-c", "protocol.version=0"],
    }.items():
        start = time.perf_counter()
        git("clone", *options, remote.url, str(tmp_path / name))
        spent[name] = round(time.perf_counter() - start, 2)
    print(spent)
    copy = tmp_path / "all"
    assert git("rev-list", "--all", cwd=copy) == work_tree.git("rev-list", "--all")
    assert spent["all"] < 30


# Fetches ----------------------------------------------------------------------------------------


def test_any_commit_can_be_fetched_by_its_hash(
    shared: Remote, work_tree: WorkTree, make_work_tree: MakeWorkTree
) -> None:
    made = diamond(work_tree)
    shared.push(work_tree.bundle("--all"))
    for version in ("0", "2"):
        for name, sha in made.items():
            other = make_work_tree(f"{name}{version}").path
            git("-c", f"protocol.version={version}", "fetch", shared.url, sha, cwd=other)
            assert git("rev-parse", "FETCH_HEAD", cwd=other) == sha
            assert git("rev-list", sha, cwd=other) == work_tree.git("rev-list", sha)


def test_a_later_fetch_brings_only_what_is_new(
    shared: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    grow(work_tree, 300)
    shared.push(work_tree.bundle("--all"))
    copy = tmp_path / "copy"
    git("clone", shared.url, str(copy))
    work_tree.git("checkout", "--quiet", "main")
    # A file that no other test has pushed to this hub.
    tip = work_tree.commit("tip", train_py="# fetched later\n")
    shared.push(work_tree.bundle("main"))
    before = git("count-objects", cwd=copy).split()[0]
    git("fetch", cwd=copy)
    assert int(git("count-objects", cwd=copy).split()[0]) - int(before) == 3
    assert refs(copy)["refs/remotes/origin/newest"] == tip


def test_what_was_never_pushed_is_refused_in_words(
    shared: Remote, work_tree: WorkTree, make_work_tree: MakeWorkTree
) -> None:
    work_tree.commit()
    shared.push(work_tree.bundle())
    for version in ("0", "2"):
        other = make_work_tree(version).path
        args = ("-c", f"protocol.version={version}", "fetch", shared.url, "1" * 40)
        assert f"remote error: {'1' * 40} is not on this hub" in try_git(*args, cwd=other).stderr


def test_an_object_without_a_row_is_not_served(
    remote: Remote, work_tree: WorkTree, make_work_tree: MakeWorkTree
) -> None:
    root = work_tree.commit()
    remote.push(work_tree.bundle())
    # As a hub leaves it that is killed between making a push durable and indexing it.
    secret = work_tree.commit("never acknowledged")
    repo = remote.hub.data / "repo.git"
    git("fetch", "--quiet", str(work_tree.path), f"{secret}:refs/agenthub/heads/{secret}", cwd=repo)
    other = make_work_tree("other").path
    assert "is not on this hub" in try_git("fetch", remote.url, secret, cwd=other).stderr
    git("fetch", remote.url, root, cwd=other)
    assert secret not in git("ls-remote", remote.url)


def test_8_clones_at_once(shared: Remote, work_tree: WorkTree, tmp_path: Path) -> None:
    grow(work_tree, 300)
    shared.push(work_tree.bundle("--all"))

    def clone(number: int) -> set[str]:
        git("clone", shared.url, str(tmp_path / str(number)))
        return set(git("rev-list", "--all", cwd=tmp_path / str(number)).split())

    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(clone, range(8)))
    assert all(set(work_tree.git("rev-list", "--all").split()) <= copy for copy in copies)


# Refusals ---------------------------------------------------------------------------------------


def test_a_push_by_git_is_refused_and_told_how(shared: Remote, work_tree: WorkTree) -> None:
    work_tree.commit()
    for url in (shared.url, f"{shared.hub.url}/repo.git"):
        refusal = try_git("push", url, "main", cwd=work_tree.path).stderr
        assert "remote: this repository is read-only for git" in refusal
        assert "remote: push with `ah push`" in refusal
        assert "403" in refusal


def test_a_clone_needs_a_key(shared: Remote, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    missing = try_git("clone", f"{shared.hub.url}/repo.git", copy).stderr
    assert "could not read Username" in missing
    wrong = try_git("clone", shared.with_key("wrong"), copy).stderr
    assert "remote: invalid api key" in wrong
    assert "Authentication failed" in wrong
    bearer = f"http.extraHeader=Authorization: Bearer {shared.key}"
    git("-c", bearer, "clone", f"{shared.hub.url}/repo.git", copy)


def test_the_key_is_not_asked_for_in_the_ways_of_browsers_elsewhere(hub: Hub) -> None:
    basic = base64.b64encode(f"x:{hub.key('ada')}".encode()).decode()
    http = hub.http(None)
    answer = http.get("/api/git/leaves", headers={"Authorization": f"Basic {basic}"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    answer = http.get("/repo.git/info/refs?service=git-upload-pack")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    for authorization in ("Basic", "Basic %%%", "Basic /w==", "Digest x", "Basic eDo="):
        headers = {"Authorization": authorization}
        answer = http.get("/repo.git/info/refs?service=git-upload-pack", headers=headers)
        assert answer.status_code == 401, authorization


def test_the_dumb_protocol_is_not_spoken(hub: Hub) -> None:
    for path in ("", "/", "/HEAD", "/info/refs", "/objects/info/packs", "/config"):
        answer = hub.http().get(f"/repo.git{path}")
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_malformed_request_is_a_400(shared: Remote) -> None:
    fetch = b"0011command=fetch0001"
    bad = [b"garbage", b"0003", b"ffff", b"zzzz", b"-001", b"0032want " + b"../" * 13 + b".\n"]
    odd = [b"0014command=ls-refs\n0012command=fetch\n0000", b"0010command=push0000"]
    odd += [fetch + b"000anonsense0000", fetch + b"000adeepen -10000"]
    with httpx.Client(headers={"Authorization": f"Bearer {shared.key}"}) as http:
        for version, bodies in ((0, bad), (2, bad + odd)):
            for body in bodies:
                answer = http.post(
                    f"{shared.hub.url}/repo.git/git-upload-pack",
                    content=body,
                    headers={"Git-Protocol": f"version={version}"},
                )
                assert answer.status_code == 400, (version, body, answer.text)


def test_a_request_that_inflates_too_far_is_a_413(hub: Hub) -> None:
    bomb = gzip.compress(b"0032want" * 2**20)
    small = gzip.compress(b"0000")
    cases = [(bomb, 413), (bomb[:-9], 413), (small[:-9], 400), (small + bytes(2**23), 413)]
    for body, status in cases:
        answer = hub.http().post(
            "/repo.git/git-upload-pack", content=body, headers={"Content-Encoding": "gzip"}
        )
        assert answer.status_code == status
    answer = hub.http().post("/repo.git/git-upload-pack", content=b"0000" * 2**21)
    assert answer.status_code == 413


def test_an_empty_request_tests_the_connection(hub: Hub) -> None:
    answer = hub.http().post("/repo.git/git-upload-pack", content=b"0000")
    assert (answer.status_code, answer.content) == (200, b"")


# Processes --------------------------------------------------------------------------------------


def serving(hub: HubProcess) -> list[str]:
    """Processes that work in this hub's repo."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cwd").readlink() == hub.data / "repo.git":
                found.append(folder.name)
    return found


def clone_and_read_nothing(remote: Remote, sha: str, held: contextlib.ExitStack) -> None:
    """Ask for more than fits into the buffers between us and git, and leave it there."""
    lines = (b"0011command=fetch", b"0001", b"0032want %s\n" % sha.encode(), b"0009done\n", b"0000")
    body = b"".join(lines)
    host, port = remote.hub.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)
    held.callback(connection.close)
    connection.sendall(
        b"POST /repo.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\n"
        b"Authorization: Bearer %s\r\n"
        % remote.key.encode()
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    wait_for(lambda: serving(remote.hub), "git to run")


def push_noise(remote: Remote, work_tree: WorkTree) -> str:
    """A commit of 16 MiB that nothing compresses."""
    (work_tree.path / "noise").write_bytes(os.urandom(2**24))
    sha = work_tree.commit()
    remote.push(work_tree.bundle())
    return sha


def test_a_client_that_goes_leaves_no_process(
    shared: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    large = push_noise(shared, work_tree)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            clone_and_read_nothing(shared, large, held)
    wait_for(lambda: not serving(shared.hub), "git to end")
    git("clone", shared.url, str(tmp_path / "copy"))
    assert not serving(shared.hub)


def test_a_stopping_hub_ends_its_clones(remote: Remote, work_tree: WorkTree) -> None:
    large = push_noise(remote, work_tree)
    with contextlib.ExitStack() as held:
        clone_and_read_nothing(remote, large, held)
        remote.hub.stop()
        assert not serving(remote.hub)


def test_a_failing_git_breaks_the_connection(
    remote: Remote, work_tree: WorkTree, tmp_path: Path
) -> None:
    grow(work_tree, 300)
    remote.push(work_tree.bundle("--all"))
    for pack in (remote.hub.data / "repo.git" / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o644)
        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 2)
            file.write(b"\0" * 64)
    copy = tmp_path / "copy"
    assert try_git("clone", remote.url, str(copy)).returncode != 0
    assert not copy.exists()


# Without C git ----------------------------------------------------------------------------------


@pytest.fixture
def bare_handed(start_hub: StartHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A hub that finds no git."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        hub = start_hub()
    return Remote(hub, hub.key("ada"))


def test_a_hub_without_git_serves_clones_too(
    bare_handed: Remote, work_tree: WorkTree, make_work_tree: MakeWorkTree, tmp_path: Path
) -> None:
    made = diamond(work_tree)
    bare_handed.push(work_tree.bundle("--all"))
    whole, shallow = tmp_path / "whole", tmp_path / "shallow"
    git("clone", bare_handed.url, str(whole))
    assert set(git("rev-list", "--all", cwd=whole).split()) == set(made.values())
    git("fsck", "--full", "--strict", cwd=whole)
    git("clone", "--depth", "1", bare_handed.url, str(shallow))
    assert git("rev-list", "--all", cwd=shallow) == made["right"]
    other = make_work_tree("other").path
    git("fetch", bare_handed.url, made["inner"], cwd=other)
    assert git("rev-list", "FETCH_HEAD", cwd=other).split() == [made["inner"], made["root"]]
    tip = work_tree.commit("tip")
    bare_handed.push(work_tree.bundle())
    git("fetch", cwd=whole)
    assert refs(whole)["refs/remotes/origin/newest"] == tip
    assert "is not on this hub" in try_git("fetch", bare_handed.url, "1" * 40, cwd=other).stderr
