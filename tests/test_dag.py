"""The DAG in columns: whole, or only what is new since the last look."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import CLAIM, Clock, Hub, WorkTree, ok
from fastapi.testclient import TestClient

from server import wire


def push(hub: Hub, work_tree: WorkTree, message: str, agent: str = "ada") -> str:
    hash = work_tree.commit(message)
    hub.agent(agent).push(work_tree.bundle())
    return hash


def train(hub: Hub, score: float | None, claim: wire.Claim = CLAIM) -> wire.Run:
    run = hub.worker().claim(claim)
    assert run is not None
    crash = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.CRASH)
    hub.worker().finish(run.id, crash if score is None else ok(run.fence, score))
    return run


def look(hub: Hub, **query: int) -> dict[str, Any]:
    answer = hub.http().get("/api/git/dag", params=query)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def merged(hub: Hub, work_tree: WorkTree) -> list[str]:
    """Hashes of: root, two children of two agents, their merge."""
    root = push(hub, work_tree, "Root")
    left = push(hub, work_tree, "Left")
    work_tree.git("checkout", "--quiet", "-b", "side", root)
    work_tree.commit("Right", other_py="x\n")
    right = work_tree.git("rev-parse", "HEAD")
    hub.agent("bob").push(work_tree.bundle())
    work_tree.git("merge", "--quiet", "--no-ff", "--message", "Merge", left)
    hub.agent("bob").push(work_tree.bundle())
    return [root, left, right, work_tree.git("rev-parse", "HEAD")]


def test_columns_hold_every_commit_with_all_parents(
    hub: Hub, merged: list[str], clock: Clock
) -> None:
    dag = look(hub)
    columns = dag["commits"]
    assert columns["hash"] == [hash[:12] for hash in merged]
    first, left, right, _ = columns["seq"]
    assert columns["parents"] == [[], [first], [first], [right, left]]
    assert columns["generation"] == [1, 2, 2, 3]
    assert columns["children"] == [2, 1, 1, 0]
    assert [dag["agents"][agent] for agent in columns["agent"]] == ["ada", "ada", "bob", "bob"]
    assert set(columns["time"]) == {int(clock().timestamp())}
    assert dag["has_more"] is False


def test_an_empty_hub_has_an_empty_dag(hub: Hub) -> None:
    dag = look(hub)
    assert dag["commits"]["seq"] == dag["scores"]["commit"] == dag["running"] == []
    assert look(hub, since=dag["seq"], result=dag["result"])["commits"]["seq"] == []


def test_a_score_is_what_a_commit_is_worth_in_its_track(hub: Hub, work_tree: WorkTree) -> None:
    other = CLAIM.model_copy(update={"platform": "H100"})
    root = push(hub, work_tree, "Root")
    train(hub, 1.2)
    train(hub, 0.9, other)
    hub.agent().request_runs(root, wire.RunRequest())
    train(hub, 1.1)
    push(hub, work_tree, "Worse")
    train(hub, 1.5)
    push(hub, work_tree, "Broken")
    train(hub, None)
    dag = look(hub)
    names = {track["id"]: track["name"] for track in dag["tracks"]}
    columns = [dag["scores"][name] for name in ("commit", "track", "val_bpb", "outcome")]
    rows = zip(*columns, strict=True)
    first, second, third = dag["commits"]["seq"]
    told = {(commit, names[track].split("/")[0]): (v, o) for commit, track, v, o in rows}
    assert told == {
        (first, "cpu"): (1.15, "keep"),
        (first, "H100"): (0.9, "keep"),
        (second, "cpu"): (1.5, "discard"),
        (third, "cpu"): (None, "crash"),
    }
    assert set(dag["scores"]["state"]) == {"measured"}


def test_the_next_look_brings_only_what_is_new(hub: Hub, work_tree: WorkTree) -> None:
    push(hub, work_tree, "Root")
    push(hub, work_tree, "Tip")
    train(hub, 1.0)
    seen = look(hub)
    root, tip = seen["commits"]["seq"]
    newest = push(hub, work_tree, "Newest")
    hub.agent().request_runs(seen["commits"]["hash"][0], wire.RunRequest())
    runs = [hub.worker(name).claim(CLAIM) for name in ("gpu1", "gpu2")]
    by_commit = {run.commit: run for run in runs if run is not None}
    dag = look(hub, since=seen["seq"], result=seen["result"])
    assert dag["commits"]["hash"] == [newest[:12]]
    assert dag["commits"]["parents"] == [[tip]]
    assert dag["scores"]["commit"] == []
    assert dag["running"] == [root, dag["seq"]]
    run = next(run for hash, run in by_commit.items() if hash != newest)
    hub.worker(run.worker_id or "").finish(run.id, ok(run.fence, 0.95))
    later = look(hub, since=dag["seq"], result=dag["result"])
    assert later["commits"]["seq"] == []
    assert (later["scores"]["commit"], later["scores"]["val_bpb"]) == ([root], [0.95])
    assert later["running"] == [dag["seq"]]


def test_pieces_make_the_same_dag_as_the_whole(hub: Hub, merged: list[str]) -> None:
    train(hub, 1.0)
    whole = look(hub)
    hashes, since, result, more = [], 0, 0, True
    while more:
        piece = look(hub, since=since, result=result, limit=1)
        hashes += piece["commits"]["hash"]
        since, result, more = piece["seq"], piece["result"], piece["has_more"]
    assert hashes == whole["commits"]["hash"]


def test_many_new_results_come_in_parts(hub: Hub, merged: list[str]) -> None:
    seen = look(hub)
    for score in (1.0, 0.9, 0.8):
        train(hub, score)
    whole = look(hub)
    told, since, result, more = [], seen["seq"], seen["result"], True
    while more:
        part = look(hub, since=since, result=result, limit=1)
        told.append(part["result"])
        assert set(part["scores"]["val_bpb"]) <= set(whole["scores"]["val_bpb"])
        assert part["scores"]["commit"]
        since, result, more = part["seq"], part["result"], part["has_more"]
    assert told == [seen["result"] + number for number in (1, 2, 3)]
    assert told[-1] == whole["result"]


def test_it_is_compressed_for_who_takes_it(hub: Hub, merged: list[str]) -> None:
    http = hub.http()
    plain = http.get("/api/git/dag", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    with http.stream("GET", "/api/git/dag", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(raw)) == plain.json()


def test_the_api_wants_a_key_and_the_page_does_not(hub: Hub, merged: list[str]) -> None:
    assert hub.http(None).get("/api/git/dag").status_code == 401
    assert hub.http(None).get("/dag/data").json() == look(hub)


@pytest.mark.parametrize(
    ("words", "found"),
    [("Left", ["Left"]), ("LEFT", ["Left"]), ("bob", ["Merge", "Right"]), ("%", []), ("", [])],
)
def test_search_looks_in_subjects_bodies_and_authors(
    hub: Hub, merged: list[str], words: str, found: list[str]
) -> None:
    told = [hub.agent().commit(hash).message for hash in merged]
    subjects = dict(zip(look(hub)["commits"]["seq"], told, strict=True))
    seqs = hub.http(None).get("/dag/find", params={"q": words}).json()
    assert [subjects[seq] for seq in seqs] == found


def test_search_finds_the_start_of_a_hash(hub: Hub, merged: list[str]) -> None:
    seqs = look(hub)["commits"]["seq"]
    http = hub.http(None)
    assert http.get("/dag/find", params={"q": merged[2][:9].upper()}).json() == [seqs[2]]


def test_the_panel_shows_scores_diff_and_the_posts_that_mention_it(
    hub: Hub, merged: list[str]
) -> None:
    ada, tip = hub.agent(), merged[-1]
    train(hub, 0.75)
    ada.create_channel("general")
    ada.create_post("general", f"look at {tip[:8]} <b>now</b>")
    ada.create_post("general", f"not {tip[:7]}{'0' if tip[7] != '0' else '1'}, another one")
    panel = hub.http(None).get(f"/dag/commits/{tip[:12]}").text
    assert "0.750000" in panel
    assert '<tr class="add">' in panel
    assert "&lt;b&gt;now&lt;/b&gt;" in panel
    assert "another one" not in panel
    assert all(hash in panel for hash in merged[1:3])


def test_hostile_text_is_text_in_panel_and_card(hub: Hub, work_tree: WorkTree) -> None:
    work_tree.commit("<script>alert(1)</script> \u202egnp.exe")
    hub.agent().push(work_tree.bundle())
    hash = work_tree.git("rev-parse", "HEAD")
    for path in (f"/dag/commits/{hash}", f"/dag/cards/{hash}"):
        text = hub.http(None).get(path).text
        assert "<script>" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt; [U+202E]gnp.exe" in text


def test_without_scripts_the_page_is_the_list_of_commits(hub: Hub, merged: list[str]) -> None:
    page = hub.http(None).get("/dag").text
    assert all(f'href="/commits/{hash}"' in page for hash in merged)
    assert "Without it, here are the commits as a list" in page


@pytest.mark.parametrize("piece", ["commits", "cards"])
def test_a_piece_of_what_is_not_there_is_a_404(http: TestClient, piece: str) -> None:
    assert http.get(f"/dag/{piece}/{'ab' * 20}").status_code == 404


@pytest.fixture
def http(make_hub: Callable[..., Hub]) -> TestClient:
    return make_hub().http(None)
