"""The operator's commands on real data directories, this hub's and the original's."""

import copy
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import Result
from conftest import HubProcess, WorkTree, wait_for
from typer.testing import CliRunner

from ah_cli.client import HubClient
from server.__main__ import cli


def agenthub(*args: object, code: int = 0) -> Result:
    """Run the command to its end, which must be this exit code."""
    done = CliRunner().invoke(cli, [*map(str, args)])
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def fsck(data: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        agenthub("fsck", "--data", data, "--json", *flags, code=code).stdout
    )
    return report


def codes(report: dict[str, Any]) -> set[str]:
    return {problem["code"] for problem in report["problems"]}


def sql(data: Path, *statements: str) -> list[tuple[Any, ...]]:
    """As somebody who breaks a database would: without foreign keys."""
    with closing(sqlite3.connect(data / "hub.db")) as file, file:
        return [file.execute(statement).fetchall() for statement in statements][-1]


def grow(work_tree: WorkTree) -> list[str]:
    """A root, two branches of it, their merge, one more: parents before children."""
    root = work_tree.commit("root", train_py="a\n")
    left = work_tree.commit("left", train_py="b\n")
    work_tree.git("checkout", "--quiet", "--detach", root)
    right = work_tree.commit("right", other_py="c\n")
    work_tree.git("merge", "--quiet", "--no-edit", left)
    merge = work_tree.git("rev-parse", "HEAD")
    return [root, left, right, merge, work_tree.commit("tip", other_py="d\n")]


@contextmanager
def serving(data: Path) -> Iterator[HubProcess]:
    hub = HubProcess(data)
    hub.start()
    yield hub
    hub.kill()


def serves_all(client: HubClient, hashes: list[str], tmp_path: Path) -> None:
    """Every commit can be listed and fetched, whole."""
    assert {commit.hash for commit in client.commits(limit=1000)} == set(hashes)
    for leaf in client.leaves():
        client.fetch(leaf.hash, tmp_path / "check.bundle")
        judge = tmp_path / f"judge-{leaf.hash}.git"
        subprocess.run(["git", "init", "--quiet", "--bare", str(judge)], check=True)
        subprocess.run(
            ["git", "fetch", "--quiet", str(tmp_path / "check.bundle"), "HEAD:refs/heads/x"],
            cwd=judge,
            check=True,
        )
        subprocess.run(["git", "fsck", "--full", "--strict"], cwd=judge, check=True)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubProcess, WorkTree]:
    work_tree = WorkTree(tmp_path_factory.mktemp("pattern") / "work")
    hub = HubProcess(tmp_path_factory.mktemp("pattern") / "hub")
    hub.start()
    with hub.client(hub.key("ada")) as client:
        grow(work_tree)
        client.push(work_tree.bundle())
        client.create_channel("news", "what is new")
        first = client.create_post("news", "first")
        client.create_post("news", "second", first.id)
    hub.stop()
    return hub, work_tree


@pytest.fixture
def work_tree(tmp_path: Path, pattern: tuple[HubProcess, WorkTree]) -> WorkTree:
    """What `stopped_hub` was pushed from."""
    own = copy.copy(pattern[1])
    own.path = shutil.copytree(pattern[1].path, tmp_path / "work")
    return own


@pytest.fixture
def stopped_hub(tmp_path: Path, pattern: tuple[HubProcess, WorkTree]) -> Iterator[HubProcess]:
    """A hub that was stopped with a merge, a channel and a reply in it."""
    hub = HubProcess(shutil.copytree(pattern[0].data, tmp_path / "stopped"))
    yield hub
    hub.kill()


# fsck -------------------------------------------------------------------------------------------


def test_a_healthy_hub_is_clean_running_or_not(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree
) -> None:
    hub = start_hub()
    assert fsck(hub.data)["ok"]
    with hub.client(hub.key("ada")) as client:
        client.push(work_tree.bundle())
    report = fsck(hub.data, "--full")
    assert (report["ok"], report["commits"], report["adoptable"]) == (True, 5, [])
    hub.kill()
    assert fsck(hub.data)["ok"]


def test_fsck_does_not_write(stopped_hub: HubProcess) -> None:
    def listing() -> dict[str, int]:
        files = (path for path in stopped_hub.data.rglob("*") if path.is_file())
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = listing()
    fsck(stopped_hub.data)
    assert listing() == before


