"""Similar experiments: what was tried already is found, with its outcome, before it costs a run."""

import io
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, CLAIM, Hub, HubProcess, WorkTree, wait_for

from ah_cli.client import HubClient
from ah_cli.main import main
from server import wire
from server.similar.terms import read_change, read_words, split_diff

TEMPLATE = (Path(__file__).parent.parent / "train_template" / "train.py").read_text()


def set_value(code: str, name: str, value: object) -> str:
    """The code with the first `NAME = ...` of the template changed."""
    changed, count = re.subn(rf"(?m)^(\s*{name} *= )[^\s#]+", rf"\g<1>{value}", code, count=1)
    assert count == 1
    return changed


@dataclass
class Lab:
    """An agent with a work tree whose experiments are pushed one by one."""

    client: HubClient
    tree: WorkTree
    code: str = TEMPLATE

    def baseline(self) -> str:
        return self.push("baseline", self.code)

    def push(self, message: str, code: str) -> str:
        tip = self.tree.commit(message, train_py=code)
        self.client.push(self.tree.bundle())
        return tip

    def change(self, message: str, upon: str, **values: object) -> str:
        """Push an experiment upon a commit."""
        self.tree.git("checkout", "--quiet", "--detach", upon)
        return self.push(message, self.edit(**values))

    def edit(self, **values: object) -> str:
        code = (self.tree.path / "train.py").read_text()
        for name, value in values.items():
            code = set_value(code, name, value)
        return code

    def ask(self, **asked: Any) -> list[wire.Similar]:
        """What is found once everything is read; on a slow machine that may take some questions."""
        return wait_for(lambda: self._ask(asked), "the hub to have read all")[0]

    def _ask(self, asked: dict[str, Any]) -> list[list[wire.Similar]]:
        found, unread = self.client.similar(wire.SimilarQuery(**asked))
        return [] if unread else [found]


@pytest.fixture
def lab(hub: Hub, work_tree: WorkTree) -> Lab:
    return Lab(hub.agent(), work_tree)


def with_decoys(lab: Lab) -> str:
    """A baseline and experiments about other things."""
    root = lab.baseline()
    lab.change("a deeper model", root, DEPTH=4)
    lab.change("longer warmdown, to settle the loss", root, WARMDOWN_RATIO=0.9)
    lab.change("turn the softcap on", root, SOFTCAP=30)
    lab.change("larger batches", root, BATCH_SIZE=32, DEVICE_BATCH_SIZE=32)
    return root


def hashes(found: list[wire.Similar]) -> list[str]:
    return [one.commit.hash for one in found]


def finish(worker: HubClient, end: float | wire.Outcome, description: str = "") -> str:
    """Train the next leaf; return its hash."""
    run = worker.claim(CLAIM)
    assert run is not None
    result = wire.ResultCreate(
        fence=run.fence,
        outcome=end if isinstance(end, wire.Outcome) else wire.Outcome.OK,
        val_bpb=None if isinstance(end, wire.Outcome) else end,
        description=description,
    )
    worker.finish(run.id, result)
    return run.commit


# What is found ----------------------------------------------------------------------------------


def test_the_same_change_upon_another_parent_is_nearest_among_decoys(lab: Lab) -> None:
    root = with_decoys(lab)
    tried = lab.change("MATRIX_LR 0.02 -> 0.04", root, MATRIX_LR=0.04)
    other = lab.change("no weight decay", root, WEIGHT_DECAY=0.0)
    again = lab.change("MATRIX_LR 0.02 -> 0.04", other, MATRIX_LR=0.04)
    found = lab.ask(commit=again)
    assert hashes(found)[:2] == [again, tried]
    itself, nearest, *rest = found
    assert (itself.same_tree, itself.similarity) == (True, 1.0)
    assert (nearest.same_tree, nearest.similarity) == (False, 1.0)
    assert all(one.similarity < 0.7 and not one.same_tree for one in rest)
    assert {"matrix_lr", "0.04"} <= set(nearest.matched)
    assert nearest.commit.agent_id == "ada"


