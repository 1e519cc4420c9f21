"""The overview, tracks, boards, results and runs: true numbers, whole without scripts, harmless."""

import json
import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import CLAIM, Clock, Hub, WorkTree, ok
from fastapi.testclient import TestClient
from test_pages import Page, push, train

from server import wire

TSV = Path(__file__).with_name("results_126.tsv")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x1b[31mred\x1b[0m \u202egnp.exe"
H100 = CLAIM.model_copy(update={"platform": "H100", "budget_seconds": 300, "data": "climbmix"})


@pytest.fixture
def http(hub: Hub) -> TestClient:
    """A browser of somebody the hub does not know."""
    return hub.http(None)


def import_history(hub: Hub) -> list[list[str]]:
    """autoresearch's 126 experiments, as an agent's reports; its rows."""
    answer = hub.http().post("/api/results/import?platform=H100", content=TSV.read_text())
    answer.raise_for_status()
    return [line.split("\t") for line in TSV.read_text().splitlines()[1:]]


def see_columns(http: TestClient, track: int = 1) -> dict[str, Any]:
    answer = http.get(f"/tracks/{track}/progress.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    columns: dict[str, Any] = answer.json()
    return columns


def section(page: Page, id: str) -> str:
    """The words of the element with this id, until the next one of its kind begins."""
    return page.html.split(f'id="{id}"', 1)[1].split("</section>", 1)[0]


# The overview -----------------------------------------------------------------------------------


def test_an_empty_hub_says_what_to_do_and_needs_nothing(http: TestClient) -> None:
    page = Page(http, "/")
    assert "Nothing is scored yet" in page.text
    assert "Nothing. No worker is stalled" in page.text
    for path in ("/leaderboard", "/results", "/fragments/overview"):
        Page(http, path)


def test_126_imported_experiments_show_how_far_it_fell_and_by_what(
    hub: Hub, http: TestClient
) -> None:
    rows = import_history(hub)
    keeps = [float(row[1]) for row in rows if row[3] == "keep"]
    first, best = keeps[0], min(keeps)
    page = Page(http, "/")
    assert f"{best:.6f}" in section(page, "morning")
    assert "“" not in page.text, "the sign is the style sheet's"
    assert 'class="badge score-reported">reported<' in page.html
    fallen = f"▼ {first - best:.6f} ({100 * (first - best) / first:.2f} %) since the first score"
    assert fallen in page.words
    assert "126 23 kept, 1 crashed" in page.words
    gains = [float(gain) for gain in re.findall(r"▼ ([\d.]+)</span>", section(page, "ideas"))]
    assert gains == sorted(gains, reverse=True)
    drops = sorted((a - b for a, b in pairwise(keeps)), reverse=True)
    assert gains[0] == pytest.approx(drops[0], abs=1e-6)
    [wide] = [a["d"] for t, a in page.elements if a.get("class") == "best"][:1]
    levels = [float(y) for y in re.findall(r"V([\d.]+)", str(wide))]
    assert len(levels) > 15
    assert levels == sorted(levels), "the line only falls"
    assert page.count("text", class_="label") > 8


def test_columns_for_scripts_have_every_experiment(hub: Hub, http: TestClient) -> None:
    rows = import_history(hub)
    columns = see_columns(http)
    assert columns["number"] == list(range(1, 127))
    assert columns["status"] == "".join(row[3][0] for row in rows)
    assert columns["score"] == [float(r[1]) if r[3] != "crash" else None for r in rows]
    assert columns["label"][0] == rows[0][4]
    assert set(columns["commit"]) == {""}, "none of these commits is here"
    assert http.get("/tracks/9/progress.json").status_code == 404


def test_the_best_tells_its_state_runs_and_error(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.0, H100)
    page = Page(http, "/")
    assert "H100 · 300 s · climbmix" in page.text
    assert "1.000000 baseline ± 0.0006 n=1" in page.words
    assert "the first score of this track stands" in page.text
    push(hub, work_tree, "Deeper")
    train(hub, 0.99, H100)
    page = Page(http, "/")
    assert "0.990000 challenger ± 0.0006 n=1" in page.words
    assert "the baseline stands at 1.000000" in page.words
    needs = section(page, "needs")
    assert "challenger" in needs
    assert "to come" in needs


def test_a_measured_track_is_shown_before_a_busier_reported_one(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    import_history(hub)
    push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    page = Page(http, "/")
    assert "1.250000" in section(page, "morning")
    assert "0.969686" not in section(page, "morning")
    assert "0.969686" in section(Page(http, "/?track=1"), "morning")
    assert http.get("/?track=none").status_code == 404


def test_the_fragment_is_the_page_without_its_drawing(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    whole, piece = http.get("/").text, http.get("/fragments/overview?track=1").text
    assert "<html" not in piece
    assert "1.250000" in piece
    assert '<svg class="drawing' in whole
    assert '<svg class="drawing' not in piece
    version = re.search('data-version="[^"]+"', whole)
    assert version is not None
    assert version[0] in piece
    push(hub, work_tree, "Wider")
    train(hub, 1.2)
    assert version[0] not in http.get("/fragments/overview?track=1").text


def test_what_happened_is_told_in_words(hub: Hub, http: TestClient, work_tree: WorkTree) -> None:
    hash = push(hub, work_tree, "Baseline")
    train(hub, 1.25)
    hub.agent().create_channel("general")
    hub.agent("bob").create_post("general", "who tries depth 12?")
    import_history(hub)
    told = Page(http, "/").words.split("What happens", 1)[1]
    assert f"ada pushed Baseline {hash[:12]}" in told
    assert f"gpu1 measured 1.250000 keep Baseline {hash[:12]} run 1" in told
    assert "bob in #general : who tries depth 12?" in told
    assert "ada reports 126 results" in told
    assert told.index("126 results") < told.index("who tries") < told.index("ada pushed")


# What needs a human -----------------------------------------------------------------------------


def test_a_silent_worker_needs_you_until_it_speaks(
    hub: Hub, http: TestClient, work_tree: WorkTree, clock: Clock
) -> None:
    push(hub, work_tree, "Baseline")
    run = hub.worker().claim(CLAIM)
    assert run is not None
    assert "went silent" not in Page(http, "/").text
    clock.advance(seconds=150)
    page = Page(http, "/")
    assert "gpu1 went silent in run 1" in page.words
    assert 'class="badge machine-stale">stale<' in page.html


def test_a_doubted_result_needs_you_with_its_reason_and_lowers_nothing(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.0)
    push(hub, work_tree, "Too good")
    train(hub, 0.2)
    page = Page(http, "/")
    assert "lower than any training" in section(page, "needs")
    assert "1.000000" in section(page, "morning").split('id="needs"')[0]
    assert "1 more in quarantine" not in page.text
    columns = see_columns(http)
    assert columns["status"] == "kq"
    assert columns["best"] == 1.0
    track = Page(http, "/tracks/1")
    assert "ah results release 2" in track.text
    doubted = Page(http, "/results?quarantined=1")
    assert doubted.count("tr", class_="is-doubted") == 1
    assert "1.000000" not in doubted.text
    hub.client("the-admin-key-of-the-tests").release_result(2)
    assert "lower than any training" not in section(Page(http, "/"), "needs")
    assert see_columns(http)["best"] == 0.2


def test_a_question_needs_you_until_it_is_answered(
    hub: Hub, http: TestClient, clock: Clock
) -> None:
    ada = hub.agent()
    for name in ("general", "questions"):
        ada.create_channel(name)
    asked = ada.create_post("questions", "may we use the test shard?")
    called = ada.create_post("general", "@human the box is hot")
    ada.create_post("general", "mail me@human.org or @humane, no question")
    needs = section(Page(http, "/"), "needs")
    assert "may we use the test shard?" in needs
    assert "the box is hot" in needs
    assert "no question" not in needs
    hub.agent("bob").create_post("questions", "no", asked.id)
    needs = section(Page(http, "/"), "needs")
    assert "test shard" not in needs
    assert "the box is hot" in needs
    clock.moment += timedelta(days=4)
    assert called.id
    assert "the box is hot" not in section(Page(http, "/"), "needs")


def test_runs_that_wait_while_no_worker_is_there_need_you(
    hub: Hub, http: TestClient, work_tree: WorkTree, clock: Clock
) -> None:
    hash = push(hub, work_tree, "Baseline")
    hub.agent().request_runs(hash, wire.RunRequest())
    assert "No worker is here" in Page(http, "/").text
    hub.worker().claim(CLAIM)
    assert "No worker is here" not in Page(http, "/").text


# Lists ------------------------------------------------------------------------------------------


def test_results_are_filtered_by_the_url(hub: Hub, http: TestClient, work_tree: WorkTree) -> None:
    import_history(hub)
    push(hub, work_tree, "Baseline")
    train(hub, 1.25)

    def count(query: str) -> int:
        return Page(http, f"/results?{query}").html.count("<tr id=")

    assert count("track=2") == 1
    assert count("status=crash") == 1
    assert count("status=keep&track=1") == 23
    assert count("agent=nobody") == 0
    assert count("quarantined=1") == 0
    assert count("track=&status=&agent=&quarantined=") == 100
    page = Page(http, "/results?track=1")
    [older] = [link for link in page.links if "before=" in link]
    assert "track=1" in older
    assert Page(http, older.replace("&amp;", "&")).html.count("<tr id=") == 26
    assert http.get("/results?before=x").status_code == 404
    assert count("status=nonsense") == 100


def test_the_leaderboard_ranks_commits_or_agents_of_one_track(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    for message, score in (("Baseline", 1.25), ("Wider", 1.2)):
        push(hub, work_tree, message)
        train(hub, score)
    train(hub, 0.9, H100)
    commits = Page(http, "/leaderboard?track=1").html.split('<ol class="board">')[1]
    assert commits.index("1.200000") < commits.index("1.250000")
    assert "0.900000" not in commits
    agents = Page(http, "/leaderboard?track=1&by=agent").words
    assert "1 ada 1.200000" in agents
    assert http.get("/leaderboard?by=luck").status_code == 404


def test_a_track_tells_what_it_is_and_what_failed(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.0, H100)
    push(hub, work_tree, "Too deep")
    run = hub.worker().claim(H100)
    assert run is not None
    crash = wire.ResultCreate(
        fence=run.fence, outcome=wire.Outcome.OOM, description="out of memory"
    )
    hub.worker().finish(run.id, crash)
    page = Page(http, "/tracks/1")
    assert "assumed until replicates tell" in page.text
    assert "oom 1 last" in page.words
    assert "out of memory" in page.text
    assert "1.000000 ± 0.0006 n=1 baseline Baseline" in page.words


# Runs -------------------------------------------------------------------------------------------


def test_a_run_tells_its_life_its_curve_and_what_it_is_worth(
    hub: Hub, http: TestClient, work_tree: WorkTree, clock: Clock
) -> None:
    push(hub, work_tree, "Baseline")
    train(hub, 1.0, H100)
    push(hub, work_tree, "Deeper")
    run = hub.worker().claim(H100)
    assert run is not None
    page = Page(http, f"/runs/{run.id}")
    assert page.count("path", class_="best") == 0
    for part in range(1, 60):
        beat = wire.Heartbeat(fence=run.fence, progress=part / 60, step=part, loss=4 - part / 30)
        hub.worker().heartbeat(run.id, beat)
    clock.advance(seconds=40)
    page = Page(http, f"/runs/{run.id}")
    assert page.count("path", class_="best") == 1
    assert "59 heartbeats" in page.html
    assert "training for 40 s" in page.words
    hub.worker().finish(run.id, ok(run.fence, 0.99))
    page = Page(http, f"/runs/{run.id}")
    assert "queued" in page.words
    assert "claimed by gpu1 0 s later" in page.words
    assert "ok by gpu1 40 s later" in page.words
    assert "strong ▼ 0.010000 better than the record of its time" in page.words
    assert "far beyond luck" in page.words
    siblings = [run for run in hub.agent().runs() if run.kind == "replicate"]
    assert any(f"/runs/{one.id}" in page.links for one in siblings)


def test_a_curve_has_at_most_one_point_per_slot(
    hub: Hub, http: TestClient, work_tree: WorkTree
) -> None:
    push(hub, work_tree, "Baseline")
    run = hub.worker().claim(CLAIM)
    assert run is not None
    for part in range(1000):
        beat = wire.Heartbeat(fence=run.fence, progress=part / 2000, loss=1.0)
        hub.worker().heartbeat(run.id, beat)
    assert "100 heartbeats" in Page(http, f"/runs/{run.id}").html


# Hostile text -----------------------------------------------------------------------------------


def test_hostile_words_of_reports_are_text_everywhere(hub: Hub, http: TestClient) -> None:
    long = "W" * 1900
    reports = [(f"{n:07x}", EVIL if n % 2 else f"{EVIL} {long}", 1 - n / 100) for n in range(1, 9)]
    for hash, words, score in reports:
        body = {"commit": hash, "platform": "H100", "val_bpb": score, "outcome": "keep"}
        answer = hub.http().post("/api/results", json=body | {"description": words})
        assert answer.status_code == 201
    body = {"commit": "f" * 7, "platform": "H100", "val_bpb": 0.1, "outcome": "keep"}
    hub.http().post("/api/results", json=body | {"description": EVIL})
    hub.agent().create_channel("questions", EVIL)
    hub.agent().create_post("questions", f"{EVIL} {long}")
    for path in ("/", "/fragments/overview", "/tracks/1", "/leaderboard", "/results"):
        page = Page(http, path)
        assert page.count("img", src="x") == 0
        check_scripts(page)
        assert "<script>alert(1)" in page.text
        assert "[U+202E]" in page.text
        assert "\u202e" not in page.html
    body_text = json.dumps(see_columns(http), ensure_ascii=False)
    assert "\u202e" not in body_text
    assert max(map(len, see_columns(http)["label"])) <= 140


def check_scripts(page: Page) -> None:
    """All scripts of the page are packaged ones."""
    sources = [a.get("src") or "" for t, a in page.elements if t == "script"]
    assert all(re.fullmatch(r"/static/[0-9a-f]{12}/[a-z-]+\.js", one) for one in sources)
