"""Pushes and the DAG over HTTP: every commit indexed, nothing of a refused push left behind."""

import itertools
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Clock, Hub, HubProcess, WorkTree, listing, uploads, wait_for

from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import wire

MakeWorkTree = Callable[[str], WorkTree]


def push(hub: Hub, bundle: Path, name: str = "ada") -> wire.Pushed:
    return hub.agent(name).push(bundle)


# Push -------------------------------------------------------------------------------------------


def test_a_push_answers_the_bundles_heads(hub: Hub, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    answer = hub.http().post("/api/git/push", content=work_tree.bundle().read_bytes())
    assert answer.status_code == 201
    assert answer.json()["hashes"] == [tip]


def test_one_commit_named_by_two_refs_is_answered_twice(hub: Hub, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    assert push(hub, work_tree.bundle("HEAD", "main")).hashes == [tip, tip]


def test_pushing_what_is_known_changes_nothing(hub: Hub, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    bundle = work_tree.bundle()
    push(hub, bundle)
    again = push(hub, bundle, "bob")
    assert (again.hashes, again.new_commits) == ([tip], 0)
    assert hub.agent().commit(tip).agent_id == "ada"


def test_every_commit_between_is_indexed(hub: Hub, work_tree: WorkTree) -> None:
    hashes = [work_tree.commit(f"step {number}") for number in range(5)]
    assert push(hub, work_tree.bundle()).new_commits == 5
    agent = hub.agent()
    assert [commit.hash for commit in agent.commits()] == hashes[::-1]
    assert [commit.hash for commit in agent.lineage(hashes[-1])] == hashes[::-1]
    assert [commit.hash for commit in agent.children(hashes[0])] == [hashes[1]]
    assert [commit.hash for commit in agent.leaves()] == [hashes[-1]]


def test_a_commit_has_the_originals_fields_first(hub: Hub, work_tree: WorkTree) -> None:
    root = work_tree.commit("the subject\n\nthe body")
    tip = work_tree.commit("second")
    push(hub, work_tree.bundle())
    commit = hub.http().get(f"/api/git/commits/{root}").json()
    assert list(commit)[:5] == ["hash", "parent_hash", "agent_id", "message", "created_at"]
    assert (commit["parent_hash"], commit["message"]) == ("", "the subject")
    assert commit["created_at"] == "2026-03-09T19:29:59Z"
    child = hub.agent().commit(tip)
    assert (child.parent_hash, child.parents, child.generation) == (root, [root], 2)


def test_a_thin_push_needs_its_prerequisite(hub: Hub, work_tree: WorkTree) -> None:
    root = work_tree.commit("root")
    whole = work_tree.bundle()
    base = whole.read_bytes()
    tip = work_tree.commit("tip")
    thin = work_tree.bundle("main", f"^{root}")
    with pytest.raises(ApiError) as refusal:
        push(hub, thin)
    assert (refusal.value.status, refusal.value.code) == (
        409,
        wire.ErrorCode.MISSING_PREREQUISITE,
    )
    assert refusal.value.subjects == [root]
    hub.http().post("/api/git/push", content=base)
    assert push(hub, thin).hashes == [tip]


def test_a_child_pushed_later_takes_its_parent_off_the_leaves(
    hub: Hub, work_tree: WorkTree
) -> None:
    root = work_tree.commit("root")
    push(hub, work_tree.bundle())
    tip = work_tree.commit("tip")
    push(hub, work_tree.bundle())
    assert [commit.hash for commit in hub.agent().leaves()] == [tip]
    assert hub.agent().commit(root).child_count == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"# v2 git bundle\n", b"# v9 git bundle\n\nPACK", b"\x00" * 1000],
    ids=["empty", "garbage", "header-only", "unknown-version", "zeros"],
)
def test_a_garbage_bundle_is_refused_and_leaves_nothing(hub: Hub, body: bytes) -> None:
    http = hub.http()
    before = listing(hub.data / "repo.git")
    answer = http.post("/api/git/push", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_bundle")
    assert listing(hub.data / "repo.git") == before
    assert not uploads(hub.data)


def test_a_truncated_bundle_is_refused_and_leaves_nothing(hub: Hub, work_tree: WorkTree) -> None:
    work_tree.commit()
    body = work_tree.bundle().read_bytes()
    http = hub.http()
    before = listing(hub.data / "repo.git")
    for cut in range(0, len(body), 13):
        assert http.post("/api/git/push", content=body[:cut]).status_code == 400
    assert listing(hub.data / "repo.git") == before


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
def test_an_oversize_body_is_a_413(make_hub: Callable[..., Hub], announced: bool) -> None:
    hub = make_hub(max_bundle_mb=1)
    body = b"x" * (2**20 + 1)
    answer = hub.http().post("/api/git/push", content=body if announced else iter([body]))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert not uploads(hub.data)


def test_a_hundred_pushes_an_hour(
    make_hub: Callable[..., Hub], work_tree: WorkTree, clock: Clock
) -> None:
    hub = make_hub(max_pushes_per_hour=2)
    work_tree.commit()
    bundle = work_tree.bundle()
    push(hub, bundle)
    push(hub, bundle)
    with pytest.raises(ApiError) as refusal:
        push(hub, bundle)
    assert refusal.value.status == 429
    clock.advance(hours=1, minutes=1)
    assert push(hub, bundle)


# Hashes -----------------------------------------------------------------------------------------


def test_a_unique_prefix_names_its_commit_everywhere(hub: Hub, work_tree: WorkTree) -> None:
    root, tip = work_tree.commit("root"), work_tree.commit("tip")
    push(hub, work_tree.bundle())
    http = hub.http()
    for digits in (4, 7, 12, 40):
        short = tip[:digits]
        for path in ("", "/children", "/lineage"):
            assert http.get(f"/api/git/commits/{short}{path}").status_code == 200
        assert http.get(f"/api/git/fetch/{short}").status_code == 200
        assert http.get(f"/api/git/diff/{root[:digits]}/{short}").status_code == 200


def test_an_ambiguous_prefix_is_a_409_that_names_the_candidates(
    hub: Hub, work_tree: WorkTree
) -> None:
    # 4 hex digits: among 600 commits two share a prefix with near certainty.
    lines = ["reset refs/heads/many"]
    for number in range(600):
        lines += [
            "commit refs/heads/many",
            f"committer A <a@b> {number} +0000",
            f"data {len(str(number))}",
            str(number),
        ]
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=work_tree.path,
        input="\n".join(lines).encode() + b"\n",
        check=True,
    )
    hub.agent().push(work_tree.bundle("many"))
    hashes = sorted(work_tree.git("rev-list", "many").splitlines())
    twins = next(pair for pair in itertools.pairwise(hashes) if pair[0][:4] == pair[1][:4])
    answer = hub.http().get(f"/api/git/commits/{twins[0][:4]}")
    assert (answer.status_code, answer.json()["code"]) == (409, "ambiguous_hash")
    assert set(answer.json()["subjects"]) <= set(hashes)


@pytest.mark.parametrize(
    "path", ["commits/{}", "commits/{}/children", "commits/{}/lineage", "fetch/{}", "diff/{}/{}"]
)
def test_bad_hashes_are_400_and_unknown_ones_404(hub: Hub, path: str) -> None:
    http = hub.http()
    for bad in ("abc", "xyzw", "A" * 40, "g" * 40, "a" * 65):
        answer = http.get("/api/git/" + path.format(bad, bad))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_hash"), bad
    for unknown in ("abcd", "a" * 40, "a" * 64):
        answer = http.get("/api/git/" + path.format(unknown, unknown))
        assert (answer.status_code, answer.json()["error"]) == (404, "commit not found"), unknown


# Fetch and diff ---------------------------------------------------------------------------------


def test_git_verifies_and_fetches_the_bundles_we_serve(
    hub: Hub, work_tree: WorkTree, make_work_tree: MakeWorkTree, tmp_path: Path
) -> None:
    hashes = [work_tree.commit(f"step {number}") for number in range(4)]
    push(hub, work_tree.bundle())
    other, bundle = make_work_tree("other"), tmp_path / "served.bundle"
    hub.agent().fetch(hashes[2], bundle)
    other.git("bundle", "verify", str(bundle))
    other.git("bundle", "unbundle", str(bundle))
    assert other.git("rev-list", hashes[2]).splitlines() == hashes[2::-1]
    another = make_work_tree("another")
    another.git("fetch", "--quiet", str(bundle))
    assert another.git("rev-parse", "FETCH_HEAD") == hashes[2]


def test_fetch_answers_like_a_file(hub: Hub, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    push(hub, work_tree.bundle())
    http = hub.http()
    whole = http.get(f"/api/git/fetch/{tip}")
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert whole.headers["Content-Disposition"] == f"attachment; filename={tip}.bundle"
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    part = http.get(f"/api/git/fetch/{tip}", headers={"Range": "bytes=2-9"})
    assert (part.status_code, part.content) == (206, whole.content[2:10])
    assert not uploads(hub.data)


def test_diff_is_gits_unified_text(hub: Hub, work_tree: WorkTree) -> None:
    old = work_tree.commit("old", train_py="LR = 0.1\n")
    new = work_tree.commit("new", train_py="LR = 0.2\n")
    push(hub, work_tree.bundle())
    answer = hub.http().get(f"/api/git/diff/{old}/{new}")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "-LR = 0.1\n+LR = 0.2\n" in answer.text
    assert answer.text.startswith("diff --git a/train.py b/train.py")
    assert hub.http().get(f"/api/git/diff/{old}/{old}").content == b""


def test_sixty_diffs_an_hour(make_hub: Callable[..., Hub], work_tree: WorkTree) -> None:
    hub = make_hub(max_diffs_per_hour=1)
    tip = work_tree.commit()
    push(hub, work_tree.bundle())
    hub.agent().diff(tip, tip)
    assert hub.http().get(f"/api/git/diff/{tip}/{tip}").status_code == 429


# Log --------------------------------------------------------------------------------------------


def test_log_filters_by_agent_and_pages(
    hub: Hub, work_tree: WorkTree, make_work_tree: MakeWorkTree
) -> None:
    mine = [work_tree.commit(f"mine {number}") for number in range(5)]
    push(hub, work_tree.bundle())
    other = make_work_tree("other")
    theirs = other.commit("theirs")
    push(hub, other.bundle(), "bob")
    agent, http = hub.agent(), hub.http()
    assert [commit.hash for commit in agent.commits(agent="bob")] == [theirs]
    assert [commit.hash for commit in agent.commits(limit=2)] == [theirs, mine[4]]
    seen, url = [], "/api/git/commits?limit=4"
    while url:
        page = http.get(url)
        seen += [commit["hash"] for commit in page.json()]
        url = page.links.get("next", {}).get("url", "")
    assert seen == [theirs, *mine[::-1]]


def test_an_empty_hub_answers_empty_lists(hub: Hub) -> None:
    for path in ("commits", "leaves"):
        assert hub.http().get(f"/api/git/{path}").json() == []


def grow(work_tree: WorkTree, count: int) -> None:
    """A random history of `count` commits with merges and octopus merges, by fast-import."""
    dice = random.Random(7)
    lines: list[str] = []
    tips: list[int] = []
    for mark in range(1, count + 1):
        text = f"commit {mark}"
        lines += [
            f"commit refs/heads/b{mark}",
            f"mark :{mark}",
            f"committer A <a@b> {1_700_000_000 + dice.randrange(-9999, 9999)} +0000",
            f"data {len(text)}",
            text,
        ]
        parents = dice.sample(tips, min(len(tips), dice.choice([1, 1, 1, 1, 2, 3])))
        if parents and dice.random() > 0.01:
            lines += [f"from :{parents[0]}", *(f"merge :{parent}" for parent in parents[1:])]
        lines += [f"M 100644 inline f{mark % 9}", f"data {len(text)}", text, ""]
        tips = [*tips[-12:], mark]
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=work_tree.path,
        input="\n".join(lines).encode(),
        check=True,
    )


def test_500_commits_with_merges_agree_with_git(hub: Hub, work_tree: WorkTree) -> None:
    grow(work_tree, 500)
    agent = hub.agent()
    assert agent.push(work_tree.bundle("--all")).new_commits == 500
    rows = [line.split() for line in work_tree.git("rev-list", "--all", "--children").splitlines()]
    assert {commit.hash for commit in agent.commits(limit=1000)} == {row[0] for row in rows}
    assert {commit.hash for commit in agent.leaves()} == {row[0] for row in rows if not row[1:]}
    parents = {
        line.split()[0]: line.split()[1:]
        for line in work_tree.git("rev-list", "--all", "--parents").splitlines()
    }
    for row in rows:
        assert {child.hash for child in agent.children(row[0])} == set(row[1:])
    for commit in agent.commits(limit=1000):
        assert commit.parents == parents[commit.hash]
    for row in rows[::25]:
        first_parents = work_tree.git("rev-list", "--first-parent", row[0]).splitlines()
        assert [commit.hash for commit in agent.lineage(row[0])] == first_parents


def test_gc_in_the_hubs_repo_deletes_no_commit(hub: Hub, work_tree: WorkTree) -> None:
    grow(work_tree, 60)
    hub.agent().push(work_tree.bundle("--all"))
    repo = hub.data / "repo.git"
    subprocess.run(["git", "gc", "--quiet", "--prune=now"], cwd=repo, check=True)
    subprocess.run(["git", "fsck", "--full", "--strict"], cwd=repo, check=True)
    for commit in hub.agent().commits(limit=100):
        subprocess.run(["git", "cat-file", "-e", commit.hash], cwd=repo, check=True)
        assert hub.http().get(f"/api/git/fetch/{commit.hash}").status_code == 200


# Under fire -------------------------------------------------------------------------------------


def test_many_pushers_and_fetchers_at_once_lose_nothing(
    live_hub: HubProcess, make_work_tree: MakeWorkTree, tmp_path: Path
) -> None:
    base = make_work_tree("base")
    root = base.commit("root of many")
    with live_hub.client(live_hub.key("many-base")) as client:
        client.push(base.bundle())
    bundles = []
    for number in range(16):
        base.git("checkout", "--quiet", "--detach", root)
        tip = base.commit(f"pusher {number}")
        bundles.append((tip, base.bundle("HEAD").rename(tmp_path / f"{number}.bundle")))

    def work(number: int) -> None:
        tip, bundle = bundles[number]
        with live_hub.client(live_hub.key(f"many-{number}")) as client:
            assert client.push(bundle).hashes == [tip]
            client.fetch(root, tmp_path / f"{number}.root")
            client.fetch(tip, tmp_path / f"{number}.tip")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    with live_hub.client(live_hub.key("many-judge")) as client:
        assert {child.hash for child in client.children(root)} == {tip for tip, _ in bundles}


def test_acknowledged_pushes_survive_kill_dash_nine(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree, tmp_path: Path
) -> None:
    hub = start_hub()
    with hub.client(hub.key("ada")) as client:
        acknowledged = push_until_killed(hub, client, work_tree)
        hub.start()
        listed = {commit.hash for commit in client.commits(limit=1000)}
        assert set(acknowledged) <= listed
        for tip in acknowledged[:: len(acknowledged) // 10]:
            client.fetch(tip, tmp_path / "check.bundle")
            work_tree.git("bundle", "verify", str(tmp_path / "check.bundle"))
        subprocess.run(["git", "fsck", "--full"], cwd=hub.data / "repo.git", check=True)
        work_tree.git("checkout", "--quiet", "--detach", acknowledged[-1])
        assert client.push(work_tree.bundle()).hashes == [acknowledged[-1]]


def push_until_killed(hub: HubProcess, client: HubClient, work_tree: WorkTree) -> list[str]:
    """Push up to 200 commits, one by one; kill -9 the hub in their midst."""
    acknowledged: list[str] = []

    def push_all() -> None:
        for number in range(200):
            tip = work_tree.commit(f"push {number}")
            bundle = work_tree.bundle("main", *([f"^{acknowledged[-1]}"] if acknowledged else []))
            try:
                client.push(bundle)
            except (HubUnreachable, ApiError):
                return
            acknowledged.append(tip)

    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push_all)
        wait_for(lambda: len(acknowledged) >= 60, "60 acknowledged pushes", 60)
        hub.kill()
        pushing.result()
    return acknowledged