def test_wrong_counts_are_found_and_mended(stopped_hub: HubProcess) -> None:
    sql(stopped_hub.data, "UPDATE commits SET generation = 9, child_count = 7 WHERE seq = 2")
    report = fsck(stopped_hub.data, code=1)
    assert codes(report) == {"generation", "child_count"}
    assert all(problem["is_repairable"] for problem in report["problems"])
    assert fsck(stopped_hub.data, "--repair")["repaired"]
    assert sql(stopped_hub.data, "SELECT generation, child_count FROM commits WHERE seq = 2") == [
        (2, 1)
    ]


@pytest.mark.parametrize("message", ["root", "left", "merge", "tip"])
def test_a_lost_row_comes_back_as_it_was(
    stopped_hub: HubProcess, work_tree: WorkTree, message: str
) -> None:
    name = "Merge%" if message == "merge" else message
    everything = "SELECT * FROM commits ORDER BY seq"
    before = sql(stopped_hub.data, everything)
    sql(stopped_hub.data, f"DELETE FROM commits WHERE message LIKE '{name}'")
    assert "unindexed" in codes(fsck(stopped_hub.data, code=1))
    assert fsck(stopped_hub.data, "--repair")["ok"]
    after = sql(stopped_hub.data, everything)
    assert after == before


def test_lost_parents_and_messages_come_back(stopped_hub: HubProcess) -> None:
    rows = "SELECT * FROM commit_parents, commits ORDER BY 1, 2, 4"
    before = sql(stopped_hub.data, rows)
    sql(
        stopped_hub.data,
        "DELETE FROM commit_parents WHERE position = 1",
        "UPDATE commits SET message = 'forged' WHERE seq = 1",
    )
    assert {"parents", "message"} <= codes(fsck(stopped_hub.data, code=1))
    assert fsck(stopped_hub.data, "--repair")["ok"]
    assert sql(stopped_hub.data, rows) == before


def test_an_index_that_was_lost_whole_is_rebuilt(
    stopped_hub: HubProcess, work_tree: WorkTree, tmp_path: Path
) -> None:
    sql(stopped_hub.data, "DELETE FROM commit_parents", "DELETE FROM commits")
    fsck(stopped_hub.data, code=1)
    assert fsck(stopped_hub.data, "--repair")["commits"] == 5
    stopped_hub.start()
    hashes = work_tree.git("rev-list", "HEAD").split()
    with stopped_hub.client(stopped_hub.key("bob")) as client:
        serves_all(client, hashes, tmp_path)
    assert sql(stopped_hub.data, "SELECT DISTINCT agent_id FROM commits") == [("ada",)]


def test_what_a_crash_left_is_no_fault_and_can_be_adopted(
    stopped_hub: HubProcess, work_tree: WorkTree
) -> None:
    work_tree.commit("never acknowledged", train_py="e\n")
    repo = stopped_hub.data / "repo.git"
    subprocess.run(["git", "fetch", "--quiet", str(work_tree.path), "HEAD"], cwd=repo, check=True)
    tip = work_tree.git("rev-parse", "HEAD")
    report = fsck(stopped_hub.data)
    assert (report["ok"], report["adoptable"]) == (True, [tip])
    assert fsck(stopped_hub.data, "--repair")["commits"] == 6
    newest = "SELECT hash, agent_id FROM commits ORDER BY seq DESC LIMIT 1"
    assert sql(stopped_hub.data, newest) == [(tip, None)]
    ref = f"refs/agenthub/heads/{tip}"
    subprocess.run(["git", "show-ref", "--verify", ref], cwd=repo, check=True)


def test_missing_and_damaged_objects_are_named(
    stopped_hub: HubProcess, work_tree: WorkTree
) -> None:
    objects = stopped_hub.data / "repo.git" / "objects"
    tree = work_tree.git("rev-parse", "HEAD^{tree}")
    blob = work_tree.git("rev-parse", "HEAD:train.py")
    (objects / tree[:2] / tree[2:]).unlink()
    assert tree in str(fsck(stopped_hub.data, code=1)["problems"])
    other = work_tree.git("hash-object", "-w", str(work_tree.path / "other.py"))
    file = objects / blob[:2] / blob[2:]
    file.chmod(0o644)
    file.write_bytes((work_tree.path / ".git/objects" / other[:2] / other[2:]).read_bytes())
    assert blob not in str(fsck(stopped_hub.data, code=1)["problems"])
    assert blob in str(fsck(stopped_hub.data, "--full", code=1)["problems"])
    assert not fsck(stopped_hub.data, "--repair", code=1)["ok"]


