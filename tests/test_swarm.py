"""A small simulated swarm whose truth is known: what must hold whatever the noise does."""

import pytest

from bench.swarm import Report, Size, play_swarm


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return play_swarm(Size(agents=20, workers=4, runs=200), 1, tmp_path_factory.mktemp("swarm"))


def test_every_comparison_and_every_board_is_of_one_track_and_as_its_runs_say(
    report: Report,
) -> None:
    assert report.comparisons >= 2 * 200
    assert report.problems == []


def test_no_record_is_luck(report: Report) -> None:
    assert report.records >= 1
    assert report.false_records == 0


def test_every_agent_gets_what_it_is_due_and_a_flood_buys_nothing(report: Report) -> None:
    assert [share for share in report.shares if not share.is_fair] == []
    flood = max(report.shares, key=lambda share: share.pushes)
    others = [share.served for share in report.shares if share.is_steady and share is not flood]
    assert flood.pushes >= 8 * min(share.pushes for share in report.shares if share.is_steady)
    assert flood.served <= max(others) + 2  # A run in each track.


def test_replicates_take_no_more_than_their_part(report: Report) -> None:
    runs, saved_up = report.tally.runs, 2 * 3
    assert runs["replicate"] <= 0.15 / 0.85 * runs["first"] + saved_up
    assert report.states["refuted"] + report.states["confirmed"] > report.states["challenger"]


def test_the_swarm_had_its_accidents(report: Report) -> None:
    runs = report.tally.runs
    assert min(runs[kind] for kind in ("crash", "released", "silent", "replicate")) >= 1
