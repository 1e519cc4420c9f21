"""Results: whose turn it is, what challenges a record, and how a challenge ends."""

from collections.abc import Callable

from conftest import Clock, Hub, WorkTree, ok

from ah_cli.client import HubClient
from server import wire
from server.wire import RunKind, RunState, ScoreState

#: Noise of one run here, before there are replicates: 0.0006.
H100 = wire.Claim(
    platform="H100", budget_seconds=300, data_fingerprint="f" * 64, scoring="isolated+audit"
)


def push_leaves(hub: Hub, work_tree: WorkTree, agent: str, count: int) -> list[str]:
    """Leaves of one agent's upon a root that is no leaf."""
    if not work_tree.git("tag"):
        work_tree.git("tag", "root", work_tree.commit("root", train_py="# root\n"))
    leaves = []
    for number in range(count):
        work_tree.git("checkout", "--quiet", "--detach", "root")
        leaves.append(work_tree.commit(f"{agent} {number}"))
        work_tree.git("branch", f"{agent}{number}")
    hub.agent(agent).push(work_tree.bundle(f"--branches={agent}*"))
    return leaves


def claimed(worker: HubClient) -> wire.Run:
    run = worker.claim(H100)
    assert run is not None
    return run


def score(worker: HubClient, val_bpb: float) -> wire.Run:
    """Take the next run to that score."""
    run = claimed(worker)
    worker.finish(run.id, ok(run.fence, val_bpb))
    return run


def states(hub: Hub) -> dict[str, ScoreState]:
    return {entry.commit: entry.state for entry in hub.agent().leaderboard()[0].entries}


# Whose turn it is -------------------------------------------------------------------------------


def test_an_agent_whose_runs_wait_for_each_other_holds_up_nobody_else(
    hub: Hub, work_tree: WorkTree
) -> None:
    asked = push_leaves(hub, work_tree, "ada", 1)[0]
    score(hub.worker(), 1.0)
    hub.agent("ada").request_runs(asked, wire.RunRequest(count=3))
    theirs = push_leaves(hub, work_tree, "bob", 3)
    got = [claimed(hub.worker(f"gpu{number}")).commit for number in range(4)]
    assert sorted(got) == sorted([asked, *theirs])
    assert hub.worker("gpu5").claim(H100) is None


def test_an_agent_pays_for_a_run_once_however_often_it_is_given_back(
    hub: Hub, work_tree: WorkTree
) -> None:
    agents = {
        leaf: agent for agent in ("ada", "bob") for leaf in push_leaves(hub, work_tree, agent, 2)
    }
    worker = hub.worker()
    for _ in range(3):
        run = claimed(worker)
        worker.release(run.id, wire.Release(fence=run.fence, reason="preempted"))
    order = [agents[claimed(hub.worker()).commit] for _ in range(4)]
    assert order == ["ada", "bob", "ada", "bob"]


# Challenges -------------------------------------------------------------------------------------


def test_the_record_is_trained_again_before_its_challengers(hub: Hub, work_tree: WorkTree) -> None:
    baseline, better = push_leaves(hub, work_tree, "ada", 2)
    score(hub.worker(), 1.0)
    score(hub.worker(), 0.99)
    order = [claimed(hub.worker(f"gpu{number}")) for number in range(2)]
    assert [(run.commit, run.kind) for run in order] == [
        (baseline, RunKind.REPLICATE),
        (better, RunKind.REPLICATE),
    ]


def test_many_challengers_do_not_have_the_record_trained_for_each_of_them(
    hub: Hub, work_tree: WorkTree
) -> None:
    leaves = push_leaves(hub, work_tree, "ada", 6)
    worker = hub.worker()
    firsts = [claimed(worker) for _ in leaves]
    for number, run in enumerate(firsts):
        worker.finish(run.id, ok(run.fence, 1.0 - number / 1000))
    again = [run for run in hub.agent().runs(commit=leaves[0]) if run.kind is RunKind.REPLICATE]
    assert len(again) == 3  # Four runs of it in all.


def test_a_challenge_ends_though_a_replicate_of_it_never_does(
    hub: Hub, work_tree: WorkTree, clock: Clock
) -> None:
    baseline, better = push_leaves(hub, work_tree, "ada", 2)
    worker = hub.worker()
    score(worker, 1.0)
    score(worker, 0.99)
    last = max(run.id for run in hub.agent().runs(commit=better))
    while (run := worker.claim(H100)) is not None:
        if run.id == last:
            clock.advance(seconds=61)
        else:
            worker.finish(
                run.id, ok(run.fence, (1.0 if run.commit == baseline else 0.99) + run.id / 1e5)
            )
    assert hub.agent().run(last).state is RunState.QUARANTINED
    assert states(hub)[better] is ScoreState.CONFIRMED