def test_a_leaf_that_git_would_drop_is_found_and_kept(stopped_hub: HubProcess) -> None:
    heads = stopped_hub.data / "repo.git" / "refs" / "agenthub" / "heads"
    shutil.rmtree(heads)
    assert codes(fsck(stopped_hub.data, code=1)) == {"unkept"}
    assert fsck(stopped_hub.data, "--repair")["ok"]
    assert len(list(heads.iterdir())) == 1


def test_rows_that_hang_in_the_air_are_found(stopped_hub: HubProcess) -> None:
    sql(stopped_hub.data, "UPDATE posts SET parent_id = 999 WHERE parent_id IS NOT NULL")
    report = fsck(stopped_hub.data, code=1)
    assert codes(report) == {"dangling"}
    assert "posts" in report["problems"][0]["message"]


def test_fsck_of_no_hub_is_refused_with_a_hint(tmp_path: Path) -> None:
    done = agenthub("fsck", "--data", tmp_path, code=1)
    assert "hub.db" in done.stderr and "hint:" in done.stderr
    assert not list(tmp_path.iterdir())


# backup and restore -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy", "copy.tar", "copy.tar.gz", "copy.tgz"])
def test_a_restored_hub_is_the_same_hub(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree, tmp_path: Path, name: str
) -> None:
    hub = start_hub(admin_key="")
    hub.admin_key = hub.greeting.split("): ")[1].split()[0]
    key = hub.key("ada")
    hashes = work_tree.git("rev-list", "HEAD").split()
    with hub.client(key) as client:
        client.push(work_tree.bundle())
        client.create_channel("news", "")
        client.create_post("news", "hello")
    agenthub("backup", tmp_path / name, "--data", hub.data)
    hub.stop()
    shutil.rmtree(hub.data)
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    agenthub("restore", tmp_path / name, "--data", hub.data)
    assert (hub.data / "admin.key").stat().st_mode & 0o777 == 0o600
    assert (hub.data / "hub.db").stat().st_mode & 0o777 == 0o600
    hub.start()
    with hub.client(key) as client:
        serves_all(client, hashes, tmp_path)
        assert [post.content for post in client.posts("news")] == ["hello"]
        work_tree.commit("after", train_py="x\n")
        client.push(work_tree.bundle())
    hub.key("bob")
    assert fsck(hub.data)["ok"]


def test_a_backup_during_200_pushes_is_consistent(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree, tmp_path: Path
) -> None:
    hub = start_hub()
    pushed: list[str] = []

    def push_all(client: HubClient) -> None:
        for number in range(200):
            tip = work_tree.commit(f"push {number}")
            client.push(work_tree.bundle("HEAD", *([f"^{pushed[-1]}"] if pushed else [])))
            pushed.append(tip)
            if number % 60 == 30:
                subprocess.run(["git", "repack", "-adq"], cwd=hub.data / "repo.git", check=True)

    work_tree.git("checkout", "--quiet", "--orphan", "fresh")
    with hub.client(hub.key("ada")) as client, ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push_all, client)
        for number in (1, 2):
            wait_for(lambda: len(pushed) > 40 * number, "some pushes", 120)  # noqa: B023
            agenthub("backup", tmp_path / f"{number}.tar", "--data", hub.data)
        pushing.result()
    hub.stop()
    agenthub("restore", tmp_path / "1.tar", "--data", tmp_path / "new")
    report = fsck(tmp_path / "new", "--full")
    assert report["ok"] and 40 < report["commits"] < 200
    with serving(tmp_path / "new") as copy, copy.client(copy.key("judge")) as client:
        serves_all(client, pushed[: report["commits"]], tmp_path)


def test_nothing_is_overwritten(stopped_hub: HubProcess, tmp_path: Path) -> None:
    agenthub("backup", tmp_path / "copy", "--data", stopped_hub.data)
    agenthub("backup", tmp_path / "copy.tar", "--data", stopped_hub.data)
    for name in ("copy", "copy.tar"):
        done = agenthub("backup", tmp_path / name, "--data", stopped_hub.data, code=1)
        assert "hint:" in done.stderr
    done = agenthub("restore", tmp_path / "copy", "--data", stopped_hub.data, code=1)
    assert "not empty" in done.stderr
    agenthub("backup", stopped_hub.data / "inside", "--data", stopped_hub.data, code=1)
    assert not (stopped_hub.data / "inside").exists()