def test_equal_trees_come_first_whatever_their_messages_say(lab: Lab) -> None:
    root = with_decoys(lab)
    first = lab.change("one way to say it", root, QK_GAIN=1.3)
    lab.change("no softness at all in the queries", root, QK_GAIN=1.4)
    second = lab.change("quite another wording", root, QK_GAIN=1.3)
    found = lab.ask(commit=second)
    assert hashes(found)[:2] == [second, first]
    assert [one.same_tree for one in found][:3] == [True, True, False]


def test_a_diff_that_is_not_committed_finds_what_it_repeats(lab: Lab) -> None:
    root = with_decoys(lab)
    tried = lab.change("try a higher rate for matrices", root, MATRIX_LR=0.08)
    lab.tree.git("checkout", "--quiet", "--detach", root)
    (lab.tree.path / "train.py").write_text(lab.edit(MATRIX_LR="0.080"))
    for context in ("--unified=0", "--unified=3", "--unified=500"):
        found = lab.ask(text=lab.tree.git("diff", context), limit=1)
        assert [(one.commit.hash, one.similarity) for one in found] == [(tried, 1.0)]


def test_a_change_is_told_from_its_reverse(lab: Lab) -> None:
    root = with_decoys(lab)
    up = lab.change("raise it", root, MATRIX_LR=0.04)
    down = lab.change("lower it", up, MATRIX_LR=0.01)
    lab.change("lower it", down, MATRIX_LR=0.02)
    diff = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-MATRIX_LR = {}\n+MATRIX_LR = {}\n"
    assert hashes(lab.ask(text=diff.format(0.02, 0.04), limit=1)) == [up]
    assert hashes(lab.ask(text=diff.format(0.04, 0.01), limit=1)) == [down]


def test_words_find_what_was_said_and_done(lab: Lab) -> None:
    root = with_decoys(lab)
    tried = lab.change("Sharper attention: more gain", root, QK_GAIN=1.5)
    for words in ("sharper attention", "QK_GAIN 1.50", "what if the gain were 1.5?", "qk gain"):
        found = lab.ask(text=words)
        assert hashes(found)[:1] == [tried], words
    assert lab.ask(text="qk_gain 1.5")[0].similarity == 1.0
    assert lab.ask(text="banana republic") == []


def test_results_descriptions_are_found_also_when_they_come_later(lab: Lab, hub: Hub) -> None:
    root = with_decoys(lab)
    worker = hub.worker()
    for _ in range(4):
        finish(worker, 1.1)
    tried = lab.change("a wide one", root, N_EMBD=4096)
    assert lab.ask(text="OutOfMemoryError allocate") == []
    told = "torch.OutOfMemoryError: tried to allocate 20.00 GiB"
    assert finish(worker, wire.Outcome.OOM, told) == tried
    found = lab.ask(text="OutOfMemoryError allocate")
    assert hashes(found) == [tried]
    assert (found[0].outcome, found[0].best, found[0].description) == ("oom", None, told)


def test_outcomes_are_shown_whatever_they_are(lab: Lab, hub: Hub) -> None:
    root = lab.baseline()
    worker = hub.worker()
    finish(worker, 1.25)
    tried = {"scored": lab.change("one", root, MATRIX_LR=0.03)}
    finish(worker, 1.2)
    tried["failed"] = lab.change("two", root, MATRIX_LR=0.05)
    finish(worker, wire.Outcome.NAN)
    tried["running"] = lab.change("three", root, MATRIX_LR=0.06)
    assert worker.claim(CLAIM) is not None
    tried["new"] = lab.change("four", root, MATRIX_LR=0.07)
    shown = {one.commit.hash: one for one in lab.ask(text="matrix_lr", limit=50)}
    scored, failed, running, new = (shown[tip] for tip in tried.values())
    assert scored.best is not None
    assert (scored.best.val_bpb, scored.best.source, scored.outcome) == (1.2, "measured", "ok")
    assert scored.best.track.startswith("cpu/20s/")
    assert (failed.best, failed.outcome, failed.state) == (None, "nan", None)
    assert (running.best, running.outcome, running.state) == (None, None, "running")
    assert (new.best, new.outcome) == (None, None)