def test_challengers_that_wait_for_the_record_are_all_judged_when_its_run_comes(
    hub: Hub, work_tree: WorkTree
) -> None:
    baseline, good, better = push_leaves(hub, work_tree, "ada", 3)
    worker = hub.worker()
    true = {baseline: 1.0, good: 0.99, better: 0.98}
    for value in true.values():
        score(worker, value)
    held = claimed(hub.worker("slow"))
    assert held.commit == baseline

    def drain() -> None:
        while (run := worker.claim(H100)) is not None:
            worker.finish(run.id, ok(run.fence, true[run.commit] + run.id / 1e5))

    drain()
    assert states(hub)[better] is ScoreState.CHALLENGER
    hub.worker("slow").finish(held.id, ok(held.fence, 1.0001))
    drain()
    assert states(hub)[better] is ScoreState.CONFIRMED
    assert states(hub)[good] is ScoreState.REFUTED
    agent = hub.agent()
    board = agent.leaderboard()[0]
    assert board.record is not None
    assert board.record.commit == better
    told = [event for event in agent.events() if event.kind == "record"]
    assert [event.subject for event in told] == [better]
    assert {event.payload["track"] for event in told} == {board.track.name}
    posts = [post.content for post in agent.posts("results", limit=100)]
    assert sum(post.startswith("record:") for post in posts) == 1
    assert not [run for run in agent.runs(state=RunState.QUEUED) if run.commit == baseline]


def test_a_challenge_that_has_begun_comes_before_one_that_looks_luckier(
    hub: Hub, work_tree: WorkTree
) -> None:
    baseline, begun, luckier = push_leaves(hub, work_tree, "ada", 3)
    worker = hub.worker()
    score(worker, 1.0)
    score(worker, 0.99)
    held = claimed(hub.worker("slow"))  # Before the hub's own runs, which have 15 %.
    assert held.commit == luckier
    while (run := worker.claim(H100)) is not None and run.commit == baseline:
        worker.finish(run.id, ok(run.fence, 1.0 + run.id / 1e5))
    assert run is not None
    assert run.commit == begun
    worker.finish(run.id, ok(run.fence, 0.9901))
    hub.worker("slow").finish(held.id, ok(held.fence, 0.98))
    assert score(worker, 1.0).commit == baseline
    assert claimed(worker).commit == begun


def test_challengers_are_numbered_as_they_are_judged_and_not_as_they_come(
    hub: Hub, work_tree: WorkTree
) -> None:
    leaves = push_leaves(hub, work_tree, "ada", 8)
    worker = hub.worker()
    firsts = [claimed(worker) for _ in leaves]
    last = leaves[-1]
    for run in firsts:
        value = 1.0 if run.commit == leaves[0] else 0.99 if run.commit == last else 0.9985
        worker.finish(run.id, ok(run.fence, value + run.id / 1e6))
    # Two sigmas and a half better: enough for the first who is judged, not for the seventh.
    noise = {leaves[0]: iter((1.0002, 0.9998, 1.0, 1.0)), last: iter((0.9972, 0.9972))}
    while (run := worker.claim(H100)) is not None:
        luck = next(noise.get(run.commit, iter(())), 1.0005)
        worker.finish(run.id, ok(run.fence, luck + run.id / 1e7))
        if states(hub)[last] is not ScoreState.CHALLENGER:
            break
    assert states(hub)[last] is ScoreState.CONFIRMED


def test_only_its_own_agent_takes_a_waiting_commit_back(
    hub: Hub, make_work_tree: Callable[[str], WorkTree]
) -> None:
    tree = make_work_tree("shared")
    root = tree.commit("root")
    hub.agent("ada").push(tree.bundle())
    claimed(hub.worker("gpu0"))  # ada's root is in training
    ideas = [tree.commit("ada's idea", train_py="IDEA = 1\n")]
    hub.agent("ada").push(tree.bundle())
    tree.commit("eve builds on it at once", train_py="EVE = 1\n")
    hub.agent("eve").push(tree.bundle())
    tree.git("checkout", "--quiet", "--detach", root)
    tree.commit("a first thought", train_py="THOUGHT = 1\n")
    hub.agent("ada").push(tree.bundle())
    ideas.append(tree.commit("a better one", train_py="THOUGHT = 2\n"))
    hub.agent("ada").push(tree.bundle())
    runs = [claimed(hub.worker(f"gpu{number}")).commit for number in (1, 2, 3)]
    assert set(ideas) < set(runs)
    assert hub.worker("gpu4").claim(H100) is None


def test_replicates_from_before_a_challenge_do_not_count_in_it(
    hub: Hub, work_tree: WorkTree
) -> None:
    lucky = push_leaves(hub, work_tree, "ada", 2)[1]
    worker = hub.worker()
    score(worker, 1.0)
    score(worker, 0.9998)  # No challenge: within the noise.
    for value in (0.9998, 0.9988):  # Asked for again until the mean looks good.
        hub.agent().request_runs(lucky, wire.RunRequest(kind=RunKind.REPLICATE))
        score(worker, value)
    assert states(hub)[lucky] is ScoreState.CHALLENGER
    entry = next(one for one in hub.agent().leaderboard()[0].entries if one.commit == lucky)
    assert (entry.n, entry.val_bpb) == (1, 0.9998)
    while (run := worker.claim(H100)) is not None:
        worker.finish(run.id, ok(run.fence, 1.0 + (run.id % 3 - 1) / 1e4))
    assert states(hub)[lucky] is ScoreState.REFUTED