@pytest.mark.parametrize("kind", ["outside", "absolute", "symlink", "garbage", "cut"])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    stopped_hub: HubProcess, tmp_path: Path, kind: str
) -> None:
    archive = tmp_path / "bad.tar"
    agenthub("backup", archive, "--data", stopped_hub.data)
    if kind == "garbage":
        archive.write_bytes(b"no archive")
    elif kind == "cut":
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    else:
        with tarfile.open(archive, "a") as tar:
            names = {"outside": "../outside", "absolute": str(tmp_path / "outside")}
            member = tarfile.TarInfo(names.get(kind, "link"))
            if kind == "symlink":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(member)
    target = tmp_path / "new"
    agenthub("restore", archive, "--data", target, code=0 if kind == "absolute" else 1)
    assert not (tmp_path / "outside").exists()
    assert kind == "absolute" or not target.exists()


def killed_midway(command: list[object], is_midway: Callable[[], bool]) -> None:
    """kill -9 the command as soon as it is in its middle."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(is_midway, "the command's middle")
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL


def many_commits(hub: HubProcess, work_tree: WorkTree) -> None:
    for number in range(60):
        work_tree.commit(f"commit {number}", train_py=os.urandom(2000).hex())
    hub.start()
    with hub.client(hub.key("bulk")) as client:
        client.push(work_tree.bundle())
    hub.stop()


def test_a_killed_backup_leaves_nothing_that_looks_whole(
    stopped_hub: HubProcess, work_tree: WorkTree, tmp_path: Path
) -> None:
    many_commits(stopped_hub, work_tree)
    for name in ("copy", "copy.tar.gz"):
        target = tmp_path / name
        work = target / ".unfinished" if name == "copy" else tmp_path / f"{name}.unfinished"
        killed_midway(["backup", target, "--data", stopped_hub.data], work.exists)
        assert name == "copy" or not target.exists()
        if name == "copy":
            done = agenthub("restore", target, "--data", tmp_path / "new", code=1)
            assert "unfinished" in done.stderr
        agenthub("backup", target, "--data", stopped_hub.data)
        assert not work.exists()


def test_a_killed_restore_is_told_and_starts_afresh(
    stopped_hub: HubProcess, work_tree: WorkTree, tmp_path: Path
) -> None:
    many_commits(stopped_hub, work_tree)
    agenthub("backup", tmp_path / "copy.tar", "--data", stopped_hub.data)
    new = tmp_path / "new"
    restore = ["restore", tmp_path / "copy.tar", "--data", new]
    killed_midway(restore, (new / ".unfinished").exists)
    assert not (new / "hub.db").exists()
    for command in ("serve", "fsck", "migrate", "invite"):
        assert "unfinished" in agenthub(command, "--data", new, code=1).stderr
    agenthub(*restore)
    assert fsck(new)["ok"]


# import -----------------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE agents (id TEXT PRIMARY KEY, api_key TEXT UNIQUE NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE commits (hash TEXT PRIMARY KEY, parent_hash TEXT,
  agent_id TEXT REFERENCES agents(id), message TEXT,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE channels (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL,
  description TEXT DEFAULT '', created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE posts (id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id INTEGER NOT NULL REFERENCES channels(id),
  agent_id TEXT NOT NULL REFERENCES agents(id), parent_id INTEGER REFERENCES posts(id),
  content TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE rate_limits (agent_id TEXT NOT NULL, action TEXT NOT NULL,
  window_start TIMESTAMP NOT NULL, count INTEGER DEFAULT 1,
  PRIMARY KEY (agent_id, action, window_start));
"""
KEYS = {"ada": "a" * 64, "bob": "b" * 64, "Grace Hopper!": "c" * 64}


