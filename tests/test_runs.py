"""Runs: leases, fences, attempts; double claims are impossible, late results are refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from conftest import CLAIM, Clock, Hub, HubProcess, WorkTree, ok

from ah_cli.client import ApiError
from server import runs, wire
from server.policy import Policy
from server.settings import Registration
from server.wire import Outcome, RunState, Status


@pytest.fixture
def leaf(hub: Hub, work_tree: WorkTree) -> str:
    """The one leaf of the hub."""
    tip = work_tree.commit("try a larger batch")
    hub.agent().push(work_tree.bundle())
    return tip


def grow_leaves(hub: Hub | HubProcess, work_tree: WorkTree, count: int) -> list[str]:
    """`count` leaves on one root, pushed at once."""
    root = work_tree.commit("root")
    leaves = []
    for number in range(count):
        work_tree.git("checkout", "--quiet", "--detach", root)
        leaves.append(work_tree.commit(f"leaf {number}"))
        work_tree.git("branch", f"leaf{number}")
    key = hub.key("grower")
    with hub.client(key) as client:
        client.push(work_tree.bundle("--branches=leaf*"))
    return leaves


def claimed(worker: object, claim: wire.Claim = CLAIM) -> wire.Run:
    run = worker.claim(claim)  # type: ignore[attr-defined]
    assert run is not None
    return run  # type: ignore[no-any-return]


def refused(code: wire.ErrorCode, call: Callable[..., object], *args: object) -> None:
    with pytest.raises(ApiError) as refusal:
        call(*args)
    assert (refusal.value.status, refusal.value.code) == (code.status, code)


# Claim ------------------------------------------------------------------------------------------


def test_a_claim_leases_a_leaf(hub: Hub, leaf: str) -> None:
    run = claimed(hub.worker())
    assert (run.commit, run.kind, run.state) == (leaf, wire.RunKind.FIRST, RunState.RUNNING)
    assert (run.fence, run.attempt, run.worker_id) == (1, 1, "gpu1")
    assert (run.budget_seconds, run.heartbeat_seconds) == (20, 15)
    assert run.lease_expires_at is not None
    assert (run.lease_expires_at - hub.clock()).total_seconds() == 60


def test_nothing_to_do_is_a_204_that_says_when_to_come_back(hub: Hub, leaf: str) -> None:
    claimed(hub.worker())
    answer = hub.http(key=hub.key("gpu2", wire.Role.WORKER)).post(
        "/api/runs", json=CLAIM.model_dump(mode="json")
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("policy", "first"),
    [("fifo", "b1"), ("newest", "b2"), ("best-first", "a4"), ("puct", "b1")],
)
def test_the_hubs_policy_decides_among_an_agents_commits(
    make_hub: Callable[..., Hub], work_tree: WorkTree, policy: str, first: str
) -> None:
    hub = make_hub(registration=Registration.OPEN, policy=Policy(policy))
    names: dict[str, str] = {}

    def push(*grown: tuple[str, str]) -> None:
        for name, parent in grown:
            if parent:
                work_tree.git("checkout", "--quiet", "--detach", parent)
            names[work_tree.commit(name)] = name
            work_tree.git("branch", name)
            hub.agent().push(work_tree.bundle(name))

    def train(**scores: float) -> None:
        for _ in scores:
            run = claimed(hub.worker())
            hub.worker().finish(run.id, ok(run.fence, scores[names[run.commit]]))

    push(("root", ""))
    train(root=0.9)
    push(("a", "root"), ("b", "root"))
    train(a=0.95, b=1.1)
    # What trains like a3 has its score too, so `a` has had four children trained.
    push(("a1", "a"), ("a2", "a"), ("a3", "a"))
    train(a1=0.96, a2=0.97, a3=0.98)
    work_tree.git("checkout", "--quiet", "--detach", "a")
    work_tree.commit("words only", train_py="# a3\n")
    hub.agent().push(work_tree.bundle())
    push(("b1", "b"), ("a4", "a"), ("b2", "b"))
    assert names[claimed(hub.worker()).commit] == first


def test_leaves_are_claimed_oldest_first_and_inner_commits_not_at_all(
    hub: Hub, work_tree: WorkTree
) -> None:
    leaves = grow_leaves(hub, work_tree, 3)
    assert [claimed(hub.worker()).commit for _ in range(3)] == leaves
    assert hub.worker().claim(CLAIM) is None


def test_each_track_trains_a_leaf_once(hub: Hub, leaf: str) -> None:
    worker = hub.worker()
    other = CLAIM.model_copy(update={"platform": "H100"})
    for claim in (CLAIM, other):
        run = claimed(worker, claim)
        assert run.commit == leaf
        worker.finish(run.id, ok(run.fence, 2.0))
        assert worker.claim(claim) is None


def test_only_workers_claim(hub: Hub, leaf: str) -> None:
    refused(wire.ErrorCode.FORBIDDEN, hub.agent().claim, CLAIM)


@pytest.mark.parametrize(
    "change",
    [
        {"platform": ""},
        {"platform": "a b"},
        {"budget_seconds": 0},
        {"budget_seconds": "soon"},
        {"scoring": "x" * 65},
        {"vram_mb": -1},
    ],
)
def test_a_senseless_claim_is_a_400(hub: Hub, leaf: str, change: dict[str, object]) -> None:
    worker = hub.http(key=hub.key("gpu1", wire.Role.WORKER))
    body = CLAIM.model_dump(mode="json") | change
    assert worker.post("/api/runs", json=body).status_code == 400
    assert hub.agent().runs() == []


def test_16_workers_claiming_50_leaves_at_once_get_each_leaf_once(
    live_hub: HubProcess, work_tree: WorkTree
) -> None:
    leaves = grow_leaves(live_hub, work_tree, 50)
    # A track of this test's own, so that leaves of other tests are somebody else's work.
    claim = CLAIM.model_copy(update={"platform": "race"})

    def work(number: int) -> list[str]:
        key = live_hub.key(f"racer{number}", wire.Role.WORKER)
        with live_hub.client(key) as client:
            got = []
            while (run := client.claim(claim)) is not None:
                got.append(run.commit)
            return got

    with ThreadPoolExecutor(16) as pool:
        got = [commit for mine in pool.map(work, range(16)) for commit in mine]
    assert len(got) == len(set(got))
    assert set(leaves) <= set(got)


def test_a_waiting_claim_gets_the_leaf_that_is_pushed(
    live_hub: HubProcess, work_tree: WorkTree
) -> None:
    claim = CLAIM.model_copy(update={"platform": "patient"})
    key = live_hub.key("patient", wire.Role.WORKER)
    with live_hub.client(key) as worker, ThreadPoolExecutor(1) as pool:
        while worker.claim(claim) is not None:
            pass  # leaves of other tests
        waiting = pool.submit(worker.claim, claim, 30)
        tip = work_tree.commit("what it waits for")
        with live_hub.client(live_hub.key("pusher-for-patient")) as agent:
            agent.push(work_tree.bundle())
        run = waiting.result()
    assert run is not None
    assert run.commit == tip


# Leases -----------------------------------------------------------------------------------------


def test_a_heartbeat_renews_the_lease_and_tells_the_progress(
    hub: Hub, leaf: str, clock: Clock
) -> None:
    worker = hub.worker()
    run = claimed(worker)
    for step in range(4):
        clock.advance(seconds=50)
        beat = wire.Heartbeat(fence=run.fence, step=step, progress=step / 4, loss=3.5, tokens=99)
        lease = worker.heartbeat(run.id, beat)
        assert (lease.lease_expires_at - clock()).total_seconds() == 60
    shown = hub.agent().run(run.id)
    assert (shown.step, shown.progress, shown.loss, shown.tokens) == (3, 0.75, 3.5, 99)
    assert hub.worker("gpu2").claim(CLAIM) is None


def test_a_silent_worker_loses_its_run_to_the_next(hub: Hub, leaf: str, clock: Clock) -> None:
    first, second = hub.worker("gpu1"), hub.worker("gpu2")
    run = claimed(first)
    clock.advance(seconds=61)
    again = claimed(second)
    assert (again.id, again.commit) == (run.id, leaf)
    assert (again.fence, again.attempt) == (2, 2)
    refused(wire.ErrorCode.LEASE_LOST, first.heartbeat, run.id, wire.Heartbeat(fence=run.fence))
    second.finish(again.id, ok(again.fence, 1.9))


def test_a_late_result_is_refused_kept_and_never_ranked(hub: Hub, leaf: str, clock: Clock) -> None:
    first, second = hub.worker("gpu1"), hub.worker("gpu2")
    run = claimed(first)
    clock.advance(seconds=61)
    again = claimed(second)
    for _ in range(2):
        refused(wire.ErrorCode.LEASE_LOST, first.finish, run.id, ok(run.fence, 0.5))
    second.finish(again.id, ok(again.fence, 1.9))
    agent = hub.agent()
    assert [result.val_bpb for result in agent.results()] == [1.9]
    assert agent.leaderboard()[0].entries[0].val_bpb == 1.9
    with hub.app.state.hub.db.read() as conn:
        rows = conn.exec_driver_sql("SELECT fence, late, val_bpb FROM results ORDER BY fence")
        assert [tuple(row) for row in rows] == [(1, 1, 0.5), (2, 0, 1.9)]


def test_an_expired_run_nobody_took_yet_is_lost_all_the_same(
    hub: Hub, leaf: str, clock: Clock
) -> None:
    worker = hub.worker("gpu1")
    run = claimed(worker)
    clock.advance(seconds=61)
    # Any claim expires overdue leases, also one of another track that finds nothing to do.
    with hub.app.state.hub.db.write() as conn:
        runs.expire(conn, clock())
    refused(wire.ErrorCode.LEASE_LOST, worker.finish, run.id, ok(run.fence, 0.5))
    again = claimed(worker)
    assert (again.fence, again.attempt) == (2, 2)
    assert worker.finish(again.id, ok(again.fence, 1.9)).val_bpb == 1.9


def test_another_workers_fence_opens_nothing(hub: Hub, leaf: str) -> None:
    run = claimed(hub.worker("gpu1"))
    thief = hub.worker("gpu2")
    refused(wire.ErrorCode.LEASE_LOST, thief.heartbeat, run.id, wire.Heartbeat(fence=run.fence))
    refused(wire.ErrorCode.LEASE_LOST, thief.finish, run.id, ok(run.fence, 0.1))
    refused(wire.ErrorCode.LEASE_LOST, thief.finish, run.id, ok(run.fence + 1, 0.1))
    assert hub.worker("gpu1").finish(run.id, ok(run.fence, 2.0)).val_bpb == 2.0


def test_no_heartbeat_helps_past_the_deadline(hub: Hub, leaf: str, clock: Clock) -> None:
    worker = hub.worker()
    run = claimed(worker)
    assert run.deadline is not None
    while clock.moment + timedelta(seconds=50) <= run.deadline:
        clock.advance(seconds=50)
        worker.heartbeat(run.id, wire.Heartbeat(fence=run.fence))
    clock.advance(seconds=50)
    refused(wire.ErrorCode.LEASE_LOST, worker.heartbeat, run.id, wire.Heartbeat(fence=run.fence))
    assert claimed(hub.worker("gpu2")).attempt == 2


def test_after_three_silent_attempts_a_run_is_quarantined(
    hub: Hub, leaf: str, clock: Clock
) -> None:
    fences = []
    for _ in range(3):
        run = claimed(hub.worker())
        fences.append(run.fence)
        clock.advance(seconds=61)
    assert fences == [1, 2, 3]
    assert hub.worker().claim(CLAIM) is None
    shown = hub.agent().run(run.id)
    assert shown.state is RunState.QUARANTINED
    assert "attempt 3" in (shown.failure or "")


def test_a_released_run_is_the_next_workers_first_attempt(hub: Hub, leaf: str) -> None:
    run = claimed(hub.worker("gpu1"))
    released = hub.worker("gpu1").release(run.id, wire.Release(fence=run.fence, reason="drain"))
    assert released.state is RunState.QUEUED
    again = claimed(hub.worker("gpu2"))
    assert (again.id, again.attempt, again.fence) == (run.id, 1, 2)


def test_faults_of_the_infrastructure_count_as_attempts(hub: Hub, leaf: str) -> None:
    for _ in range(3):
        run = claimed(hub.worker())
        release = wire.Release(fence=run.fence, reason="disk full", fault=True)
        hub.worker().release(run.id, release)
    shown = hub.agent().run(run.id)
    assert (shown.state, shown.failure) == (RunState.QUARANTINED, "disk full")


# Results ----------------------------------------------------------------------------------------


def test_a_result_ends_the_run_and_is_ranked(hub: Hub, leaf: str) -> None:
    worker = hub.worker()
    run = claimed(worker)
    report = ok(run.fence, 1.85, metrics={"peak_vram_mb": 0.0, "num_steps": 150}, log_tail="bye")
    result = worker.finish(run.id, report)
    assert (result.commit, result.agent_id, result.worker_id) == (leaf, "ada", "gpu1")
    assert (result.source, result.status) == (wire.Source.MEASURED, Status.KEEP)
    shown = hub.agent().run(run.id)
    assert (shown.state, shown.outcome, shown.val_bpb) == (RunState.FINISHED, Outcome.OK, 1.85)
    assert hub.agent().run_log(run.id) == "bye"
    assert hub.agent().commit(leaf).best == wire.Score(
        val_bpb=1.85, track=f"cpu/20s/{'f' * 8}/inline", source="measured"
    )
    assert worker.claim(CLAIM) is None


def test_the_same_report_again_is_a_200_and_another_one_a_409(hub: Hub, leaf: str) -> None:
    run = claimed(hub.worker())
    http = hub.http(key=hub.key("gpu1", wire.Role.WORKER))
    body = ok(run.fence, 1.85).model_dump(mode="json")
    first = http.put(f"/api/runs/{run.id}/result", json=body)
    second = http.put(f"/api/runs/{run.id}/result", json=body)
    other = http.put(f"/api/runs/{run.id}/result", json=body | {"val_bpb": 1.0})
    assert [answer.status_code for answer in (first, second, other)] == [201, 200, 409]
    assert second.json() == first.json()
    assert other.json()["code"] == "result_conflict"


def test_statuses_follow_the_running_best(hub: Hub, work_tree: WorkTree) -> None:
    grow_leaves(hub, work_tree, 4)
    statuses = []
    for score in (2.0, 2.1, 1.9, 1.9):
        run = claimed(hub.worker())
        statuses.append(hub.worker().finish(run.id, ok(run.fence, score)).status)
    assert statuses == [Status.KEEP, Status.DISCARD, Status.KEEP, Status.DISCARD]
    board = hub.agent().leaderboard()
    assert [entry.val_bpb for entry in board[0].entries] == [1.9, 1.9, 2.0, 2.1]
    assert [entry.rank for entry in board[0].entries] == [1, 2, 3, 4]


@pytest.mark.parametrize("outcome", ["crash", "oom", "nan", "timeout", "invalid"])
def test_the_agents_faults_are_results_and_not_retried(hub: Hub, leaf: str, outcome: str) -> None:
    run = claimed(hub.worker())
    report = wire.ResultCreate(
        fence=run.fence, outcome=Outcome(outcome), description="ZeroDivisionError: 1/0"
    )
    result = hub.worker().finish(run.id, report)
    assert (result.status, result.val_bpb) == (Status.CRASH, None)
    assert hub.agent().run(run.id).failure == "ZeroDivisionError: 1/0"
    assert hub.worker().claim(CLAIM) is None
    assert hub.agent().leaderboard()[0].entries == []


def test_outcomes_are_posted_in_autoresearchs_format(hub: Hub, work_tree: WorkTree) -> None:
    leaves = grow_leaves(hub, work_tree, 3)
    worker = hub.worker()
    reports = [
        {"outcome": "ok", "val_bpb": 1.9, "metrics": {"peak_vram_mb": 45060.2}},
        {"outcome": "ok", "val_bpb": 2.1},
        {"outcome": "oom", "description": "CUDA out of memory"},
    ]
    for report in reports:
        run = claimed(worker)
        worker.finish(run.id, wire.ResultCreate.model_validate({"fence": run.fence, **report}))
    assert [post.content for post in hub.agent().posts("results")][::-1] == [
        f"commit:{leaves[0][:12]} platform:cpu val_bpb:1.900000 vram_gb:44.0 | leaf 0",
        f"commit:{leaves[1][:12]} platform:cpu val_bpb:2.100000 vram_gb:--- | leaf 1 (DISCARD)",
        f"commit:{leaves[2][:12]} platform:cpu val_bpb:--- vram_gb:--- | leaf 2 "
        "(CRASH: CUDA out of memory)",
    ]


@pytest.mark.parametrize(
    "report",
    [
        b'{"fence": 1, "outcome": "ok"}',
        b'{"fence": 1000000000000000000000, "outcome": "ok", "val_bpb": 1}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": NaN}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": Infinity}',
        b'{"fence": 1, "outcome": "great", "val_bpb": 1}',
        b'{"outcome": "ok", "val_bpb": 1}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": 1, "metrics": {"a": [1]}}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": 1, "metrics": {"a": NaN}}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": 1, "log_tail": "\\u0000"}',
        b'{"fence": 1, "outcome": "ok", "val_bpb": 1, "log_tail": "\\ud800"}',
    ],
)
def test_a_senseless_result_is_a_400_and_the_run_goes_on(
    hub: Hub, leaf: str, report: bytes
) -> None:
    run = claimed(hub.worker())
    http = hub.http(key=hub.key("gpu1", wire.Role.WORKER))
    assert http.put(f"/api/runs/{run.id}/result", content=report).status_code == 400
    assert hub.agent().run(run.id).state is RunState.RUNNING
    assert hub.agent().results() == []


def test_tracks_are_never_ranked_together(hub: Hub, leaf: str) -> None:
    worker = hub.worker()
    for platform, score in (("cpu", 1.9), ("H100", 0.99)):
        claim = CLAIM.model_copy(update={"platform": platform})
        run = claimed(worker, claim)
        worker.finish(run.id, ok(run.fence, score))
    boards = hub.agent().leaderboard()
    assert [[entry.val_bpb for entry in board.entries] for board in boards] == [[1.9], [0.99]]
    only = hub.agent().leaderboard(track="H100")
    assert [board.track.platform for board in only] == ["H100"]
    refused(wire.ErrorCode.NOT_FOUND, hub.agent().leaderboard, "TPU")


# Asking -----------------------------------------------------------------------------------------


def test_runs_of_any_commit_can_be_asked_for(hub: Hub, work_tree: WorkTree) -> None:
    inner = work_tree.commit("inner")
    work_tree.commit("leaf")
    hub.agent().push(work_tree.bundle())
    request = wire.RunRequest(kind=wire.RunKind.REPLICATE, count=2)
    asked = hub.agent().request_runs(inner[:12], request)
    assert [run.state for run in asked] == [RunState.QUEUED] * 2
    first = claimed(hub.worker("gpu1"))
    assert (first.commit, first.kind) == (inner, wire.RunKind.REPLICATE)
    # Its twin waits: one live run per commit, track and kind.
    assert claimed(hub.worker("gpu2")).kind is wire.RunKind.FIRST
    hub.worker("gpu1").finish(first.id, ok(first.fence, 2.0))
    second = claimed(hub.worker("gpu1"))
    assert (second.commit, second.kind) == (inner, wire.RunKind.REPLICATE)
    assert second.seed != first.seed


def test_runs_are_listed_newest_first_and_filtered(hub: Hub, work_tree: WorkTree) -> None:
    leaves = grow_leaves(hub, work_tree, 3)
    mine = [claimed(hub.worker(f"gpu{number}")) for number in range(3)]
    hub.worker("gpu0").finish(mine[0].id, ok(mine[0].fence, 2.0))
    agent = hub.agent()
    assert [run.id for run in agent.runs()] == [run.id for run in mine][::-1]
    assert [run.commit for run in agent.runs(commit=leaves[1][:7])] == [leaves[1]]
    assert [run.worker_id for run in agent.runs(worker="gpu2")] == ["gpu2"]
    assert [run.id for run in agent.runs(state=RunState.FINISHED)] == [mine[0].id]
    assert hub.http().get("/api/runs?state=nonsense").status_code == 400
    assert hub.http().get("/api/runs/999").status_code == 404
    for bad in ("/api/runs/x", "/api/runs/-1", f"/api/runs/{10**30}", f"/api/runs?before={10**30}"):
        assert hub.http().get(bad).status_code == 400, bad


# The depth of the queue -------------------------------------------------------------------------


def test_the_depth_counts_what_no_claim_has_seen_yet(hub: Hub, work_tree: WorkTree) -> None:
    leaves = grow_leaves(hub, work_tree, 3)
    agent, worker = hub.agent(), hub.worker()
    assert agent.queue() == wire.QueueDepth(queued=3, running=0, anywhere=3, tracks=[])
    run = claimed(worker)
    agent.request_runs(leaves[2], wire.RunRequest())
    track = run.track or ""
    told = wire.TrackDepth(track=track, queued=2, running=1)
    assert agent.queue() == wire.QueueDepth(queued=3, running=1, anywhere=1, tracks=[told])
    worker.finish(run.id, ok(run.fence, 2.0))
    work_tree.git("checkout", "--quiet", "--detach", leaves[0])
    work_tree.commit("built on the first one")
    agent.push(work_tree.bundle())
    (told,) = agent.queue().tracks
    assert (told.queued, told.running) == (3, 0)


def test_the_depth_is_told_to_prometheus(hub: Hub, leaf: str) -> None:
    hub.agent().request_runs(leaf, wire.RunRequest())
    run = claimed(hub.worker())
    answer = hub.http().get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert lines == [
        f'agenthub_runs_queued{{track="{run.track}"}} 0',
        'agenthub_runs_queued{track=""} 0',
        f'agenthub_runs_running{{track="{run.track}"}} 1',
    ]
    assert hub.http(name=None).get("/metrics").status_code == 401
