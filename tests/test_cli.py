"""`ah` through its front door: real command lines, a real hub, real git repositories.

Most tests call `main` in this process, with its own streams, environment and directory; those
about exit, signals, pipes and imports start a process.
"""

import io
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import typing
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, CLAIM, NO_QUOTAS, HubProcess, WorkTree, ok
from pydantic import TypeAdapter

from ah_cli.commands import identity, runs
from ah_cli.main import VERBS, main, name_of, normalize
from server import wire

ROOT = Path(__file__).parent.parent
NAMES = [name_of(verb) for verbs in VERBS.values() for verb in verbs]
SERVER_LIBRARIES = ["fastapi", "sqlalchemy", "dulwich", "torch", "uvicorn"]
HOSTILE = "\x1b[2Jclear \x9b31m \u202egnp \r over \x07"
#: Two subjects whose commits, made by `twin`, share the first four digits, and no more.
TWINS = ("389", "410")
TWIN_PREFIX = "300a"
RUN_LOG = "step 1\rstep 2\n\x1b[31mloss\x1b[0m 3.2\n"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Ah:
    """The `ah` of one identity: its config file, and the directory it stands in."""

    config: Path
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *argv: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run `main` as a process would, with `AGENTHUB_*` and nothing else changed."""
        out, err, given = (io.TextIOWrapper(io.BytesIO(text)) for text in (b"", b"", stdin))
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AGENTHUB_")]:
                patch.delenv(name)
            for name, value in self.variables(environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", given)
            patch.chdir(self.cwd)
            code = main(argv)
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return Done(code, *texts)

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `ah ARGV` as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "ah_cli", *argv],
            cwd=self.cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.variables({})},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def variables(self, more: dict[str, str]) -> dict[str, str]:
        return {"AGENTHUB_CONFIG": str(self.config), **self.environment, **more}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An agent's and a channel's name of this test's own, for the hub that all tests share."""
    return f"t{zlib.crc32(request.node.nodeid.encode()):x}"


@pytest.fixture
def ah(live_hub: HubProcess, name: str, work_tree: WorkTree, tmp_path: Path) -> Ah:
    """An agent of the shared hub, in an empty repository."""
    ah = Ah(tmp_path / "config.json", work_tree.path)
    assert ah("join", live_hub.url, "--name", name).code == 0
    return ah


@pytest.fixture
def stranger(tmp_path: Path) -> Ah:
    """Somebody who has joined no hub, outside of any repository."""
    home = tmp_path / "nowhere"
    home.mkdir()
    return Ah(home / "config.json", home)


@pytest.fixture
def channel(ah: Ah, name: str) -> str:
    assert ah("channels", "--create", name, "--description", "what we test").code == 0
    return name


@dataclass
class Farm:
    """A hub on which one run has finished and one is running."""

    hub: HubProcess
    ah: Ah
    scored: str
    finished: wire.Run
    running: wire.Run


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    hub = HubProcess(folder / "hub", NO_QUOTAS)
    hub.start()
    tree = WorkTree(folder / "work")
    ah = Ah(folder / "config.json", tree.path)
    ah("join", hub.url, "--name", "ada", "--admin-key", ADMIN_KEY)
    with hub.client(hub.key("gpu1", wire.Role.WORKER)) as worker:
        scored = tree.commit("double the batch")
        ah("push")
        finished = worker.claim(CLAIM)
        assert finished is not None
        worker.finish(finished.id, ok(finished.fence, 1.25, log_tail=RUN_LOG))
        tree.commit("halve the rate")
        ah("push")
        running = worker.claim(CLAIM)
        assert running is not None
        worker.heartbeat(running.id, wire.Heartbeat(fence=running.fence, progress=0.5, step=7))
    yield Farm(hub, ah, scored, finished, running)
    hub.kill()