@dataclass
class Old:
    """A data directory as the original leaves it: a pack for each push, no refs, WAL mode."""

    folder: Path
    work_tree: WorkTree

    def __post_init__(self) -> None:
        subprocess.run(["git", "init", "-q", "--bare", str(self.folder / "repo.git")], check=True)
        self.sql("PRAGMA journal_mode = WAL")
        with closing(sqlite3.connect(self.folder / "agenthub.db")) as db:
            db.executescript(SCHEMA)
        for name, key in KEYS.items():
            self.sql("INSERT INTO agents VALUES (?, ?, '2026-01-01 08:00:00')", name, key)

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.folder / "agenthub.db")) as db, db:
            db.execute(statement, values)

    def push(self, revision: str, agent: str | None, minute: int, parent: str = "") -> str:
        """The whole history each time, of which only the head is indexed."""
        bundle = self.work_tree.bundle("HEAD")
        subprocess.run(
            ["git", "-c", "fetch.unpackLimit=1", "bundle", "unbundle", str(bundle)],
            cwd=self.folder / "repo.git",
            check=True,
            stdout=subprocess.DEVNULL,
        )
        sha = self.work_tree.git("rev-parse", revision)
        moment = f"2026-01-02 09:{minute:02}:00"
        row = (sha, parent, agent, "m", moment)
        self.sql("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", *row)
        return sha


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "old", WorkTree(tmp_path / "oldwork"))


@pytest.fixture
def grown(old: Old) -> tuple[Old, list[str]]:
    """Three pushes: a root; a merge whose second parent was dropped; one by a strange name."""
    work = old.work_tree
    root = work.commit("root", train_py="a\n")
    old.push("HEAD", "ada", 1)
    left = work.commit("left", train_py="b\n")
    work.git("checkout", "--quiet", "--detach", root)
    right = work.commit("right", other_py="c\n")
    work.git("merge", "--quiet", "--no-edit", left)
    merge = old.push("HEAD", "bob", 2, right)
    tip = work.commit("tip", other_py="d\n")
    old.push("HEAD", "Grace Hopper!", 3, merge)
    return old, [root, left, right, merge, tip]


def imported(old: Old, target: Path) -> dict[str, Any]:
    done = agenthub("import", old.folder, "--data", target, "--json")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_the_originals_hub_goes_on_here(grown: tuple[Old, list[str]], tmp_path: Path) -> None:
    old, (root, left, right, merge, tip) = grown
    old.sql("INSERT INTO channels VALUES (3, 'news', 'what is new', '2026-01-01 10:00:00')")
    post = "INSERT INTO posts VALUES (?, 3, 'ada', ?, ?, '2026-01-01 11:00:00')"
    old.sql(post, 7, None, "first")
    old.sql(post, 9, 7, "a reply")
    before = {path: path.stat().st_mtime_ns for path in old.folder.rglob("*")}
    summary = imported(old, tmp_path / "new")
    assert {path: path.stat().st_mtime_ns for path in old.folder.rglob("*")} == before
    assert (summary["agents"], summary["history"]["commits"], summary["posts"]) == (3, 5, 2)
    assert summary["renamed"] == {"Grace Hopper!": "Grace-Hopper-"}
    assert summary["history"]["refused"] == {} and summary["notes"] == []
    assert fsck(tmp_path / "new", "--full")["ok"]
    with serving(tmp_path / "new") as hub, hub.client(KEYS["bob"]) as client:
        assert client.whoami().id == "bob"
        serves_all(client, [root, left, right, merge, tip], tmp_path)
        assert client.commit(merge).parents == [right, left]
        assert {child.hash for child in client.children(root)} == {left, right}
        by = {commit.hash: commit.agent_id for commit in client.commits()}
        assert by == {root: "ada", left: "", right: "", merge: "bob", tip: "Grace-Hopper-"}
        assert [commit.hash for commit in client.commits()][:2] == [tip, merge]
        assert client.commit(left).created_at == client.commit(merge).created_at
        assert client.commit(root).created_at.isoformat() == "2026-01-02T09:01:00+00:00"
        assert [post.content for post in client.replies(7)] == ["a reply"]
        assert client.post(9).parent_id == 7
        with urlopen(f"{hub.url}/posts/9") as page:
            assert b'id="post-7"' in page.read()
        assert client.create_post("news", "new").id == 10
    assert KEYS["ada"].encode() not in (tmp_path / "new" / "hub.db").read_bytes()