def test_answers_are_at_most_as_many_as_asked_for(lab: Lab, hub: Hub) -> None:
    root = lab.baseline()
    for number in range(12):
        lab.change(f"MATRIX_LR attempt {number}", root, MATRIX_LR=1 + number / 100)
    assert len(lab.ask(text="matrix_lr")) == 5
    assert len(lab.ask(text="matrix_lr", limit=12)) == 12
    http = hub.http()
    path = f"/api/git/commits/{root[:10]}/similar"
    assert len(http.get(path, params={"limit": 1}).json()) == 1
    assert http.get(path).json()[0]["commit"]["hash"] == root
    assert http.post("/api/similar", json={"text": "x", "limit": 51}).status_code == 400


def test_a_rewrite_is_not_near_to_everything(lab: Lab) -> None:
    root = with_decoys(lab)
    small = lab.change("MATRIX_LR 0.03", root, MATRIX_LR=0.03)
    lab.tree.git("checkout", "--quiet", "--detach", root)
    lines = TEMPLATE.replace("0.02 ", "0.03 ").splitlines()
    rewrite = lab.push("rewrite all of it", "\n".join(f"{line}  # new" for line in lines))
    found = lab.ask(commit=small)
    assert hashes(found)[0] == small
    assert {one.commit.hash: one for one in found}.get(rewrite) is None


# What is asked ----------------------------------------------------------------------------------