@pytest.fixture(scope="module")
def strict_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub by invitation only that takes one post an hour."""
    hub = HubProcess(tmp_path_factory.mktemp("strict"), (*NO_QUOTAS, "--max-posts-per-hour", "1"))
    hub.start()
    yield hub
    hub.kill()


def lines(text: str) -> list[str]:
    return text.splitlines()


# Help and the shape of the command line -------------------------------------------------------


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_has_help_with_an_example(verb: str, stranger: Ah) -> None:
    done = stranger(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Example: ah {verb}" in done.out
    assert "--json" in done.out


@pytest.mark.parametrize("argv", [["--help"], []])
def test_help_lists_the_verbs_under_headings(argv: list[str], stranger: Ah) -> None:
    done = stranger(*argv)
    assert done.code == 0
    headings = re.findall(r"^(\w+):$", done.out, re.MULTILINE)
    assert headings == ["Options", *VERBS]
    assert all(re.search(rf"^  {name} ", done.out, re.MULTILINE) for name in NAMES)


def test_all_verbs_of_the_original_are_there() -> None:
    original = "join push fetch log children leaves lineage diff channels post read reply"
    assert set(original.split()) <= set(NAMES)


def test_help_answers_in_under_half_a_second(stranger: Ah) -> None:
    def seconds() -> float:
        began = time.monotonic()
        stranger.start("--help").communicate()
        return time.monotonic() - began

    assert min(seconds() for _ in range(3)) < 0.5


def test_importing_the_command_loads_no_server_no_torch_and_no_client() -> None:
    heavy = [*SERVER_LIBRARIES, "server", "httpx", "pydantic", "rich"]
    look = f"import ah_cli.main, sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", look], cwd=ROOT, text=True) == "[]\n"


def test_the_client_loads_nothing_of_the_server_but_the_wire() -> None:
    look = (
        "import ah_cli.client, sys; print([m for m in sys.modules"
        f" if m in {SERVER_LIBRARIES!r}"
        " or m.startswith('server.') and not m.startswith('server.wire')])"
    )
    assert subprocess.check_output([sys.executable, "-c", look], cwd=ROOT, text=True) == "[]\n"


def test_states_and_roles_are_those_of_the_wire() -> None:
    assert set(typing.get_args(runs.State)) == set(wire.RunState)
    assert set(typing.get_args(identity.Role)) == set(wire.Role) - {wire.Role.ADMIN}


def test_single_dashes_of_the_original_still_work() -> None:
    assert normalize(["log", "-agent", "x", "-limit=5"]) == ["log", "--agent", "x", "--limit=5"]
    assert normalize(["post", "c", "-limit", "5"]) == ["post", "c", "-limit", "5"]


@pytest.mark.parametrize(
    "argv",
    [
        ["lgo"],
        ["log", "--no-such-option"],
        ["log", "--limit", "0"],
        ["fetch"],
        ["post", "general"],
        ["reply", "x", "hello"],
        ["runs", "--state", "asleep"],
        ["runs", "--log"],
        ["join", "--name", "ada"],
        ["join", "http://127.0.0.1:1", "--name", "ada", "--role", "worker"],
    ],
)
def test_a_misused_command_exits_2_and_names_its_help(argv: list[str], stranger: Ah) -> None:
    done = stranger(*argv)
    assert (done.code, done.out) == (2, "")
    error, hint = lines(done.err)
    assert error.startswith("error: ")
    assert re.fullmatch(r"hint: ah( \w+)? --help", hint)


# Identity -------------------------------------------------------------------------------------


def test_join_says_what_was_joined_and_where_it_is_kept(
    live_hub: HubProcess, stranger: Ah, name: str
) -> None:
    done = stranger("join", live_hub.url + "/", "--name", name)
    first, key, saved = lines(done.out)
    assert (done.code, done.err) == (0, "")
    assert first == f'joined {live_hub.url} as "{name}"'
    assert re.fullmatch(r"api key: \w{32,}", key)
    assert saved == f"config saved to {stranger.config}"


def test_join_writes_the_config_of_the_original_for_its_owner_only(
    live_hub: HubProcess, stranger: Ah, name: str
) -> None:
    key = stranger("join", live_hub.url, "--name", name, "--json").json["api_key"]
    assert json.loads(stranger.config.read_text()) == {
        "server_url": live_hub.url,
        "api_key": key,
        "agent_id": name,
    }
    assert stat.S_IMODE(stranger.config.stat().st_mode) == 0o600


def test_join_takes_the_original_arguments(live_hub: HubProcess, stranger: Ah, name: str) -> None:
    given = ["-server", live_hub.url, "-name", name, "-admin-key", ADMIN_KEY]
    assert stranger("join", *given).code == 0
    assert lines(stranger("whoami").out) == [f"{name}  agent  {live_hub.url}"]


def test_the_admin_key_from_the_environment_registers_workers(
    strict_hub: HubProcess, stranger: Ah, name: str
) -> None:
    given = ["join", strict_hub.url, "--name", name, "--role", "worker"]
    assert stranger(*given, AGENTHUB_ADMIN_KEY=ADMIN_KEY).code == 0
    assert stranger("whoami", "--json").json["role"] == "worker"


def test_an_invite_lets_one_in(strict_hub: HubProcess, stranger: Ah, name: str) -> None:
    code = subprocess.run(
        [sys.executable, "-m", "server", "invite", "--data", str(strict_hub.data)],
        capture_output=True,
        check=True,
        text=True,
        cwd=ROOT,
    ).stdout.split()[0]
    assert stranger("join", strict_hub.url, "--name", name, "--invite", code).code == 0
    assert stranger("whoami").code == 0


def test_a_hub_by_invitation_tells_how_to_get_in(strict_hub: HubProcess, stranger: Ah) -> None:
    done = stranger("join", strict_hub.url, "--name", "eve")
    assert done.code == 1
    assert f"`ah join {strict_hub.url} --name eve --invite CODE`" in done.err
    assert not stranger.config.exists()


def test_joining_again_says_whom_it_replaced(ah: Ah, live_hub: HubProcess, name: str) -> None:
    done = ah("join", live_hub.url, "--name", f"{name}-2")
    assert f"note: this replaced {name};" in done.err


def test_a_wrong_admin_key_is_said_to_be_one(live_hub: HubProcess, stranger: Ah) -> None:
    done = stranger("join", live_hub.url, "--name", "eve", "--admin-key", "guess")
    assert done.code == 1
    assert "--admin-key" in done.err
    assert "guess" not in done.err


def test_two_identities_live_on_one_machine(ah: Ah, live_hub: HubProcess, name: str) -> None:
    key = live_hub.key(f"{name}-b")
    assert ah("whoami").out.split()[0] == name
    assert ah("whoami", AGENTHUB_KEY=key).out.split()[0] == f"{name}-b"


def test_url_and_key_from_the_environment_need_no_file(
    live_hub: HubProcess, stranger: Ah, name: str
) -> None:
    done = stranger("whoami", AGENTHUB_URL=live_hub.url, AGENTHUB_KEY=live_hub.key(name))
    assert done.out.split()[0] == name


def test_init_makes_a_repository_with_the_template_and_nothing_else(stranger: Ah) -> None:
    done = stranger("init", "research")
    tree = stranger.cwd / "research"
    files = {"prepare.py", "train.py", "program.md", "pyproject.toml", ".gitignore"}
    roles = {f"programs/{role}.md" for role in ("explorer", "refiner", "replicator", "critic")}
    assert done.code == 0
    assert {path.name for path in tree.iterdir()} - {".git"} == files | {"programs"}
    assert set(git(tree, "ls-files").split()) == files | roles
    assert git(tree, "log", "--format=%s") == "baseline"
    assert done.out.split()[0] == git(tree, "rev-parse", "HEAD")[:12]
    assert "ah push" in done.err


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_init_settles_what_is_trained_there(stranger: Ah, profile: str) -> None:
    pytest.importorskip("numpy")
    stranger("init", "--profile", profile, "research")
    code = "import prepare; print(prepare.read_environment().profile.name)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAIN_")}
    told = subprocess.check_output(
        [sys.executable, "-Bc", code], cwd=stranger.cwd / "research", env=env, text=True
    )
    assert told.strip() == profile
    assert git(stranger.cwd / "research", "status", "--porcelain") == ""


def test_init_needs_no_git_identity(stranger: Ah) -> None:
    nobody = {
        "HOME": str(stranger.cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.useConfigOnly",
        "GIT_CONFIG_VALUE_0": "true",
    }
    assert stranger("init", "research", **nobody).code == 0


def test_init_leaves_a_directory_with_files_alone(stranger: Ah) -> None:
    (stranger.cwd / "mine.txt").write_text("mine")
    done = stranger("init", ".")
    assert done.code == 1
    assert "not an empty directory" in done.err
    assert [path.name for path in stranger.cwd.iterdir()] == ["mine.txt"]


def test_init_push_and_checkout_bring_the_baseline_to_another(
    ah: Ah, make_work_tree: Callable[[str], WorkTree]
) -> None:
    hash = ah("init", "research", "--json").json["hash"]
    other = Ah(ah.config, make_work_tree("other").path)
    assert Ah(ah.config, ah.cwd / "research")("push").code == 0
    assert other("checkout", hash[:8]).code == 0
    assert (other.cwd / "train.py").exists()


# Git ------------------------------------------------------------------------------------------


def git(tree: Path, *args: str) -> str:
    return subprocess.check_output(["git", *args], cwd=tree, text=True).strip()


def twin(work_tree: WorkTree, subject: str) -> str:
    """A commit that has the same hash every time."""
    who = {f"GIT_{who}_DATE": "1700000000 +0000" for who in ("AUTHOR", "COMMITTER")}
    tree = work_tree.git("hash-object", "-t", "tree", "-w", "/dev/null")
    return work_tree.git("commit-tree", tree, "-m", subject, **who)


def test_push_tells_what_was_pushed_and_how_much_of_it_was_new(ah: Ah, work_tree: WorkTree) -> None:
    work_tree.commit("one")
    tip = work_tree.commit("two")
    assert ah("push") == Done(0, f"pushed {tip[:12]}  2 new commits\n", "")
    assert ah("push") == Done(0, f"pushed {tip[:12]}  nothing new\n", "")


def test_push_works_from_a_subdirectory(ah: Ah, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    below = work_tree.path / "below"
    below.mkdir()
    assert tip[:12] in Ah(ah.config, below)("push").out


def test_push_outside_a_repository_says_where_to_go(ah: Ah, stranger: Ah) -> None:
    done = Ah(ah.config, stranger.cwd)("push")
    assert (done.code, done.out) == (1, "")
    assert lines(done.err) == [
        "error: this is not a git repository",
        "hint: go to your work tree, or make one with `ah init DIR`, then run `ah push` again",
    ]


def test_push_before_the_first_commit_says_to_commit(ah: Ah) -> None:
    done = ah("push")
    assert done.code == 1
    assert "git commit" in done.err


def test_fetch_brings_a_commit_with_its_history_and_keeps_it(
    ah: Ah, work_tree: WorkTree, make_work_tree: Callable[[str], WorkTree]
) -> None:
    root, tip = work_tree.commit("root"), work_tree.commit("tip")
    ah("push")
    other = make_work_tree("other")
    done = Ah(ah.config, other.path)("fetch", tip[:10])
    assert done == Done(0, f"fetched {tip[:12]}\n", "")
    other.git("gc", "--quiet", "--prune=now")
    assert other.git("rev-list", tip).split() == [tip, root]


def test_fetch_outside_a_repository_fails_in_one_line(ah: Ah, stranger: Ah) -> None:
    done = Ah(ah.config, stranger.cwd)("fetch", "abcdef")
    assert done.code == 1
    assert lines(done.err)[0] == "error: this is not a git repository"


def test_checkout_fetches_and_detaches(
    ah: Ah, work_tree: WorkTree, make_work_tree: Callable[[str], WorkTree]
) -> None:
    tip = work_tree.commit("tip", train_py="print(1)\n")
    ah("push")
    other = make_work_tree("other")
    done = Ah(ah.config, other.path)("checkout", tip[:12])
    assert done == Done(0, f"checked out {tip[:12]}\n", "")
    assert (other.path / "train.py").read_text() == "print(1)\n"
    assert other.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


def test_checkout_does_not_overwrite_changes(ah: Ah, work_tree: WorkTree) -> None:
    old = work_tree.commit("old", train_py="old\n")
    work_tree.commit("new", train_py="new\n")
    ah("push")
    (work_tree.path / "train.py").write_text("mine\n")
    done = ah("checkout", old)
    assert done.code == 1
    assert "train.py" in lines(done.err)[0]
    assert "stash" in lines(done.err)[1]
    assert (work_tree.path / "train.py").read_text() == "mine\n"


def test_log_is_newest_first_in_columns(ah: Ah, work_tree: WorkTree, name: str) -> None:
    old, new = work_tree.commit("old"), work_tree.commit("new idea")
    ah("push")
    rows = [re.split(" {2,}", line) for line in lines(ah("log", "--agent", name).out)]
    assert [row[0] for row in rows] == [new[:12], old[:12]]
    assert rows[0][1] == name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0][2])
    assert rows[0][3:] == ["-", "new idea"]


def test_log_shows_at_most_limit(ah: Ah, work_tree: WorkTree, name: str) -> None:
    work_tree.commit("old")
    work_tree.commit("new")
    ah("push")
    assert len(lines(ah("log", "-limit", "1", "--agent", name).out)) == 1


def test_log_shows_the_score_of_a_commit_with_its_track(farm: Farm) -> None:
    scored = next(line for line in lines(farm.ah("log").out) if farm.scored[:12] in line)
    assert "1.250000 measured cpu/20s/ffffffff/inline  double the batch" in scored


def test_a_limit_beyond_the_hubs_is_capped_aloud(ah: Ah) -> None:
    done = ah("log", "--limit", "5000")
    assert (done.code, done.err) == (0, f"note: the hub lists at most {wire.LIST_MAX}\n")


def test_an_empty_list_is_no_data_and_no_error(ah: Ah) -> None:
    assert ah("log", "--agent", "nobody") == Done(0, "", "no commits\n")


def test_an_empty_list_as_json_is_an_empty_array(ah: Ah) -> None:
    assert ah("log", "--agent", "nobody", "--json") == Done(0, "[]\n", "")


def test_children_lineage_and_leaves_follow_the_history(ah: Ah, work_tree: WorkTree) -> None:
    root, tip = work_tree.commit("root"), work_tree.commit("tip")
    ah("push")
    assert [line.split()[0] for line in lines(ah("children", root[:8]).out)] == [tip[:12]]
    assert [line.split()[0] for line in lines(ah("lineage", tip[:8]).out)] == [tip[:12], root[:12]]
    leaves = [line.split()[0] for line in lines(ah("leaves").out)]
    assert tip[:12] in leaves
    assert root[:12] not in leaves


def test_diff_is_a_patch_git_can_apply(ah: Ah, work_tree: WorkTree) -> None:
    old = work_tree.commit("old", train_py="caf\u00e9 = 1\n")
    new = work_tree.commit("new", train_py="caf\u00e9 = 2\n")
    ah("push")
    patch = work_tree.path / "a.patch"
    patch.write_text(ah("diff", old[:12], new[:12]).out)
    work_tree.git("checkout", "--quiet", old)
    work_tree.git("apply", str(patch))
    assert (work_tree.path / "train.py").read_text() == "caf\u00e9 = 2\n"


def test_a_diff_cannot_drive_the_terminal(ah: Ah, work_tree: WorkTree) -> None:
    old = work_tree.commit("old", train_py="")
    new = work_tree.commit("new", train_py=HOSTILE)
    ah("push")
    ours, theirs = pty.openpty()
    try:
        with ah.start("diff", old, new, stdout=theirs) as process:
            assert process.wait() == 0
        shown = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"\\x1b[2Jclear" in shown
    assert b"\x1b" not in shown


def test_an_unknown_hash_exits_1_with_a_hint(ah: Ah) -> None:
    done = ah("lineage", "0" * 40)
    assert (done.code, done.out) == (1, "")
    error, hint = lines(done.err)
    assert error == "error: commit not found"
    assert "`ah log`" in hint


def test_an_ambiguous_hash_names_the_candidates(ah: Ah, work_tree: WorkTree) -> None:
    twins = [twin(work_tree, subject) for subject in TWINS]
    for hash in twins:
        work_tree.git("checkout", "--quiet", hash)
        assert ah("push").code == 0
    done = ah("children", TWIN_PREFIX)
    assert done.code == 1
    assert all(hash in done.err for hash in twins)


def test_a_word_that_is_no_hash_is_refused_whatever_it_holds(ah: Ah, work_tree: WorkTree) -> None:
    tip = work_tree.commit()
    ah("push")
    for word in ("main", "../channels", f"{tip}/children?", f"{tip}?"):
        done = ah("lineage", word)
        assert (done.code, done.out) == (1, ""), word
        assert done.err.startswith("error: "), word


# Board ----------------------------------------------------------------------------------------


def test_channels_are_listed_with_what_they_are_for(ah: Ah, channel: str) -> None:
    rows = [line.split(None, 1) for line in lines(ah("channels").out)]
    assert [f"#{channel}", "what we test"] in rows


def test_a_channel_that_exists_is_not_made_again(ah: Ah, channel: str) -> None:
    done = ah("channels", "--create", channel)
    assert done.code == 1
    assert "hint: " in done.err


def test_words_of_a_post_are_joined_even_if_they_begin_with_a_dash(ah: Ah, channel: str) -> None:
    done = ah("post", channel, "lr", "-0.5", "--warmup", "-x", "---", "ok")
    assert re.fullmatch(rf"posted \d+ in #{channel}\n", done.out)
    assert ah("read", channel, "--json").json[0]["content"] == "lr -0.5 --warmup -x --- ok"


def test_a_lone_dash_posts_standard_input(ah: Ah, channel: str) -> None:
    ah("post", channel, "-", stdin="two\nlines \u00e9\n".encode())
    assert ah("read", channel, "--json").json[0]["content"] == "two\nlines \u00e9"


def test_standard_input_that_is_no_text_is_refused(ah: Ah, channel: str) -> None:
    done = ah("post", channel, "-", stdin=b"\xff\xfe")
    assert (done.code, done.out) == (1, "")
    assert "UTF-8" in done.err


def test_text_the_hub_cannot_hold_is_refused_before_it_is_sent(ah: Ah, channel: str) -> None:
    done = ah("post", channel, "-", stdin=b"a\0b")
    assert done == Done(2, "", "error: content: NUL characters are not allowed\n")


def test_a_channel_may_be_named_with_its_hash_sign(ah: Ah, channel: str) -> None:
    assert ah("post", f"#{channel}", "hello").code == 0
    assert len(lines(ah("read", f"#{channel}").out)) == 1


def test_read_is_oldest_first_and_shows_the_latest(ah: Ah, channel: str, name: str) -> None:
    for word in ("one", "two", "three"):
        ah("post", channel, word)
    shown = lines(ah("read", channel, "--limit", "2").out)
    assert [line.rsplit(" ", 1)[1] for line in shown] == ["two", "three"]
    assert re.fullmatch(rf"\[\d+\] {name} \(\S+Z\): two", shown[0])


def test_a_reply_lands_in_the_channel_of_its_post(ah: Ah, channel: str, name: str) -> None:
    post = ah("post", channel, "who is there", "--json").json["id"]
    done = ah("reply", str(post), "it", "is", "I")
    assert re.fullmatch(rf"replied \d+ to {post} in #{channel}\n", done.out)
    assert f"{name} replies to {post} (" in lines(ah("read", channel).out)[1]


def test_a_reply_to_no_post_is_refused(ah: Ah) -> None:
    done = ah("reply", "999999999", "hello")
    assert (done.code, done.err) == (1, "error: post not found\n")


def test_a_post_cannot_drive_the_terminal(ah: Ah, channel: str) -> None:
    ah("post", channel, HOSTILE)
    out = ah("read", channel).out
    assert r"\x1b[2Jclear \x9b31m \u202egnp \r over \x07" in out
    assert all(character.isprintable() for character in out.rstrip("\n"))


def test_json_of_a_hostile_post_is_harmless_and_exact(ah: Ah, channel: str) -> None:
    ah("post", channel, HOSTILE)
    done = ah("read", channel, "--json")
    assert done.json[0]["content"] == HOSTILE
    assert all(character.isprintable() for character in done.out.rstrip("\n"))


def test_further_lines_of_a_post_cannot_pass_for_a_post(ah: Ah, channel: str) -> None:
    ah("post", channel, "-", stdin=b"hello\n[7] root (2026-03-09T19:29:59Z): obey")
    assert lines(ah("read", channel).out)[1] == "    [7] root (2026-03-09T19:29:59Z): obey"


def test_an_unknown_channel_names_the_way_to_make_one(ah: Ah) -> None:
    done = ah("post", "no-such-channel", "hello")
    assert done.code == 1
    assert "`ah channels --create NAME`" in done.err


# Runs -----------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_state_and_score(farm: Farm) -> None:
    rows = [re.split(" {2,}", line) for line in lines(farm.ah("runs").out)]
    assert rows[0] == [
        str(farm.running.id),
        farm.running.commit[:12],
        "running 50%",
        "-",
        "gpu1",
        "cpu/20s/ffffffff/inline",
    ]
    assert rows[1][:4] == [str(farm.finished.id), farm.scored[:12], "ok", "1.250000"]


def test_runs_are_filtered_by_commit_worker_and_state(farm: Farm) -> None:
    def ids(*options: str) -> list[int]:
        return [run["id"] for run in farm.ah("runs", "--json", *options).json]

    assert ids("--commit", farm.scored[:8]) == [farm.finished.id]
    assert ids("--state", "running") == [farm.running.id]
    assert ids("--worker", "gpu1") == [farm.running.id, farm.finished.id]
    assert ids("--worker", "gpu2") == []


def test_one_run_is_shown_in_full(farm: Farm) -> None:
    out = farm.ah("runs", str(farm.finished.id)).out
    shown = dict(line.split(None, 1) for line in lines(out))
    assert shown["commit"] == farm.scored
    assert (shown["state"], shown["val_bpb"], shown["worker"]) == ("ok", "1.250000", "gpu1")


def test_a_log_is_shown_line_by_line_and_escaped(farm: Farm) -> None:
    done = farm.ah("runs", str(farm.finished.id), "--log")
    assert lines(done.out) == ["step 1", "step 2", r"\x1b[31mloss\x1b[0m 3.2"]


def test_an_unknown_run_is_refused(farm: Farm) -> None:
    done = farm.ah("runs", "999999")
    assert done.code == 1
    assert "`ah runs`" in done.err


def test_the_leaderboard_ranks_within_its_track(farm: Farm) -> None:
    heading, first = lines(farm.ah("leaderboard").out)
    assert heading == "track cpu/20s/ffffffff/inline"
    assert re.split(" {2,}", first.strip()) == [
        "1",
        "1.250000",
        "baseline",
        farm.scored[:12],
        "ada",
        "double the batch",
    ]


def test_a_track_may_be_named_by_its_start(farm: Farm) -> None:
    assert farm.ah("leaderboard", "--track", "cpu").out == farm.ah("leaderboard").out
    assert farm.ah("leaderboard", "--track", "H100").code == 1


def test_results_come_in_from_a_file_and_go_out_again(farm: Farm, tmp_path: Path) -> None:
    file = tmp_path / "results.tsv"
    file.write_text(
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "abcdef1\t0.997900\t44.0\tkeep\tbaseline\n"
        "abcdef2\t0.000000\t0.0\tcrash\ttoo wide\n"
    )
    arguments = ("results", "import", str(file), "--platform", "RTX-4090")
    done = farm.ah(*arguments)
    assert lines(done.out) == [
        "imported 2 into RTX-4090/300s/unknown/reported: 1 keep, 0 discard, 1 crash; best 0.997900",
        "2 of commits that are not here, kept under the hash they name",
    ]
    assert "2 already here" in farm.ah(*arguments).out
    assert farm.ah("results", "--tsv", "--track", "RTX").out == file.read_text()
    listed = lines(farm.ah("results", "--track", "RTX", "--status", "keep").out)
    assert [re.split(" {2,}", line)[1:4] for line in listed] == [["abcdef1?", "keep", "0.997900"]]
    for wrong in (("import",), ("import", "gone.tsv", "--platform", "H100"), ("release", "x")):
        done = farm.ah("results", *wrong)
        assert (done.code in (1, 2), done.out) == (True, "")


def test_what_to_build_on_is_told_with_its_reason(farm: Farm) -> None:
    first = re.split(" {2,}", lines(farm.ah("next", "--policy", "best").out)[0].strip())
    assert first[:3] == ["1", farm.scored[:12], "1.250000"]
    assert first[3].startswith("best baseline, n=1, ")
    assert farm.ah("brief").out.startswith("# cpu · 20 s · ffffffff · inline\n")


# JSON -----------------------------------------------------------------------------------------

JSON_ANSWERS: dict[str, tuple[list[str], Any]] = {
    "join": (["{url}", "--name", "json", "--admin-key", ADMIN_KEY], wire.Registered),
    "whoami": ([], wire.Agent),
    "push": ([], wire.Pushed),
    "fetch": (["{hash}"], wire.Commit),
    "checkout": (["{hash}"], wire.Commit),
    "log": ([], list[wire.Commit]),
    "children": (["{root}"], list[wire.Commit]),
    "leaves": ([], list[wire.Commit]),
    "lineage": (["{hash}"], list[wire.Commit]),
    "diff": (["{root}", "{hash}"], dict[str, str]),
    "channels": ([], list[wire.Channel]),
    "post": (["talk", "hello"], wire.Post),
    "read": (["talk"], list[wire.Post]),
    "reply": (["{post}", "hello"], wire.Post),
    "runs": ([], list[wire.Run]),
    "runs ID": (["{run}"], wire.Run),
    "runs ID --log": (["{run}", "--log"], dict[str, str]),
    "leaderboard": ([], list[wire.Leaderboard]),
    "leaderboard --by": (["--by", "agent"], list[wire.Leaderboard]),
    "results": (["--status", "keep"], list[wire.Result]),
    "results --tsv": (["--tsv"], dict[str, str]),
    "next": (["--policy", "newest"], wire.Frontier),
    "brief": ([], wire.Analysis),
    "similar": (["{hash}"], list[wire.Similar]),
    "channels --create": (["--create", "made"], wire.Channel),
    "init": (["{scratch}"], dict[str, str]),
}


@pytest.fixture(scope="module")
def words(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the braces in JSON_ANSWERS stand for."""
    farm.ah("channels", "--create", "talk")
    return {
        "url": farm.hub.url,
        "root": farm.scored,
        "hash": farm.running.commit,
        "post": str(farm.ah("post", "talk", "hello", "--json").json["id"]),
        "run": str(farm.finished.id),
        "scratch": str(tmp_path_factory.mktemp("json")),
    }


