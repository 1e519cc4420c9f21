"""Throttled runs: told from those that are as fast as their like, marked, and run once more."""

import pytest
from conftest import CLAIM, Hub, WorkTree, ok

from server import wire
from server.results.throttle import judge


def metrics(steps: int, params: float = 11.5) -> dict[str, object]:
    """Of a training of 60 s with 16,384 tokens a step, as a template tells them."""
    told = {"num_steps": steps, "training_seconds": 60.0, "num_params_M": params}
    return told | {"total_tokens_M": round(steps * 16_384 / 1e6, 1)}


def train(hub: Hub, steps: int, params: float = 11.5, worker: str = "gpu1") -> wire.Result:
    """Claim the next run and report how many steps it made."""
    client = hub.worker(worker)
    run = client.claim(CLAIM)
    assert run is not None
    return client.finish(run.id, ok(run.fence, 2.0, metrics=metrics(steps, params)))


def ask(hub: Hub, work_tree: WorkTree, runs: int) -> str:
    tip = work_tree.commit("a commit")
    hub.agent().push(work_tree.bundle())
    hub.agent().request_runs(tip, wire.RunRequest(kind=wire.RunKind.REPLICATE, count=runs))
    return tip


@pytest.mark.parametrize(
    ("speed", "others", "under"),
    [
        (96.0, [100.0, 100.0, 100.0], 0.04),
        (97.5, [100.0, 100.0, 100.0], None),
        (104.0, [100.0, 100.0, 100.0], None),
        (90.0, [80.0, 100.0, 90.0, 110.0, 120.0], None),  # Nothing unusual where speeds scatter.
        (60.0, [98.0, 100.0, 99.0, 101.0, 50.0], 0.3939),
    ],
)
def test_slow_is_what_lies_far_under_the_median(
    speed: float, others: list[float], under: float | None
) -> None:
    assert judge(speed, others) == (under and pytest.approx(under, abs=1e-3))


def test_a_throttled_run_is_marked_counts_and_is_run_once_more(
    hub: Hub, work_tree: WorkTree
) -> None:
    tip = ask(hub, work_tree, 5)
    assert [train(hub, steps).throttled for steps in (1000, 1003, 998)] == [None] * 3
    slow = train(hub, 930, worker="hot")
    assert slow.throttled == pytest.approx(0.07)
    (board,) = hub.agent().leaderboard()
    assert board.entries[0].n == 4
    assert train(hub, 1001).throttled is None  # The last that was asked for.
    again = train(hub, 925, worker="hot")
    assert again.throttled is not None
    rerun = hub.agent().run(again.run_id or 0)
    assert (rerun.commit, rerun.kind, rerun.rerun_of) == (tip, "replicate", slow.run_id)
    assert rerun.seed not in (None, slow.seed)
    assert hub.worker().claim(CLAIM) is None


def test_first_runs_are_compared_with_those_of_their_size(hub: Hub, work_tree: WorkTree) -> None:
    for number in range(8):
        work_tree.git("switch", "--quiet", "--orphan", f"leaf{number}")
        work_tree.commit(f"leaf {number}")
    hub.agent().push(work_tree.bundle("--branches"))
    same = [train(hub, steps).throttled for steps in (1000, 1001, 999, 1002, 998)]
    assert same == [None] * 5
    assert train(hub, 900, params=12.5).throttled is None
    assert train(hub, 900).throttled == pytest.approx(0.1)


def test_runs_that_tell_no_steps_are_never_marked(hub: Hub, work_tree: WorkTree) -> None:
    ask(hub, work_tree, 5)
    for told in ({}, {"num_steps": "many"}, {"num_steps": 0}, {"training_seconds": 3}, {}):
        client = hub.worker()
        run = client.claim(CLAIM)
        assert run is not None
        assert client.finish(run.id, ok(run.fence, 2.0, metrics=told)).throttled is None


def test_pages_tell_of_throttled_runs(hub: Hub, work_tree: WorkTree) -> None:
    ask(hub, work_tree, 4)
    for steps in (1000, 1000, 1000):
        train(hub, steps)
    slow = train(hub, 800, worker="hot")
    again = hub.worker("hot").claim(CLAIM)
    assert again is not None
    pages = hub.http()
    told = pages.get(f"/runs/{slow.run_id}").text
    assert "20 % slower than the median" in told
    assert f'href="/runs/{again.id}"' in told
    assert "which was throttled" in pages.get(f"/runs/{again.id}").text
    assert "throttled</span>" in pages.get("/results").text
    assert "1 throttled" in pages.get("/workers/hot").text