HOSTILE = [
    '"',
    '""" OR message:*',
    "AND OR NOT NEAR",
    "NEAR(matrix lr, 5)",
    "message : x - diff : y",
    "^start {a b} : c + d *",
    "experiments_fts MATCH 'x'); DROP TABLE commits; --",
    "-" * 1000,
    "\u202e\ufffd ß İ \U0001d518 ﷽ \u0301\u0301",
    "9" * 60_000,
    "1e999999 1_ .5. 0x1f 1e-400 ٣.٤",
    "_" * 60_000,
    "--- \n+++ \n@@ -1 +1 @@\n" + "+" * 50_000,
    "@@ -" + "9" * 5000 + " +1 @@\n+x = 1",
    " ".join(f"w{number}" for number in range(9000)),
    '"a" ' * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_only_text(lab: Lab, hub: Hub, text: str) -> None:
    lab.baseline()
    answer = hub.http().post("/api/similar", json={"text": text})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert "nothing to compare" in answer.json()["error"]
    assert hub.http().get("/api/git/commits").json()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"text": "x", "commit": "abcd"}, 400),
        ({"text": ""}, 400),
        ({"text": " \n\t"}, 400),
        ({"text": "a\0b"}, 400),
        ({"text": 5}, 400),
        ({"text": "word", "limit": 0}, 400),
        ({"text": "word", "tree": "x"}, 400),
        ({"commit": "zz"}, 400),
        ({"commit": "abcd"}, 404),
        ({"text": "x" * 65_536}, 413),
    ],
)
def test_a_bad_question_is_refused(hub: Hub, body: dict[str, object], status: int) -> None:
    answer = hub.http().post("/api/similar", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_nobody_asks_without_a_key(hub: Hub) -> None:
    assert hub.http(None).post("/api/similar", json={"text": "x"}).status_code == 401
    assert hub.http(None).get("/api/git/commits/abcd/similar").status_code == 401


def test_hostile_commits_are_indexed_as_text_and_hold_nobody_up(lab: Lab, hub: Hub) -> None:
    root = lab.baseline()
    dice = random.Random(1)
    for number, text in enumerate(HOSTILE):
        lab.tree.git("checkout", "--quiet", "--detach", root)
        noise = dice.randbytes(5000).decode("latin-1").replace("\0", "")
        lab.push(f"{text[:200]} hostile {number}", f"{text}\n{noise}\n")
    tried = lab.change("the one after them", root, QK_GAIN=1.25)
    assert hashes(lab.ask(text="the one after them", limit=1)) == [tried]


# Terms ------------------------------------------------------------------------------------------


def test_numbers_and_names_have_one_spelling() -> None:
    assert read_words("0.040 .04 4e-2") == ["0.04"]
    assert read_words("10_000 10000 1E4") == ["10000"]
    assert read_words("MATRIX_LR") == ["matrix_lr", "matrix", "lr"]
    assert read_words("a __init__ _x Ünï") == ["init", "ünï"]


def test_of_a_diff_the_changed_lines_count_those_of_train_py_first() -> None:
    def part(name: str, *lines: str) -> str:
        return (
            f"--- a/{name}\n+++ b/{name}\n@@ -1,2 +1,2 @@ def skipped\n" + "\n".join(lines) + "\n"
        )

    filler = [f"+filler_{number} = {number}" for number in range(3000)]
    other = part("a.py", *filler)
    train = part("train.py", " context = 1", "-rate = 0.02", "+rate = 0.04", "--- gone")
    terms = read_change(f"diff --git a/a.py b/a.py\n{other}{train}")
    assert terms[:2] == ["rate", "0.04"]
    assert {"-0.02", "-gone"} <= set(terms)
    assert not {"context", "skipped", "train", "filler_2999"} & set(terms)
    assert split_diff(f"why\n{train}") == ("why\n", train)


# The index --------------------------------------------------------------------------------------


def documents(data: Path) -> int:
    with closing(sqlite3.connect(data / "hub.db")) as file:
        count: int = file.execute("SELECT count(*) FROM experiments_fts").fetchone()[0]
        return count


def test_a_reopened_hub_goes_on_where_it_was(
    make_hub: Callable[..., Hub], work_tree: WorkTree
) -> None:
    hub = make_hub()
    lab = Lab(hub.agent(), work_tree)
    root = with_decoys(lab)
    assert documents(hub.data) == 0
    lab.ask(text="anything")
    assert documents(hub.data) == 5
    tried = lab.change("late news", root, QK_GAIN=1.2)
    key = hub.key("ada")
    lab.client = make_hub().client(key)
    assert hashes(lab.ask(text="late news", limit=1)) == [tried]
    assert documents(hub.data) == 6


def test_a_hub_reads_what_is_pushed_without_being_asked(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree
) -> None:
    hub = start_hub()
    with hub.client(hub.key("ada")) as client:
        with_decoys(Lab(client, work_tree))
    wait_for(lambda: documents(hub.data) == 5, "the index")


@pytest.mark.stress
def test_kills_in_the_midst_of_reading_lose_nothing(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree
) -> None:
    hub = start_hub()
    key = hub.key("ada")
    count = 400
    for number in range(count):
        work_tree.commit(f"experiment number{number}", train_py=f"value_{number} = {number}\n")
    with hub.client(key) as client:
        client.push(work_tree.bundle())
    before = 0
    for _ in range(4):
        wait_for(lambda before=before: documents(hub.data) > before, "some commits to be read")
        hub.kill()
        before = documents(hub.data)
        hub.start()
    wait_for(lambda: documents(hub.data) == count, "the rest")
    with hub.client(key) as client:
        for number in (0, 1, 57, 399):
            found, _ = client.similar(wire.SimilarQuery(text=f"number{number} value_{number}"))
            assert found[0].commit.message == f"experiment number{number}"
    with closing(sqlite3.connect(hub.data / "hub.db")) as file:
        check = "INSERT INTO experiments_fts(experiments_fts) VALUES ('integrity-check')"
        file.execute(check)
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_hubs_that_read_at_once_agree(make_hub: Callable[..., Hub], work_tree: WorkTree) -> None:
    hubs = [make_hub() for _ in range(3)]
    key = hubs[0].key("ada")
    for number in range(150):
        work_tree.commit(f"experiment number{number}", train_py=f"value_{number} = {number}\n")
    hubs[0].client(key).push(work_tree.bundle())
    indexes = [hub.app.state.hub.similar for hub in hubs]
    for index in indexes:
        index.start()
    wait_for(lambda: documents(hubs[0].data) == 150, "the index")
    for index in indexes:
        index.stop()
    found, unread = hubs[2].client(key).similar(wire.SimilarQuery(text="number77 value_77"))
    assert (found[0].commit.message, unread) == ("experiment number77", 0)


def test_a_repaired_hub_reads_again_what_came_back(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree
) -> None:
    hub = start_hub()
    key = hub.key("ada")
    for number in range(6):
        work_tree.commit(f"experiment number{number}", train_py=f"value_{number} = {number}\n")
    with hub.client(key) as client:
        client.push(work_tree.bundle())
        client.similar(wire.SimilarQuery(text="number1"))
    hub.stop()
    with closing(sqlite3.connect(hub.data / "hub.db")) as file, file:
        file.execute("DELETE FROM commit_parents")
        file.execute("DELETE FROM commits WHERE seq > 1")
        file.execute("UPDATE commits SET message = 'forged', seq = 9")
    fsck = [sys.executable, "-m", "server", "fsck", "--repair", "--data", str(hub.data)]
    subprocess.run(fsck, check=True, capture_output=True)
    hub.start()
    with hub.client(key) as client:
        for number in range(6):
            found, _ = client.similar(wire.SimilarQuery(text=f"number{number} value_{number}"))
            assert found[0].commit.message == f"experiment number{number}"


def test_an_answer_says_how_much_is_still_to_be_read(hub: Hub, work_tree: WorkTree) -> None:
    for number in range(100):
        work_tree.commit(f"experiment number{number}", train_py=f"value_{number} = {number}\n")
    client = hub.agent()
    client.push(work_tree.bundle())
    head = work_tree.git("rev-parse", "HEAD")
    found, unread = client.similar(wire.SimilarQuery(commit=head))
    assert 0 < unread < 100
    assert found[0].same_tree and found[0].commit.hash == head
    assert client.similar(wire.SimilarQuery(text="number99"))[1] == 0


def test_what_is_asked_is_not_stored(lab: Lab, hub: Hub) -> None:
    with_decoys(lab)
    assert lab.ask(text="my secret plan xyzzy_42") == []
    with closing(sqlite3.connect(hub.data / "hub.db")) as file:
        terms = "SELECT count(*) FROM experiments_fts_vocabulary WHERE term LIKE 'xyzzy%'"
        assert file.execute(terms).fetchone() == (0,)


# The command ------------------------------------------------------------------------------------


@dataclass
class Shell:
    config: Path
    cwd: Path

    def __call__(self, *argv: str, stdin: str = "") -> tuple[int, str, str]:
        streams = {
            "stdin": io.TextIOWrapper(io.BytesIO(stdin.encode())),
            "stdout": io.TextIOWrapper(io.BytesIO()),
            "stderr": io.TextIOWrapper(io.BytesIO()),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AGENTHUB_")]:
                patch.delenv(name)
            patch.setenv("AGENTHUB_CONFIG", str(self.config))
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            patch.chdir(self.cwd)
            code = main(argv)
        out, err = (streams[name].buffer.getvalue().decode() for name in ("stdout", "stderr"))  # type: ignore[attr-defined]
        return code, out, err


@pytest.fixture
def ah(start_hub: Callable[..., HubProcess], work_tree: WorkTree, tmp_path: Path) -> Shell:
    """`ah` at a pushed baseline, from which one experiment scored and one crashed."""
    hub = start_hub()
    ah = Shell(tmp_path / "config.json", work_tree.path)
    assert ah("join", hub.url, "--name", "ada", "--admin-key", ADMIN_KEY)[0] == 0
    with (
        hub.client(hub.key("gpu1", wire.Role.WORKER)) as worker,
        hub.client(hub.key("b")) as client,
    ):
        lab = Lab(client, work_tree)
        root = lab.baseline()
        finish(worker, 1.3)
        lab.change("MATRIX_LR to 0.04", root, MATRIX_LR=0.04)
        finish(worker, 1.25)
        lab.change("MATRIX_LR to 0.5", root, MATRIX_LR=0.5)
        finish(worker, wire.Outcome.CRASH)
    work_tree.git("checkout", "--quiet", "--detach", root)
    return ah


def edit(ah: Shell, **values: object) -> None:
    code = (ah.cwd / "train.py").read_text()
    for name, value in values.items():
        code = set_value(code, name, value)
    (ah.cwd / "train.py").write_text(code)


def git(ah: Shell, *args: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    return subprocess.check_output(["git", *who, *args], cwd=ah.cwd, text=True).strip()


def test_ah_similar_compares_changes_that_are_not_committed(ah: Shell) -> None:
    edit(ah, MATRIX_LR=0.04)
    status = git(ah, "status", "--porcelain")
    code, out, err = ah("similar")
    first, second, *_ = out.splitlines()
    assert (code, err) == (0, "note: comparing the changes that are not committed yet\n")
    assert re.match(
        r"same +[0-9a-f]{12}  1\.250000 measured cpu/20s/\S+  b  MATRIX_LR to 0\.04", first
    )
    assert re.match(r"0\.\d\d +[0-9a-f]{12}  crash +b  MATRIX_LR to 0\.5", second)
    assert git(ah, "status", "--porcelain") == status


def test_ah_similar_compares_a_commit_that_is_not_pushed(ah: Shell) -> None:
    edit(ah, MATRIX_LR=0.45)
    git(ah, "commit", "--all", "--quiet", "--message", "MATRIX_LR to 0.45, as for 0.5")
    code, out, err = ah("similar", "--limit", "1", "--json")
    assert (code, err) == (0, "")
    (nearest,) = json.loads(out)
    assert (nearest["commit"]["message"], nearest["outcome"]) == ("MATRIX_LR to 0.5", "crash")
    assert not nearest["same_tree"]


def test_ah_similar_compares_a_pushed_head_and_any_other_commit(ah: Shell) -> None:
    head = git(ah, "rev-parse", "HEAD")
    code, out, err = ah("similar")
    assert (code, err) == (0, "")
    assert re.match(rf"same  {head[:12]}  1\.300000 measured \S+ +b  baseline", out)
    tip = json.loads(ah("log", "--json")[1])[0]["hash"]
    assert ah("similar", tip[:8])[1].startswith(f"same  {tip[:12]}  crash")


def test_ah_similar_reads_words_and_diffs_from_stdin(ah: Shell) -> None:
    assert "MATRIX_LR to 0.5" in ah("similar", "-", stdin="matrix_lr 0.5")[1].splitlines()[0]
    edit(ah, MATRIX_LR=0.5)
    assert "MATRIX_LR to 0.5" in ah("similar", "-", stdin=git(ah, "diff"))[1].splitlines()[0]
    assert ah("similar", "-", stdin="banana republic") == (0, "", "nothing similar\n")
    assert ah("similar", "-", "--json", stdin="banana republic")[1] == "[]\n"


def test_ah_similar_cuts_what_is_too_long(ah: Shell) -> None:
    code, out, err = ah("similar", "-", stdin="matrix_lr 0.5\n" + '"\\\n' * 100_000)
    assert code == 0
    assert "MATRIX_LR to 0.5" in out
    assert re.match(r"note: only the first \d+ of 300014 characters are compared", err)


def test_ah_similar_refuses_with_what_to_do(ah: Shell, tmp_path: Path) -> None:
    code, _, err = ah("similar", "-")
    assert code == 1 and "nothing to compare" in err and "hint: " in err
    code, _, err = ah("similar", "ffffffff")
    assert code == 1 and "commit not found" in err
    code, _, err = Shell(ah.config, tmp_path)("similar")
    assert code == 1 and "not a git repository" in err


def test_a_new_agent_sees_a_root_without_history(ah: Shell, tmp_path: Path) -> None:
    other = Shell(ah.config, tmp_path / "other")
    assert ah("init", str(other.cwd))[0] == 0
    code, _, err = other("similar")
    assert (code, err) == (0, "")
