"""A real-size history pushed whole: the hub's answers agree with C git's."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Hub, WorkTree
from history import grow

from server import wire

SIZES = [1_000, pytest.param(6_000, marks=pytest.mark.stress)]


def sample_size(count: int) -> int:
    return min(500, count // 8)


@pytest.fixture(params=SIZES)
def count(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture
def grown(make_hub: Callable[..., Hub], work_tree: WorkTree, count: int) -> Hub:
    """A hub that got a history of `count` commits in one push; `work_tree` is where it is from."""
    hub = make_hub(max_diffs_per_hour=0)
    grow(work_tree.path, count)
    assert hub.agent().push(work_tree.bundle("--branches")).new_commits == count
    return hub


def everything(hub: Hub) -> list[wire.Commit]:
    """Every commit of the log, page by page."""
    found: list[wire.Commit] = []
    http, url = hub.http(), "/api/git/commits?limit=1000"
    while url:
        page = http.get(url)
        found += [wire.Commit.model_validate(each) for each in page.json()]
        url = page.links.get("next", {}).get("url", "")
    return found


def raw(repository: Path, *args: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["git", *args], cwd=repository, input=data, capture_output=True)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout


def test_the_graph_is_the_one_git_sees(grown: Hub, work_tree: WorkTree, count: int) -> None:
    commits = {commit.hash: commit for commit in everything(grown)}
    assert len(commits) == count
    parents = {
        row[0]: row[1:]
        for row in map(str.split, work_tree.git("rev-list", "--all", "--parents").splitlines())
    }
    assert {sha: commit.parents for sha, commit in commits.items()} == parents
    trees = dict(
        line.split() for line in work_tree.git("log", "--all", "--format=%H %T").splitlines()
    )
    assert {sha: commit.tree for sha, commit in commits.items()} == trees
    inner = {parent for row in parents.values() for parent in row}
    assert {commit.hash for commit in grown.agent().leaves()} == parents.keys() - inner
    for commit in commits.values():
        above = [commits[parent].generation for parent in commit.parents]
        assert commit.generation == 1 + max(above, default=0)


def test_children_and_lineage_are_those_git_sees(
    grown: Hub, work_tree: WorkTree, count: int
) -> None:
    agent = grown.agent()
    children = {
        row[0]: set(row[1:])
        for row in map(str.split, work_tree.git("rev-list", "--all", "--children").splitlines())
    }
    for sha in random.Random(2).sample(sorted(children), sample_size(count)):
        assert {child.hash for child in agent.children(sha)} == children[sha]
    for sha in random.Random(3).sample(sorted(children), 50):
        lineage = [commit.hash for commit in agent.lineage(sha)]
        assert lineage == work_tree.git("rev-list", "--first-parent", sha).splitlines()


def test_diffs_are_gits_or_do_the_same(grown: Hub, work_tree: WorkTree, count: int) -> None:
    agent, dice = grown.agent(), random.Random(4)
    hashes = work_tree.git("rev-list", "--all").splitlines()
    same = 0
    for sha in dice.sample(hashes, sample_size(count)):
        old = work_tree.git("rev-list", "-1", f"{sha}^@") if dice.random() < 0.5 else ""
        old = old or dice.choice(hashes)
        ours = agent.diff(old, sha)
        # Git abbreviates the hashes of files the less, the more objects its repository has.
        flags = ("-c", "core.abbrev=7", "diff", "--no-renames", "--no-indent-heuristic")
        theirs = raw(work_tree.path, *flags, old, sha)
        same += ours == theirs
        if ours != theirs:
            check_patch(work_tree.path, ours, theirs, old, sha)
    # Where several shortest diffs exist, git may prefer another one.
    print(f"{same} of {sample_size(count)} diffs are git's to the byte")
    assert same > sample_size(count) * 0.9


def check_patch(repository: Path, ours: bytes, theirs: bytes, old: str, new: str) -> None:
    """What is not git's own text names the same files and makes the same tree."""
    heads = [
        [
            line
            for line in diff.split(b"\n")
            if line.startswith((b"diff --git", b"index", b"Binary"))
        ]
        for diff in (ours, theirs)
    ]
    assert heads[0] == heads[1]
    if b"\nBinary files" not in ours:
        raw(repository, "read-tree", old)
        raw(repository, "apply", "--cached", data=ours)
        assert raw(repository, "write-tree") == raw(repository, "rev-parse", f"{new}^{{tree}}")


def test_a_clone_of_what_the_hub_serves_is_whole(
    grown: Hub, work_tree: WorkTree, make_work_tree: Callable[[str], WorkTree], tmp_path: Path
) -> None:
    tip = max(grown.agent().leaves(), key=lambda commit: commit.generation)
    grown.agent().fetch(tip.hash, tmp_path / "served.bundle")
    other = make_work_tree("other")
    other.git("fetch", "--quiet", str(tmp_path / "served.bundle"), "HEAD:refs/heads/got")
    other.git("fsck", "--full", "--strict")
    for what in ("--parents", "--objects"):
        theirs = sorted(other.git("rev-list", what, tip.hash).splitlines())
        assert theirs == sorted(work_tree.git("rev-list", what, tip.hash).splitlines())


def test_the_same_history_in_many_pushes_ends_as_the_same_graph(
    make_hub: Callable[..., Hub], work_tree: WorkTree
) -> None:
    grow(work_tree.path, 300, seed=5)
    hub = make_hub(max_pushes_per_hour=0)
    dice = random.Random(6)
    branches = [f"b{number}" for number in range(1, 301)]
    # Parents arrive in the same push, in an earlier one, or both.
    while branches:
        some = [branches.pop(dice.randrange(len(branches))) for _ in range(min(7, len(branches)))]
        hub.agent().push(work_tree.bundle(*some))
    listed = {commit.hash: commit.parents for commit in everything(hub)}
    rows = map(str.split, work_tree.git("rev-list", "--all", "--parents").splitlines())
    assert listed == {row[0]: row[1:] for row in rows}
    counts = {commit.hash: commit.child_count for commit in everything(hub)}
    rows = map(str.split, work_tree.git("rev-list", "--all", "--children").splitlines())
    assert counts == {row[0]: len(row) - 1 for row in rows}