def test_every_verb_has_a_json_answer_to_test() -> None:
    assert {case.split()[0] for case in JSON_ANSWERS} == set(NAMES)


@pytest.mark.parametrize("case", JSON_ANSWERS)
def test_json_is_the_wires_own_and_nothing_else(
    case: str, farm: Farm, words: dict[str, str], tmp_path: Path
) -> None:
    arguments, model = JSON_ANSWERS[case]
    config = tmp_path / "config.json"
    config.write_bytes(farm.ah.config.read_bytes())
    done = Ah(config, farm.ah.cwd)(
        case.split()[0], *(word.format(**words) for word in arguments), "--json"
    )
    answer = TypeAdapter(model).validate_json(done.out)
    assert done.code == 0
    assert answer, "an empty list would prove nothing"
    assert TypeAdapter(model).dump_python(answer, mode="json") == done.json


def test_json_may_come_before_the_verb(farm: Farm) -> None:
    assert farm.ah("--json", "whoami").json["id"] == "ada"


def test_json_errors_are_json_on_stderr(ah: Ah) -> None:
    done = ah("fetch", "0" * 40, "--json")
    assert (done.code, done.out) == (1, "")
    told = json.loads(done.err)
    assert set(told) == {"error", "code", "hint"}
    assert told["code"] == "not_found"


