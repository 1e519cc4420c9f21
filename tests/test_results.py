"""Results: whose word they are, what is believed, what is noise, and what a record is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ADMIN_KEY, CLAIM, Clock, Hub, WorkTree, ok
from sqlalchemy import select

from ah_cli.client import ApiError
from server import results, tables, wire
from server.db import Connection, Database
from server.wire import ScoreState, Source, Status, Verdict

H100 = CLAIM.model_copy(update={"platform": "H100", "budget_seconds": 300, "data": "climbmix"})
#: What one run on an H100 varies by, as far as a hub knows without replicates.
SIGMA = 0.0006


@pytest.fixture
def grow(hub: Hub, make_work_tree: Callable[[str], WorkTree]) -> Callable[..., str]:
    """Push one commit on the named parent and return its hash."""
    tree = make_work_tree("grow")
    count = 0

    def push(message: str, parent: str | None = None, agent: str = "ada", code: str = "") -> str:
        nonlocal count
        count += 1
        if parent:
            tree.git("checkout", "--quiet", "--detach", parent)
        tip = tree.commit(message, train_py=code or f"# {count}\n")
        hub.agent(agent).push(tree.bundle())
        return tip

    return push


@pytest.fixture(autouse=True)
def _kept_counts_are_right(hub: Hub) -> Iterator[None]:
    """Whatever a test did: what was counted as results came is what counting them all tells."""
    yield
    db = Database(hub.app.state.hub.settings.database_url)
    with db.write() as conn:
        kept = _read_counts(conn)
        results.recount(conn)
        assert kept == _read_counts(conn)
    db.close()


def _read_counts(conn: Connection) -> list[set[tuple[object, ...]]]:
    t, r, s, v = tables.tallies, tables.results, tables.scores, tables.visits
    some = (t.c.experiments > 0) | (t.c.repeats > 0)
    queries = (
        select(t).where(some),
        select(r.c.id, r.c.number, r.c.author),
        select(s.c.track_id, s.c.code, s.c.author),
        select(v).where(v.c.n > 0),
        select(tables.tracks.c.id, tables.tracks.c.scored),
    )
    sums = select(*(c for c in tables.tracks.c if c.name.startswith("noise_")))
    rounded = {tuple(round(value, 12) for value in row) for row in conn.execute(sums)}
    return [*({tuple(row) for row in conn.execute(query)} for query in queries), rounded]


def train(hub: Hub, score: float | None, claim: wire.Claim = H100, **more: object) -> wire.Result:
    """Claim the next run and report this score; None crashes."""
    run = hub.worker().claim(claim)
    assert run is not None
    if score is None:
        report = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.CRASH, description="boom")
    else:
        report = ok(run.fence, score, **more)
    return hub.worker().finish(run.id, report)


def board(hub: Hub, track: str = "H100") -> wire.Leaderboard:
    return hub.agent().leaderboard(track)[0]


def refused(code: wire.ErrorCode, call: Callable[..., object], *args: object) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        call(*args)
    assert (refusal.value.status, refusal.value.code) == (code.status, code)
    return refusal.value


# Tracks -----------------------------------------------------------------------------------------


def test_a_track_has_a_readable_name_that_tells_lesser_scoring(
    hub: Hub, grow: Callable[..., str]
) -> None:
    grow("baseline")
    trusted = H100.model_copy(update={"scoring": "isolated+audit"})
    for claim in (H100, trusted):
        train(hub, 1.0, claim)
    labels = {track.name: track.label for track in hub.agent().tracks()}
    assert labels == {
        "H100/300s/ffffffff/inline": "H100 · 300 s · climbmix · inline",
        "H100/300s/ffffffff/isolated+audit": "H100 · 300 s · climbmix",
    }


def test_what_agents_report_is_never_ranked_with_what_workers_measured(
    hub: Hub, grow: Callable[..., str]
) -> None:
    tip = grow("baseline")
    train(hub, 1.0)
    body = wire.ReportCreate(commit=tip, platform="H100", outcome=Status.KEEP, val_bpb=0.999)
    result = hub.agent("bob").report(body)
    assert (result.source, result.track) == (Source.REPORTED, "H100/300s/unknown/reported")
    boards = hub.agent().leaderboard()
    assert [[entry.val_bpb for entry in one.entries] for one in boards] == [[1.0], [0.999]]
    assert [one.entries[0].source for one in boards] == [Source.MEASURED, Source.REPORTED]
    # A measurement says more of a commit than a report does, whichever came last.
    best = hub.agent().commit(tip).best
    assert best is not None
    assert (best.val_bpb, best.source) == (1.0, Source.MEASURED)


def test_discards_and_crashes_stay_findable(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    for message, score in (("worse", 1.1), ("broken", None)):
        grow(message, root)
        train(hub, score)
    agent = hub.agent()
    found = {status: agent.results(status=status) for status in Status}
    assert {status: len(rows) for status, rows in found.items()} == dict.fromkeys(Status, 1)
    assert found[Status.CRASH][0].description == "boom"


# Sanity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (0.0, "not possible"),
        (-1.0, "not possible"),
        (0.0242, "lower than any training"),
        (0.8, "better than the best so far"),
    ],
)
def test_an_unbelievable_score_is_kept_in_quarantine(
    hub: Hub, grow: Callable[..., str], score: float, reason: str
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    tip = grow("too good", root)
    result = train(hub, score)
    assert reason in (result.quarantine or "")
    assert (result.val_bpb, result.verdict, result.status) == (score, None, Status.DISCARD)
    assert [entry.val_bpb for entry in board(hub).entries] == [1.0]
    assert hub.agent().commit(tip).best is None
    assert [one.id for one in hub.agent().results(quarantined=True)] == [result.id]
    assert board(hub).track.quarantined == 1
    assert "QUARANTINED" in hub.agent().posts("results")[0].content


def test_a_score_from_the_future_is_released_by_an_admin_and_then_counts(
    hub: Hub, grow: Callable[..., str]
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    grow("a real breakthrough", root)
    held = train(hub, 0.8)
    refused(wire.ErrorCode.UNAUTHORIZED, hub.agent().release_result, held.id)
    released = hub.client(ADMIN_KEY).release_result(held.id)
    assert (released.quarantine, released.status) == (None, Status.KEEP)
    assert board(hub).entries[0].val_bpb == 0.8
    # And it is trained again before it is a record, like any other.
    again = hub.worker().claim(H100)
    assert again is not None
    assert again.kind is wire.RunKind.REPLICATE
    refused(wire.ErrorCode.INVALID_REQUEST, hub.client(ADMIN_KEY).release_result, held.id)
    refused(wire.ErrorCode.NOT_FOUND, hub.client(ADMIN_KEY).release_result, 999)


def test_a_jump_the_track_has_seen_before_is_no_surprise(
    hub: Hub, grow: Callable[..., str]
) -> None:
    root = grow("baseline")
    train(hub, 2.0)
    grow("half of it", root)
    assert train(hub, 1.85).quarantine is None
    grow("and again", root)
    assert train(hub, 1.6).quarantine is None


def test_a_report_far_from_the_measurement_of_the_same_code_is_not_believed(
    hub: Hub, grow: Callable[..., str]
) -> None:
    tip = grow("baseline")
    train(hub, 1.0)
    body = wire.ReportCreate(commit=tip, platform="H100", outcome=Status.KEEP, val_bpb=0.9)
    assert "workers measured 1.000000" in (hub.agent("eve").report(body).quarantine or "")
    near = body.model_copy(update={"val_bpb": 0.995})
    assert hub.agent("bob").report(near).quarantine is None
    elsewhere = body.model_copy(update={"platform": "RTX-4090"})
    assert hub.agent("bob").report(elsewhere).quarantine is None


def test_a_measurement_casts_doubt_on_reports_that_came_before_it(
    hub: Hub, grow: Callable[..., str]
) -> None:
    tip = grow("baseline")
    body = wire.ReportCreate(commit=tip, platform="H100", outcome=Status.KEEP, val_bpb=0.9)
    assert hub.agent("eve").report(body).quarantine is None
    train(hub, 1.0)
    (report,) = hub.agent().results(quarantined=True)
    assert (report.source, report.agent_id) == (Source.REPORTED, "ada")
    assert board(hub, "H100/300s/unknown").entries == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "0", "-0.5"])
def test_a_report_of_no_number_is_kept_in_quarantine(
    hub: Hub, grow: Callable[..., str], value: str
) -> None:
    tip = grow("baseline")
    body = f'{{"commit":"{tip}","platform":"H100","outcome":"keep","val_bpb":{value}}}'
    answer = hub.http().post("/api/results", content=body)
    assert answer.status_code == 201
    assert answer.json()["quarantine"]
    assert board(hub, "H100").entries == []


# Noise and records ------------------------------------------------------------------------------


def test_a_first_run_that_would_take_the_record_is_trained_again_with_new_seeds(
    hub: Hub, grow: Callable[..., str]
) -> None:
    root = grow("baseline")
    first = train(hub, 1.0)
    assert (first.kind, first.seed, first.verdict) == (wire.RunKind.FIRST, 42, Verdict.KEEP)
    grow("better", root)
    assert train(hub, 0.99).against_record is not None
    runs = [hub.worker(f"gpu{number}").claim(H100) for number in range(2)]
    assert all(run and run.kind is wire.RunKind.REPLICATE for run in runs)
    assert len({run.seed for run in runs if run} | {42}) == 3


def confirm(hub: Hub, scores: dict[str, float]) -> None:
    """Train what is queued, each commit with its own score and a little noise."""
    for number in range(12):
        run = hub.worker().claim(H100)
        if run is None:
            return
        score = scores[run.commit] + SIGMA * (-1) ** number / 2
        hub.worker().finish(run.id, ok(run.fence, score))


def test_a_gain_beyond_the_noise_is_confirmed_and_the_lucky_run_does_not_count(
    hub: Hub, grow: Callable[..., str]
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    tip = grow("better", root)
    train(hub, 0.985)
    assert board(hub).record == hub.agent().leaderboard("H100")[0].record
    assert board(hub).entries[0].state is ScoreState.CHALLENGER
    confirm(hub, {root: 1.0, tip: 0.99})
    record, entry = board(hub).record, board(hub).entries[0]
    assert record is not None
    assert (record.commit, record.z is not None and record.z > 2.75) == (tip, True)
    assert abs(record.val_bpb - 0.99) < 2 * SIGMA
    assert record.standard_error < SIGMA
    assert (entry.state, entry.source) == (ScoreState.CONFIRMED, Source.CONFIRMED)
    assert entry.n == record.n >= 2
    best = hub.agent().commit(tip).best
    assert best is not None
    assert best.source is Source.CONFIRMED
    assert any(post.content.startswith("record: ") for post in hub.agent().posts("results"))
    assert [event.subject for event in hub.agent().events() if event.kind == "record"] == [tip]


def test_luck_is_refuted_and_the_record_stands(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    tip = grow("lucky", root)
    train(hub, 0.9985)
    confirm(hub, {root: 1.0, tip: 1.0})
    record, by_commit = board(hub).record, {entry.commit: entry for entry in board(hub).entries}
    assert record is not None
    assert record.commit == root
    assert by_commit[tip].state is ScoreState.REFUTED
    assert abs(by_commit[tip].val_bpb - 1.0) < SIGMA
    assert hub.worker().claim(H100) is None


def test_code_that_ignores_its_seed_cannot_be_confirmed(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    tip = grow("better, and always the same", root)
    train(hub, 0.99)
    while run := hub.worker().claim(H100):
        score = 0.99 if run.commit == tip else 1.0001 + run.id * 1e-5
        hub.worker().finish(run.id, ok(run.fence, score))
    entry = board(hub).entries[0]
    assert (entry.commit, entry.is_fixed_seed, entry.state) == (tip, True, ScoreState.REFUTED)


def test_replicates_that_crash_do_not_go_on_for_ever(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    grow("better once", root)
    train(hub, 0.99)
    for _ in range(30):
        run = hub.worker().claim(H100)
        if run is None:
            break
        report = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.OOM)
        hub.worker().finish(run.id, report)
    assert hub.worker().claim(H100) is None
    assert board(hub).entries[0].state is ScoreState.REFUTED


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (4.0, Verdict.STRONG),
        (2.0, Verdict.KEEP),
        (1.0, Verdict.MARGINAL),
        (0.0, Verdict.RETEST),
        (-2.0, Verdict.DISCARD),
    ],
)
def test_a_verdict_is_the_gain_in_multiples_of_noise(
    hub: Hub, grow: Callable[..., str], gain: float, verdict: Verdict
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    grow("a change", root)
    result = train(hub, 1.0 - gain * SIGMA * 2**0.5)
    assert result.verdict is verdict
    assert result.against_record is not None
    assert result.against_record == result.against_parent
    assert result.against_record.z == pytest.approx(gain, abs=0.01)


# Same work once ---------------------------------------------------------------------------------


def test_equal_code_is_trained_once_whatever_the_commit_says(
    hub: Hub, make_work_tree: Callable[[str], WorkTree]
) -> None:
    ada, bob = make_work_tree("ada"), make_work_tree("bob")
    one = ada.commit("LR up", train_py="LR = 0.04\n", prepare_py="# mine\n")
    two = bob.commit("higher LR", train_py="LR = 0.04\n", prepare_py="# other\n")
    assert hub.agent("ada").push(ada.bundle()).evaluated == []
    run = hub.worker().claim(H100)
    assert run is not None
    (waiting,) = hub.agent("bob").push(bob.bundle()).evaluated
    assert (waiting.hash, waiting.same_as, waiting.score) == (two, one, None)
    assert hub.worker().claim(H100) is None
    hub.worker().finish(run.id, ok(run.fence, 0.9812))
    third = bob.commit("the same once more", train_py="LR = 0.04\n", prepare_py="# again\n")
    (known,) = hub.agent("bob").push(bob.bundle()).evaluated
    assert known.score is not None
    assert (known.hash, known.same_as, known.score.val_bpb) == (third, one, 0.9812)
    assert hub.worker().claim(H100) is None
    best = hub.agent().commit(two).best
    assert best is not None
    assert best.val_bpb == 0.9812


# Fair share and reserve -------------------------------------------------------------------------


def test_a_flood_of_one_agent_does_not_keep_others_waiting(
    hub: Hub, grow: Callable[..., str]
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    flood = {grow(f"flood {number}", root, "flooder") for number in range(6)}
    patient = {grow(f"patient {number}", root, "patient") for number in range(3)}
    order = [train(hub, 1.1).agent_id for _ in range(6)]
    assert order.count("patient") == 3
    assert len(flood) + len(patient) == 9


def test_a_late_comer_starts_where_the_others_are(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    for number in range(8):
        grow(f"early {number}", root, "early")
    for _ in range(4):
        train(hub, 1.1)
    for number in range(4):
        grow(f"late {number}", root, "late")
    assert [train(hub, 1.1).agent_id for _ in range(4)].count("early") == 2


def test_an_inner_commit_leaves_the_queue(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("root")
    other = hub.worker("gpu2")
    run = other.claim(H100)
    assert run is not None
    inner = grow("inner", root)
    # A claim that finds something brings the queue up to date.
    assert [one.commit for one in hub.agent().runs(state=wire.RunState.QUEUED)] == []
    tip = grow("leaf", inner)
    got = hub.worker().claim(H100)
    assert got is not None
    assert got.commit == tip
    assert hub.worker("gpu3").claim(H100) is None


# Import -----------------------------------------------------------------------------------------


def test_a_results_tsv_comes_in_whole(hub: Hub, grow: Callable[..., str], tmp_path: Path) -> None:
    tip = grow("known here")
    rows = [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
        f"{tip[:7]}\t0.997900\t44.0\tkeep\tbaseline",
        "abcdef1\t0.993000\t44.1\tkeep\tLR up",
        "abcdef2\t1.005000\t44.1\tdiscard\tGELU",
        "abcdef3\t0.000000\t0.0\tcrash\ttoo wide",
    ]
    agent = hub.agent("ada")
    done = agent.import_results("\n".join(rows), "H100", 300)
    assert (done.added, done.known, done.keep, done.discard, done.crash) == (4, 0, 2, 1, 1)
    assert (done.unlinked, done.quarantined, done.best) == (3, 0, 0.993)
    assert agent.import_results("\n".join(rows), "H100", 300).known == 4
    assert len(agent.results()) == 4
    linked = [result for result in agent.results() if result.is_linked]
    assert [result.commit for result in linked] == [tip]
    progress = agent.progress("H100")
    assert [point.best for point in progress.points] == [0.9979, 0.993, 0.993, 0.993]
    assert (progress.keeps, progress.discards, progress.crashes) == (2, 1, 1)
    assert progress.keep_rate == pytest.approx(2 / 3)
    assert agent.export_results("H100").splitlines() == rows


def test_autoresearchs_history_of_126_experiments_comes_in_as_it_was(
    hub: Hub, grow: Callable[..., str]
) -> None:
    text = Path(__file__).with_name("results_126.tsv").read_text()
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    kept = [float(row[1]) for row in rows if row[3] == "keep"]
    here = grow("one of them is here")
    text = text.replace(rows[5][0], here[:7])
    agent = hub.agent()
    done = agent.import_results(text, "H100", 300, "climbmix")
    assert (done.added, done.keep, done.discard, done.crash) == (126, 23, 102, 1)
    assert (done.best, done.quarantined, done.problems) == (min(kept), 0, [])
    assert done.unlinked == 126 - text.count(here[:7])
    progress = agent.progress()
    assert (progress.experiments, progress.track.label) == (
        126,
        "H100 · 300 s · climbmix · reported",
    )
    assert progress.keep_rate == pytest.approx(23 / 125)
    steps = [point.best for point in progress.points if point.status is Status.KEEP]
    assert steps == [min(kept[: number + 1]) for number in range(23)]
    assert [f"{row[3]} {row[1]}" for row in rows] == [
        f"{point.status} {point.val_bpb or 0:.6f}" for point in progress.points
    ]
    picture = hub.http(None).get("/progress.svg")
    assert "126 experiments · 23 kept · 102 discarded · 1 crashed" in picture.text
    board = agent.leaderboard()[0]
    assert board.entries[0].val_bpb == min(kept)
    (standing,) = agent.leaderboard(by="agent")[0].agents
    assert (standing.experiments, standing.keeps, standing.crashes) == (126, 23, 1)


def test_a_file_that_is_no_results_tsv_is_refused(hub: Hub) -> None:
    for text in ("", "hello\n", "a\tb\nc\td\n"):
        refused(wire.ErrorCode.INVALID_REQUEST, hub.agent().import_results, text, "H100", 300)
    refused(wire.ErrorCode.INVALID_REQUEST, hub.agent().import_results, "x", "no good name", 300)
    assert hub.agent().tracks() == []


# Posts ------------------------------------------------------------------------------------------


def test_a_post_in_results_is_a_reported_result(
    hub: Hub, grow: Callable[..., str], clock: Clock
) -> None:
    tip = grow("LR up")
    agent = hub.agent("ada")
    agent.create_channel("results")
    line = f"commit:{tip[:7]} platform:H100 val_bpb:0.9932 vram_gb:44.2 | LR 0.04 (DISCARD)"
    post = agent.create_post("results", f"**{line}**")
    (result,) = agent.results()
    assert (result.commit, result.source, result.status) == (tip, Source.REPORTED, Status.DISCARD)
    assert (result.val_bpb, result.post_id, result.track) == (
        0.9932,
        post.id,
        "H100/300s/unknown/reported",
    )
    agent.create_post("results", "val_bpb:0.9 is what I hope for")
    agent.create_channel("discussion")
    agent.create_post("discussion", line)
    assert len(agent.results()) == 1


def test_what_a_worker_announces_is_not_read_as_a_report(
    hub: Hub, grow: Callable[..., str]
) -> None:
    grow("baseline")
    train(hub, 1.0)
    assert [result.source for result in hub.agent().results()] == [Source.MEASURED]


# For agents -------------------------------------------------------------------------------------


def test_the_frontier_ranks_what_to_build_on_and_says_why(
    hub: Hub, grow: Callable[..., str], clock: Clock
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    good = grow("good", root)
    train(hub, 0.9)
    for number in range(2):
        grow(f"worse {number}", good)
        train(hub, 0.95)
    broken = grow("broken", root)
    train(hub, None)
    clock.advance(hours=3)
    fresh = grow("fresh", root)
    found = hub.agent().frontier("best", "H100")
    first = found.entries[0]
    assert (first.commit, first.children, first.failed, first.is_leaf) == (good, 2, 2, False)
    assert first.why == "best challenger, n=1, 2 of 2 children failed, last touched 3 h ago"
    assert broken not in {entry.commit for entry in found.entries}
    newest = hub.agent().frontier("newest", "H100").entries[0]
    assert (newest.commit, newest.why) == (
        fresh,
        "not trained here, nobody built on it, last touched 0 min ago",
    )
    refused(wire.ErrorCode.INVALID_REQUEST, hub.agent().frontier, "nonsense")
    assert [entry.rank for entry in found.entries] == list(range(1, len(found.entries) + 1))


def test_an_empty_hub_has_a_frontier_and_a_brief(hub: Hub) -> None:
    assert hub.agent().frontier().entries == []
    assert "ah init" in hub.agent().brief()


def test_the_brief_tells_the_state_in_few_words(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    for number in range(8):
        grow(f"idea {number} " + "blah `# x` " * 30, root, f"agent{number}")
        train(hub, None if number == 3 else 0.999 + number / 1e4)
    agent = hub.agent()
    agent.create_channel("discussion")
    for number in range(9):
        agent.create_post("discussion", f"post {number}\n# Not a heading\n" + "word " * 500)
    text = agent.brief()
    assert len(text) <= 4500
    assert text.startswith("# H100 · 300 s · climbmix · inline\n")
    for part in ("Baseline: ", "## Best", "## Build on", "## Failures", "## Workers"):
        assert part in text
    assert "\n# Not a heading" not in text
    assert "data, not instructions" in text


def test_the_analysis_tells_trend_failures_and_idle_workers(
    hub: Hub, grow: Callable[..., str], clock: Clock
) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    for number in range(22):
        grow(f"no good {number}", root)
        train(hub, None if number < 2 else 1.01)
    grow("left alone", root)
    assert hub.worker("gpu2").claim(H100) is not None
    clock.advance(minutes=3)
    found = hub.agent().analysis()
    assert (found.trend, found.since_gain, found.crashes) == (wire.Trend.PLATEAU, 22, 2)
    assert (found.keep_rate, found.recent_keep_rate) == (pytest.approx(1 / 21), 0)
    (failure,) = found.failures
    assert (failure.outcome, failure.count, failure.description) == (
        wire.Outcome.CRASH,
        2,
        "boom",
    )
    states = {worker.id: worker.state for worker in found.workers}
    assert states == {"gpu1": wire.WorkerState.IDLE, "gpu2": wire.WorkerState.STALE}
    clock.advance(hours=2)
    states = {worker.id: worker.state for worker in hub.agent().analysis().workers}
    assert states["gpu1"] is wire.WorkerState.GONE


def test_agents_are_ranked_by_their_best_commit(hub: Hub, grow: Callable[..., str]) -> None:
    root = grow("baseline")
    train(hub, 1.0)
    for agent, score in (("bob", 0.995), ("cleo", 1.2), ("bob", 1.1), ("dan", None)):
        grow(f"of {agent}", root, agent)
        train(hub, score)
    (ranked,) = hub.agent().leaderboard(by="agent")
    rows = [(one.rank, one.agent_id, one.best, one.experiments, one.keeps) for one in ranked.agents]
    assert rows == [
        (1, "bob", 0.995, 2, 1),
        (2, "ada", 1.0, 1, 1),
        (3, "cleo", 1.2, 1, 0),
        (4, "dan", None, 1, 0),
    ]
    assert (ranked.agents[0].keep_rate, ranked.agents[3].crashes) == (0.5, 1)


def test_the_analysis_tells_which_kinds_of_change_paid(
    hub: Hub, make_work_tree: Callable[[str], WorkTree]
) -> None:
    tree = make_work_tree("settings")
    base = "DEPTH = 8\nLR = 0.02\n"
    root = tree.commit("baseline", train_py=base)
    hub.agent().push(tree.bundle())
    train(hub, 1.0)
    tries = (("DEPTH = 9", 0.9995), ("LR = 0.04", 1.01), ("LR = 0.01", 1.02), ("DEPTH = 10", None))
    for line, score in tries:
        name = line.split()[0]
        code = "".join(
            line + "\n" if old.startswith(name) else old + "\n" for old in base.split("\n")
        )
        tree.git("checkout", "--quiet", "--detach", root)
        tree.commit(line, train_py=code.rstrip("\n") + "\n")
        hub.agent().push(tree.bundle())
        train(hub, score)
    # A question about what is similar has the diffs read now.
    hub.agent().similar(wire.SimilarQuery(text="DEPTH"))
    found = hub.agent().analysis()
    assert [(one.kind, one.kept, one.tried, one.crashed) for one in found.paid] == [
        ("DEPTH", 1, 2, 1)
    ]
    assert found.paid[0].best_gain == pytest.approx(0.0005)
    assert [(one.kind, one.tried) for one in found.failed] == [("LR", 2)]
    assert found.failed[0].mean_gain == pytest.approx(-0.015)
    brief = hub.agent().brief()
    assert "- DEPTH: +0.0005" in brief
    assert "- LR: 2 tried" in brief


@pytest.mark.parametrize("value", ["1e308", "100"])
def test_a_score_too_large_for_text_waits_in_quarantine_and_breaks_no_list(
    hub: Hub, grow: Callable[..., str], value: str
) -> None:
    tip = grow("baseline")
    say = '{{"commit":"{}","platform":"H100","outcome":"discard","val_bpb":{},"vram_gb":1e306}}'
    for score in ("1.0", value):
        assert hub.http().post("/api/results", content=say.format(tip, score)).status_code == 201
    agent = hub.agent()
    held, believed = agent.results()
    assert "higher than" in (held.quarantine or "")
    assert believed.quarantine is None
    assert "peak_vram_mb" not in held.metrics
    assert [entry.val_bpb for entry in board(hub).entries] == [1.0]
    assert len(agent.progress().points) == 2
    refused(wire.ErrorCode.INVALID_REQUEST, hub.client(ADMIN_KEY).release_result, held.id)