def test_what_is_wrong_in_the_original_is_told_and_the_rest_comes(
    grown: tuple[Old, list[str]], tmp_path: Path
) -> None:
    old, hashes = grown
    work = old.work_tree
    insert = "INSERT INTO commits (hash, agent_id) VALUES (?, 'ada')"
    tree = work.git("rev-parse", "HEAD^{tree}")
    work.git("tag", "--annotate", "--message", "x", "v1")
    tag = work.git("rev-parse", "v1")
    repo = old.folder / "repo.git"
    subprocess.run(["git", "fetch", "-q", str(work.path), "refs/tags/v1"], cwd=repo, check=True)
    for sha in (tree, tag, "f" * 40):
        old.sql(insert, sha)
    (work.path / "link").symlink_to("/etc/passwd")
    bad = work.commit("a link to /etc", other_py="e\n")
    after = work.commit("after it", other_py="f\n")
    old.push("HEAD", "carol", 5)
    old.sql("INSERT INTO posts VALUES (1, 99, 'ada', NULL, 'no channel', 'yesterday')")
    summary = imported(old, tmp_path / "new")
    history = summary["history"]
    assert set(history["refused"]) == {tree, "f" * 40, bad, after}
    assert "/etc/passwd" in history["refused"][bad] and bad in history["refused"][after]
    assert history["tags"] == {tag: hashes[-1]}
    assert history["commits"] == 5
    notes = " ".join(summary["notes"])
    assert "post 1" in notes and "carol" in notes and "yesterday" in notes
    assert fsck(tmp_path / "new")["ok"]


def test_a_damaged_pack_costs_nothing_when_another_has_the_objects(
    grown: tuple[Old, list[str]], tmp_path: Path
) -> None:
    old, _ = grown
    packs = sorted(
        (old.folder / "repo.git/objects/pack").glob("*.pack"), key=lambda p: p.stat().st_size
    )
    for pack in packs[:-1]:
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:12] + b"\xff" * (pack.stat().st_size - 12))
    assert imported(old, tmp_path / "new")["history"]["commits"] == 5


def test_a_commit_nobody_names_is_told(grown: tuple[Old, list[str]], tmp_path: Path) -> None:
    old, hashes = grown
    old.sql("DELETE FROM commits WHERE hash = ?", hashes[-1])
    summary = imported(old, tmp_path / "new")
    assert summary["history"]["unreferenced"] == [hashes[-1]]
    assert "nothing names it" in agenthub("import", old.folder, "--data", tmp_path / "b").stdout


def test_an_import_goes_only_into_an_empty_folder(
    grown: tuple[Old, list[str]], tmp_path: Path
) -> None:
    old, _ = grown
    imported(old, tmp_path / "new")
    again = agenthub("import", old.folder, "--data", tmp_path / "new", code=1)
    assert "not empty" in again.stderr
    assert "hint:" in agenthub("import", tmp_path, "--data", tmp_path / "x", code=1).stderr
    assert not (tmp_path / "x").exists()


def test_a_killed_import_starts_afresh(grown: tuple[Old, list[str]], tmp_path: Path) -> None:
    old, _ = grown
    new = tmp_path / "new"
    killed_midway(["import", old.folder, "--data", new], (new / ".unfinished").exists)
    assert not (new / "hub.db").exists()
    assert imported(old, new)["history"]["commits"] == 5


# export -----------------------------------------------------------------------------------------


def test_an_export_holds_everything_but_secrets(
    stopped_hub: HubProcess, work_tree: WorkTree, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    agenthub("export", out, "--data", stopped_hub.data)
    manifest = json.loads((out / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == file["sha256"]
    lines = {path.stem: path.read_text().splitlines() for path in out.glob("*.jsonl")}
    assert {name: len(rows) for name, rows in lines.items()} == {
        name: count for name, count in manifest["counts"].items() if name != "leaves"
    }
    merge = json.loads(lines["commits"][3])
    assert len(merge["parents"]) == 2 and json.loads(lines["posts"][1])["parent_id"] == 1
    assert "key" not in "".join(lines["agents"])
    work_tree.git("bundle", "verify", str(out / "repo.bundle"))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(out / "repo.bundle"), str(clone)], check=True)
    assert work_tree.git("rev-parse", "HEAD") in subprocess.check_output(
        ["git", "rev-parse", "HEAD"], cwd=clone, text=True
    )


def test_an_empty_hub_can_be_exported_and_backed_up(
    start_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    hub = start_hub()
    agenthub("export", tmp_path / "export", "--data", hub.data)
    assert not (tmp_path / "export" / "repo.bundle").exists()
    agenthub("backup", tmp_path / "copy.tar", "--data", hub.data)
    agenthub("restore", tmp_path / "copy.tar", "--data", tmp_path / "new")
    assert fsck(tmp_path / "new")["ok"]