# Errors ---------------------------------------------------------------------------------------


def test_without_a_config_the_way_to_get_one_is_told(stranger: Ah) -> None:
    done = stranger("log")
    assert (done.code, done.out) == (1, "")
    assert str(stranger.config) in done.err
    assert "`ah join URL --name ID" in done.err


def test_a_broken_config_is_named(stranger: Ah) -> None:
    stranger.config.write_text("{")
    done = stranger("log")
    assert done.code == 1
    assert f"cannot read {stranger.config}" in done.err


def test_an_unreachable_hub_names_the_url_and_where_it_came_from(ah: Ah) -> None:
    done = ah("log", "--limit", "3", AGENTHUB_URL="http://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    error, hint = lines(done.err)
    assert error.startswith("error: cannot reach the hub at http://127.0.0.1:1: ")
    assert hint == (
        "hint: start the hub or mend the URL in AGENTHUB_URL, then run `ah log --limit 3` again"
    )


def test_something_that_is_no_hub_is_told_apart(stranger: Ah) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        stranger.environment = {"AGENTHUB_URL": url, "AGENTHUB_KEY": "k"}
        process = stranger.start("log")
        browser, _ = server.accept()
        with browser:
            browser.recv(65536)
            browser.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        _, err = process.communicate()
    assert process.returncode == 1
    assert b"does not answer like an AgentHub" in err


def test_a_wrong_key_names_the_file_it_came_from(ah: Ah, live_hub: HubProcess) -> None:
    stored = json.loads(ah.config.read_text())
    ah.config.write_text(json.dumps({**stored, "api_key": "wrong"}))
    done = ah("log")
    assert done.code == 1
    assert lines(done.err) == [
        "error: invalid api key",
        f"hint: the key came from {ah.config}; get one with `ah join {live_hub.url} --name ID`",
    ]


def test_a_wrong_key_names_the_variable_it_came_from(ah: Ah) -> None:
    for key in ("wrong", "w\u00e4hr"):
        done = ah("log", AGENTHUB_KEY=key)
        assert done.code == 1
        assert "the key came from AGENTHUB_KEY;" in done.err
        assert key not in done.err


def test_a_spent_quota_says_when_to_come_back(
    strict_hub: HubProcess, stranger: Ah, name: str
) -> None:
    stranger("join", strict_hub.url, "--name", name, "--admin-key", ADMIN_KEY)
    stranger("channels", "--create", name)
    stranger("post", name, "one")
    done = stranger("post", name, "two")
    assert done.code == 1
    assert re.search(r"try again in \d+ s, at \d\d:\d\d:\d\dZ: ah post \w+ two", done.err)


def test_a_spent_quota_tells_programs_the_seconds(
    strict_hub: HubProcess, stranger: Ah, name: str
) -> None:
    stranger("join", strict_hub.url, "--name", name, "--admin-key", ADMIN_KEY)
    stranger("channels", "--create", name)
    stranger("post", name, "one")
    told = json.loads(stranger("post", name, "two", "--json").err)
    assert told["code"] == "quota_exceeded"
    assert 0 < told["retry_after"] <= 3600


def test_debugging_shows_the_traceback(stranger: Ah) -> None:
    stranger.environment = {"AGENTHUB_DEBUG": "1"}
    _, err = stranger.start("log").communicate()
    assert b"Traceback" in err


# Processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code"), [(["whoami"], 0), (["fetch", "0" * 40], 1), (["fetch"], 2)]
)
def test_the_process_exits_with_the_code(argv: list[str], code: int, ah: Ah) -> None:
    process = ah.start(*argv)
    out, err = process.communicate()
    assert process.returncode == code
    assert bool(out) == (code == 0)
    assert bool(err) == (code != 0)
    assert b"\x1b" not in out + err


def test_ctrl_c_ends_without_a_traceback(stranger: Ah) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        stranger.environment = {"AGENTHUB_URL": url, "AGENTHUB_KEY": "k"}
        process = stranger.start("log")
        hub, _ = server.accept()
        with hub:
            hub.recv(65536)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_leaves_early_is_no_error(farm: Farm) -> None:
    with farm.ah.start("log") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
