"""The order of lists, and commits that must not disturb it: merges, wild dates, huge texts."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import Clock, Hub, HubProcess, WorkTree
from forge import Forge

from ah_cli.client import HubClient

LATIN = "caf\xe9".encode("latin1")


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(max_pushes_per_hour=0)


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def dated(forge: Forge, subject: str, *parents: str, date: int = 1_700_000_000) -> str:
    head = b"author A <a@b> %d +0000\ncommitter C <c@d> %d +0000\n" % (date, date)
    return forge.commit(forge.tree(), *parents, head=head, tail=f"\n{subject}\n".encode())


def push(client: HubClient, forge: Forge, *heads: str) -> int:
    return client.push(forge.bundle(*heads)).new_commits


def log(hub: Hub, name: str = "ada") -> list[str]:
    return [commit.hash for commit in hub.agent(name).commits(limit=1000)]


# The order --------------------------------------------------------------------------------------


def test_the_log_is_in_order_of_arrival_whatever_the_dates_say(hub: Hub, forge: Forge) -> None:
    dates = [2**40, 0, 2**63 - 1, 1, 1_700_000_000, 2**31, 3, 2**62]
    line = list(
        itertools.accumulate(
            dates,
            lambda tip, date: dated(forge, "x", tip, date=date),
            initial=dated(forge, "root", date=2**33),
        )
    )
    first, second = forge.bundle(line[3]), forge.bundle(line[-1])
    for bundle in (first, second):
        hub.agent().push(bundle)
    assert log(hub) == line[::-1]
    assert [commit.hash for commit in hub.agent().lineage(line[-1])] == line[::-1]
    assert [commit.generation for commit in hub.agent().commits()] == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_a_clock_that_goes_back_does_not_disturb_the_order(
    hub: Hub, forge: Forge, clock: Clock
) -> None:
    root = dated(forge, "root")
    push(hub.agent(), forge, root)
    tips = []
    for number in range(6):
        clock.advance(days=-number)
        tips.append(dated(forge, f"{number}", root))
        push(hub.agent(), forge, tips[-1])
    assert log(hub) == [*tips[::-1], root]
    for commits in (hub.agent().children(root), hub.agent().leaves()):
        assert [commit.hash for commit in commits] == tips[::-1]


def test_parents_are_older_than_their_children_in_every_push(hub: Hub, forge: Forge) -> None:
    root = dated(forge, "root")
    left, right = dated(forge, "left", root), dated(forge, "right", root)
    cross, back = dated(forge, "cross", left, right), dated(forge, "back", right, left)
    late = dated(forge, "late", back, cross)
    assert push(hub.agent(), forge, cross) == 4
    # One parent of `late` is known, the other comes with it.
    assert push(hub.agent(), forge, late) == 2
    order = log(hub)
    assert order[:2] == [late, back]
    assert order[2] == cross
    assert set(order[3:5]) == {left, right}
    assert order[5] == root
    assert hub.agent().commit(back).parents == [right, left]
    assert [commit.hash for commit in hub.agent().lineage(late)] == [late, back, right, root]
    assert [commit.hash for commit in hub.agent().children(left)] == [back, cross]


def test_the_same_bundle_is_listed_in_the_same_order_everywhere(
    hub: Hub, forge: Forge, make_hub: Callable[..., Hub], tmp_path: Path
) -> None:
    root = dated(forge, "root")
    sides = [dated(forge, f"{number}", root, date=number) for number in range(20)]
    bundle = forge.bundle(*sides, dated(forge, "octopus", *sides))
    hub.agent().push(bundle)
    first = log(hub)
    for path in (tmp_path / "data").iterdir():
        path.rename(tmp_path / f"old-{path.name}")
    again = make_hub()
    again.agent().push(bundle)
    assert log(again) == first


def test_octopus_merges_roots_and_empty_commits_keep_every_link(hub: Hub, forge: Forge) -> None:
    roots = [dated(forge, f"root {number}") for number in range(3)]
    push(hub.agent(), forge, roots[1])
    empty = dated(forge, "empty", roots[0])
    octopus = dated(forge, "octopus", roots[2], empty, roots[1])
    push(hub.agent(), forge, octopus)
    commit = hub.agent().commit(octopus)
    assert commit.parents == [roots[2], empty, roots[1]]
    assert (commit.parent_hash, commit.generation) == (roots[2], 3)
    for parent in commit.parents:
        assert [child.hash for child in hub.agent().children(parent)] == [octopus]
    assert [leaf.hash for leaf in hub.agent().leaves()] == [octopus]
    assert [one.hash for one in hub.agent().lineage(octopus)] == [octopus, roots[2]]


# Cursors ----------------------------------------------------------------------------------------


def pages(http: httpx.Client, url: str) -> list[str]:
    found = []
    while url:
        answer = http.get(url)
        assert answer.status_code == 200
        found += [commit["hash"] for commit in answer.json()]
        url = answer.links.get("next", {}).get("url", "")
    return found


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_a_cursor_visits_every_commit_once_and_keeps_the_filter(
    hub: Hub, forge: Forge, limit: int
) -> None:
    ours, theirs, tip = [], [], dated(forge, "root")
    push(hub.agent("bob"), forge, tip)
    theirs.append(tip)
    for number in range(14):
        tip = dated(forge, f"{number}", tip)
        name, those = ("ada", ours) if number % 3 else ("bob", theirs)
        push(hub.agent(name), forge, tip)
        those.append(tip)
    http = hub.http()
    assert len(pages(http, f"/api/git/commits?limit={limit}")) == 15
    assert pages(http, f"/api/git/commits?agent=ada&limit={limit}") == ours[::-1]
    assert pages(http, f"/api/git/commits?agent=bob&limit={limit}") == theirs[::-1]


def test_a_cursor_may_be_a_prefix_and_must_name_a_commit(hub: Hub, forge: Forge) -> None:
    root = dated(forge, "root")
    tip = dated(forge, "tip", root)
    push(hub.agent(), forge, tip)
    http = hub.http()
    assert [one["hash"] for one in http.get(f"/api/git/commits?before={tip[:8]}").json()] == [root]
    assert http.get(f"/api/git/commits?before={root}").json() == []
    for cursor, status in (("12" * 20, 404), ("zz", 400)):
        assert http.get(f"/api/git/commits?before={cursor}").status_code == status


def test_cursors_visit_every_commit_once_while_others_push(
    start_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    live_hub = start_hub()
    keys = [live_hub.key(f"order-{number}") for number in range(4)]
    walks: list[tuple[set[str], list[str]]] = []
    pushed: list[str] = []

    def grow(number: int) -> None:
        forge, tip = Forge(tmp_path / f"{number}"), []
        forge.path.mkdir()
        with live_hub.client(keys[number]) as client:
            for step in range(40):
                tip = [dated(forge, f"{number} {step}", *tip, date=step * 7 % 11)]
                client.push(forge.bundle(*tip))
                pushed.extend(tip)

    def look(pushing: list[Future[None]]) -> None:
        while not all(each.done() for each in pushing):
            before = set(pushed)
            walks.append((before, walk_over(live_hub, keys[0])))

    with ThreadPoolExecutor(4) as pool:
        pushing = [pool.submit(grow, number) for number in range(3)]
        pool.submit(look, pushing).result()
        for each in pushing:
            each.result()
    final = walk_over(live_hub, keys[0])
    assert set(pushed) <= set(final)
    assert walks
    place = {sha: at for at, sha in enumerate(final)}
    for before, seen in walks:
        assert before <= set(seen)
        places = [place[sha] for sha in seen]
        # Strictly rising: nothing twice, nothing in another order than at the end.
        assert all(a < b for a, b in itertools.pairwise(places))


def walk_over(hub: HubProcess, key: str) -> list[str]:
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {key}"}) as http:
        return pages(http, "/api/git/commits?limit=9")


# Texts ------------------------------------------------------------------------------------------


def ah(hub: HubProcess, key: str, folder: Path, *argv: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "ah_cli", *argv],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "AGENTHUB_URL": hub.url,
            "AGENTHUB_KEY": key,
        },
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_of_10_mb_is_whole_in_git_and_short_in_the_log(
    live_hub: HubProcess, work_tree: WorkTree, make_work_tree: Callable[[str], WorkTree]
) -> None:
    text = "the subject " + "s" * 5000 + "\n\n" + "b" * 10_000_000 + "\n"
    (work_tree.path / "message").write_text(text)
    work_tree.git("commit", "--quiet", "--allow-empty", "--file", "message")
    tip, key = work_tree.git("rev-parse", "HEAD"), live_hub.key("order-long")
    ah(live_hub, key, work_tree.path, "push")
    with live_hub.client(key) as client:
        message = client.commit(tip).message
    assert message.startswith("the subject sss")
    assert len(message) == 1000
    shown = ah(live_hub, key, work_tree.path, "log", "--agent", "order-long")
    assert b"the subject sss" in shown
    assert len(shown) < 2000
    other = make_work_tree("other")
    ah(live_hub, key, other.path, "fetch", tip)
    assert other.git("log", "-1", "--format=%B", tip) == text.strip()


def test_texts_and_paths_that_are_not_utf8_go_there_and_back(
    live_hub: HubProcess, work_tree: WorkTree, make_work_tree: Callable[[str], WorkTree]
) -> None:
    key = live_hub.key("order-latin")
    first = work_tree.commit("first")
    Path(os.fsdecode(os.fsencode(work_tree.path) + b"/" + LATIN)).write_bytes(LATIN + b"\n")
    (work_tree.path.parent / "message").write_bytes(b"subject " + LATIN + b"\n")
    work_tree.git("add", "--all")
    work_tree.git("-c", "i18n.commitEncoding=latin1", "commit", "--quiet", "--file", "../message")
    tip = work_tree.git("rev-parse", "HEAD")
    ah(live_hub, key, work_tree.path, "push")
    with live_hub.client(key) as client:
        assert client.commit(tip).message == "subject caf\ufffd"
        assert b'b/caf\\351"' in client.diff(first, tip)
        assert b"+" + LATIN + b"\n" in client.diff(first, tip)
    assert "subject caf\ufffd" in ah(live_hub, key, work_tree.path, "log", "--limit", "1").decode()
    assert b"+" + LATIN + b"\n" in ah(live_hub, key, work_tree.path, "diff", first, tip)
    other = make_work_tree("other")
    ah(live_hub, key, other.path, "checkout", tip)
    assert LATIN in [os.fsencode(path.name) for path in other.path.iterdir()]
    assert other.git("fsck", "--strict") == ""
