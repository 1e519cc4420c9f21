"""The git room: C git makes the bundles and judges what comes of them."""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from forge import IDENT, Forge, chain_of_deltas, entry_header, pack

from server.errors import HubError, InvalidBundle, MissingPrerequisite, NotFound, TooLarge
from server.repo import BareRepo, Caps, Staged, StagedCommit, find_git
from server.repo.lines import Effort, compare_lines
from server.repo.pack import BLOB, COMMIT, TAG, TREE, hash_object
from server.repo.writer import PackWriter, write_delta

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


@dataclass
class Git:
    """A repository of C git's."""

    path: Path

    def __call__(self, *args: str | Path, data: bytes | None = None, **env: str) -> str:
        return self.raw(*args, data=data, **env).decode(errors="replace").strip()

    def raw(self, *args: str | Path, data: bytes | None = None, **env: str) -> bytes:
        done = subprocess.run(
            ["git", "-C", self.path, *args], input=data, capture_output=True, env=ENV | env
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def commit(self, message: str = "work", **files: str) -> str:
        for name, content in files.items():
            (self.path / name.replace("__", ".")).write_text(content)
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", message)
        return self("rev-parse", "HEAD")

    def bundle(self, *revisions: str) -> Path:
        out = self.path.parent / f"{self.path.name}-{time.monotonic_ns()}.bundle"
        self("bundle", "create", "-q", out, *revisions)
        return out

    def history(self, commits: int) -> None:
        """Many commits with merges, made by fast-import."""
        rng = random.Random(7)
        lines = [f"line {number}" for number in range(200)]
        out = []
        for mark in range(1, commits + 1):
            lines[rng.randrange(200)] = f"changed in {mark}"
            data = "\n".join(lines) + "\n"
            parents = [mark - 1] if mark > 1 else []
            if mark % 10 == 0:
                parents.append(mark - rng.randrange(2, 9))
            links = [f"{'merge' if at else 'from'} :{one}\n" for at, one in enumerate(parents)]
            out.append(
                f"commit refs/heads/main\nmark :{mark}\n"
                f"committer Ann <ann@example.org> {1700000000 + mark} +0000\n"
                f"data <<END\nstep {mark}\nEND\n{''.join(links)}"
                f"M 100644 inline src/{mark % 7}.py\ndata {len(data)}\n{data}\n"
            )
        self("fast-import", "--quiet", data="".join(out).encode())


def new_git(path: Path) -> Git:
    path.mkdir()
    git = Git(path)
    git("init", "-q", "-b", "main")
    return git


@dataclass
class Hub:
    """A repository with the index that the hub's database would be."""

    repo: BareRepo
    rows: set[str] = field(default_factory=set)

    def known(self, hashes: Collection[str]) -> set[str]:
        return self.rows & set(hashes)

    def push(self, bundle: Path) -> Staged:
        with self.repo.stage(bundle, self.known) as staged:
            self.repo.promote(staged)
        self.rows.update(commit.hash for commit in staged.commits)
        return staged

    @property
    def git(self) -> Git:
        return Git(self.repo.path)

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.repo.path.rglob("*"))

    def check(self) -> None:
        assert self.git("fsck", "--full", "--strict", "--no-dangling") == ""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(BareRepo(tmp_path / "repo.git"))


@pytest.fixture
def work(tmp_path: Path) -> Git:
    return new_git(tmp_path / "work")


@pytest.fixture
def small(hub: Hub, tmp_path: Path) -> Hub:
    """Like `hub`, with caps that small things pass."""
    caps = Caps(
        bundle_bytes=100_000, objects=50, inflated_bytes=200_000, blob_bytes=100_000, commits=3,
        parents=4, refs=3, tree_bytes=9_000, tree_depth=5, tree_paths=100, path_bytes=100,
        delta_depth=5,
    )  # fmt: skip
    return Hub(BareRepo(tmp_path / "small.git", caps))


def refused(hub: Hub, bundle: Path, error: type[HubError], *words: str) -> HubError:
    before = hub.files()
    with pytest.raises(error) as caught:
        hub.push(bundle)
    for word in words:
        assert word in caught.value.message
    assert hub.files() == before
    return caught.value


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


# Bundles of C git ----------------------------------------------------------------------------


def test_a_bundle_of_head_brings_every_commit_parents_first(hub: Hub, work: Git) -> None:
    hashes = [work.commit(f"step {number}", a=f"{number}\n") for number in range(5)]
    staged = hub.push(work.bundle("HEAD"))
    assert staged.heads == [hashes[-1]]
    assert [commit.hash for commit in staged.commits] == hashes
    assert [commit.parents for commit in staged.commits] == [(), *((one,) for one in hashes[:-1])]
    assert staged.commits[3].tree == work("rev-parse", f"{hashes[3]}^{{tree}}")
    assert staged.commits[3].subject == "step 3"
    assert staged.commits[3].authored_at == datetime.fromtimestamp(1700000000, UTC)
    hub.check()


def test_heads_keep_the_order_and_the_duplicates_of_the_bundle(hub: Hub, work: Git) -> None:
    first = work.commit("one", a="1\n")
    work("branch", "old")
    second = work.commit("two", a="2\n")
    staged = hub.push(work.bundle("HEAD", "old", "main"))
    named = work("bundle", "list-heads", work.bundle("HEAD", "old", "main"))
    assert staged.heads == [line.split()[0] for line in named.splitlines()]
    assert sorted(staged.heads) == sorted([second, first, second])


def test_staging_shows_nothing_and_leaving_it_removes_everything(hub: Hub, work: Git) -> None:
    tip = work.commit("one", a="1\n")
    before = hub.files()
    with hub.repo.stage(work.bundle("HEAD"), hub.known) as staged:
        assert staged.commits
        assert not hub.repo.has(tip)
        assert hub.git("count-objects", "-v").startswith("count: 0")
    assert hub.files() == before


def test_pushing_what_is_known_changes_nothing(hub: Hub, work: Git) -> None:
    tip = work.commit("one", a="1\n")
    bundle = work.bundle("HEAD")
    hub.push(bundle)
    before = hub.files()
    staged = hub.push(bundle)
    assert staged.heads == [tip]
    assert staged.commits == []
    assert hub.files() == before


def test_promote_can_be_repeated(hub: Hub, work: Git) -> None:
    work.commit("one", a="1\n")
    with hub.repo.stage(work.bundle("HEAD"), hub.known) as staged:
        hub.repo.promote(staged)
        hub.repo.promote(staged)
    with hub.repo.stage(work.bundle("HEAD"), hub.known) as again:
        hub.repo.promote(again)
    assert [commit.hash for commit in again.commits] == [commit.hash for commit in staged.commits]
    hub.check()


def test_a_thin_bundle_needs_its_prerequisites(hub: Hub, work: Git) -> None:
    base = "".join(f"line {number}\n" for number in range(300))
    first = work.commit("one", a=base)
    full = work.bundle("HEAD")
    second = work.commit("two", a=base.replace("line 7\n", "seven\n"))
    thin = work.bundle("main", f"^{first}")
    error = refused(hub, thin, MissingPrerequisite, first)
    assert error.subjects == [first]
    hub.push(full)
    assert [commit.hash for commit in hub.push(thin).commits] == [second]
    hub.check()
    assert hub.git("show", f"{second}:a") == work("show", f"{second}:a")


def test_a_prerequisite_without_a_row_is_missing_though_its_objects_are_there(
    hub: Hub, work: Git
) -> None:
    first = work.commit("one", a="1\n")
    hub.push(work.bundle("HEAD"))
    hub.rows.clear()
    work.commit("two", a="2\n")
    assert refused(hub, work.bundle("main", f"^{first}"), MissingPrerequisite).subjects == [first]


def test_a_large_thin_bundle_becomes_a_pack_that_stands_alone(hub: Hub, work: Git) -> None:
    base = "".join(f"line {number}\n" for number in range(300))
    first = work.commit("base", **{f"f{number}": base + f"{number}\n" for number in range(60)})
    hub.push(work.bundle("HEAD"))
    work.commit("all", **{f"f{number}": base + f"{number} again\n" for number in range(60)})
    work.commit("more", **{f"f{number}": base + f"{number} more\n" for number in range(60)})
    hub.push(work.bundle("main", f"^{first}"))
    assert len(list(hub.repo.path.glob("objects/pack/*.pack"))) == 1
    hub.check()


def test_annotated_tags_are_peeled(hub: Hub, work: Git) -> None:
    tip = work.commit("one", a="1\n")
    work("tag", "-a", "v1", "-m", "first")
    work("tag", "-a", "v1again", "v1", "-m", "tag of a tag")
    staged = hub.push(work.bundle("v1", "v1again", "main"))
    assert staged.heads == [tip] * 3
    assert [commit.hash for commit in staged.commits] == [tip]
    hub.check()


def test_a_tag_of_a_tree_is_refused_by_name(hub: Hub, work: Git) -> None:
    work.commit("one", a="1\n")
    work("tag", "-a", "odd", "HEAD^{tree}", "-m", "a tree")
    refused(hub, work.bundle("odd", "main"), InvalidBundle, "refs/tags/odd", "tree")


def test_version_3_bundles_are_taken_with_sha1_only(hub: Hub, work: Git, tmp_path: Path) -> None:
    tip = work.commit("one", a="1\n")
    out = tmp_path / "v3.bundle"
    work("bundle", "create", "-q", "--version=3", out, "HEAD")
    assert b"@object-format=sha1" in out.read_bytes()
    odd = tmp_path / "odd.bundle"
    odd.write_bytes(out.read_bytes().replace(b"@object-format=sha1", b"@filter=blob:none"))
    refused(hub, odd, InvalidBundle, "@filter=blob:none")
    assert hub.push(out).heads == [tip]


def test_a_long_history_with_merges_equals_rev_list(hub: Hub, work: Git) -> None:
    work.history(500)
    staged = hub.push(work.bundle("main"))
    listed = [line.split() for line in work("rev-list", "--parents", "main").splitlines()]
    assert {(one.hash, *one.parents) for one in staged.commits} == {tuple(row) for row in listed}
    seen: set[str] = set()
    for commit in staged.commits:
        assert seen.issuperset(commit.parents)
        seen.add(commit.hash)
    assert len(list(hub.repo.path.glob("objects/pack/*.pack"))) == 1
    hub.check()


def test_a_whole_history_with_one_new_commit_stores_only_what_is_new(hub: Hub, work: Git) -> None:
    work.history(120)
    hub.push(work.bundle("main"))
    work("checkout", "-q", "main")
    tip = work.commit("new", a="1\n")
    staged = hub.push(work.bundle("main"))
    assert [commit.hash for commit in staged.commits] == [tip]
    assert len(list(hub.repo.path.glob("objects/pack/*.pack"))) == 1
    hub.check()


def test_empty_commits_octopus_merges_and_several_roots(hub: Hub, work: Git) -> None:
    root = work.commit("empty root")
    work("checkout", "-q", "--orphan", "other")
    other = work.commit("another root", a="1\n")
    work("checkout", "-q", "main")
    sides = []
    for name in "pqr":
        work("checkout", "-q", "-B", name, root)
        sides.append(work.commit(f"side {name}", **{name: name}))
    tree = work("write-tree")
    tip = work("commit-tree", tree, *[x for one in [*sides, other] for x in ("-p", one)], "-m", "o")
    work("branch", "-f", "octopus", tip)
    staged = hub.push(work.bundle("octopus"))
    assert staged.commits[-1].parents == (*sides, other)
    assert {commit.hash for commit in staged.commits} == {root, other, *sides, tip}
    hub.check()


def test_criss_cross_merges_arrive_in_two_pushes(hub: Hub, work: Git) -> None:
    root = work.commit("root", a="1\n")
    tree = work("write-tree")
    make: Callable[..., str] = lambda *parents: work(  # noqa: E731
        "commit-tree", tree, "-m", "+".join(parents), *[x for one in parents for x in ("-p", one)]
    )
    left, right = make(root), work("commit-tree", tree, "-m", "right", "-p", root)
    cross, back = make(left, right), make(right, left)
    work("branch", "one", cross)
    work("branch", "two", back)
    assert len(hub.push(work.bundle("one")).commits) == 4
    staged = hub.push(work.bundle("two", f"^{left}", f"^{right}"))
    assert [(one.hash, one.parents) for one in staged.commits] == [(back, (right, left))]
    hub.check()


# Messages and dates --------------------------------------------------------------------------


def describe(hub: Hub, forge: Forge, tail: bytes, date: bytes = b"1700000000") -> StagedCommit:
    head = b"author A <a@b> %s +0000\ncommitter %s\n" % (date, IDENT)
    tip = forge.commit(forge.tree(), head=head, tail=tail)
    return hub.push(forge.bundle(tip)).commits[0]


def test_messages_that_are_not_utf8_become_text(hub: Hub, forge: Forge) -> None:
    commit = describe(hub, forge, b"encoding latin1\n\ncaf\xe9\nau lait\n\nbod\xff\n")
    assert commit.subject == "caf\ufffd au lait"
    assert commit.body == "bod\ufffd"
    commit.subject.encode()
    assert hub.repo.read_commit(commit.hash) == commit


def test_large_messages_are_capped_here_and_whole_in_git(hub: Hub, forge: Forge) -> None:
    commit = describe(hub, forge, b"\n" + b"s" * 5000 + b"\n\n" + b"b" * 10_000_000 + b"\n")
    assert len(commit.subject) == 1000
    assert len(commit.body) == 64 * 1024
    assert len(hub.git("log", "-1", "--format=%b", commit.hash)) == 10_000_000


def test_a_commit_may_have_no_message(hub: Hub, forge: Forge) -> None:
    commit = describe(hub, forge, b"\n")
    assert (commit.subject, commit.body) == ("", "")


@pytest.mark.parametrize(
    ("date", "year"), [(b"0", 1970), (b"99999999999", 5138), (b"9223372036854775807", 9999)]
)
def test_wild_dates_are_clamped(hub: Hub, forge: Forge, date: bytes, year: int) -> None:
    assert describe(hub, forge, b"\nx\n", date).authored_at.year == year


# Hostile bundles -----------------------------------------------------------------------------


def test_garbage_is_refused(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "x.bundle"
    for content in (
        b"", b"x", b"# v2 git bundle", b"# v2 git bundle\n", b"# v2 git bundle\n\n", b"\0" * 5000,
        b"# v9 git bundle\n\nPACK", b"# v2 git bundle\nzz HEAD\n\n",
        b"# v2 git bundle\n" + b"a" * 9000,
        b"# v2 git bundle\n" + b"a" * 40 + b" HEAD\n\n",
        b"# v2 git bundle\n" + b"a" * 40 + b" HEAD\n\n" + pack(0, b""),
        b"# v2 git bundle\n" + b"a" * 40 + b" HEAD\n\n" + pack(0, b"more"),
        b"# v2 git bundle\n" + b"a" * 40 + b" HEAD\n\n" + pack(2**31, b""),
    ):  # fmt: skip
        out.write_bytes(content)
        refused(hub, out, HubError)


def test_a_bundle_cut_anywhere_is_refused(hub: Hub, work: Git, tmp_path: Path) -> None:
    work.history(30)
    content = work.bundle("main").read_bytes()
    out = tmp_path / "cut.bundle"
    for end in [*range(150), *range(150, len(content), len(content) // 100), len(content) - 1]:
        out.write_bytes(content[:end])
        refused(hub, out, InvalidBundle)


def test_flipped_bits_under_a_right_checksum_never_get_through_harmfully(
    hub: Hub, work: Git, tmp_path: Path
) -> None:
    work.history(12)
    content = work.bundle("main").read_bytes()
    start = content.index(b"PACK")
    rng = random.Random(3)
    out = tmp_path / "bits.bundle"
    taken = 0
    for _ in range(400):
        broken = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(content) - 20)] ^= 1 << rng.randrange(8)
        broken[-20:] = hashlib.sha1(broken[start:-20]).digest()
        out.write_bytes(broken)
        before = hub.files()
        try:
            hub.push(out)
            hub.rows.clear()
            taken += 1
        except HubError:
            assert hub.files() == before
    hub.check()
    assert taken < 40


def test_a_zip_bomb_is_refused_at_once(hub: Hub, forge: Forge) -> None:
    deflater = zlib.compressobj(9)
    zeros = b"\0" * 2**20
    body = b"".join(deflater.compress(zeros) for _ in range(64)) + deflater.flush()
    for size, error in ((2**30, TooLarge), (100, InvalidBundle)):
        bundle = forge.write(["1" * 40], pack(1, entry_header(BLOB, size) + body))
        started = time.monotonic()
        refused(hub, bundle, error)
        assert time.monotonic() - started < 1


def test_a_delta_copy_bomb_is_refused_at_once(hub: Hub, forge: Forge) -> None:
    base = b"\0" * 2**16
    delta = write_delta(len(base), 2**29, [(0, 0xFFFF)] * (2**29 // 0xFFFF))
    entry = entry_header(BLOB, len(base)) + zlib.compress(base)
    bomb = entry_header(6, len(delta)) + bytes([len(entry)]) + zlib.compress(delta)
    assert len(entry) < 128
    started = time.monotonic()
    refused(hub, forge.write(["1" * 40], pack(2, entry + bomb)), TooLarge, str(2**29))
    assert time.monotonic() - started < 1


def test_each_cap_has_its_own_refusal(small: Hub, forge: Forge, tmp_path: Path) -> None:
    def fresh() -> Forge:
        return Forge(tmp_path)

    def deep(levels: int) -> Forge:
        made = fresh()
        tree = made.tree((b"100644", b"f", made.blob()))
        for _ in range(levels - 1):
            tree = made.tree((b"40000", b"d", tree))
        made.commit(tree)
        return made

    def last(made: Forge) -> Path:
        return made.bundle(list(made.objects)[-1])

    many = fresh()
    for number in range(51):
        many.blob(b"%d" % number)
    refused(small, last(many), TooLarge, "51 objects", "50")
    large = fresh()
    large.blob(bytes(198_000))
    refused(small, last(large), TooLarge, "198000 bytes", "100000")
    total = fresh()
    for number in range(3):
        total.blob(b"%d" % number * 90_000)
    refused(small, last(total), TooLarge, "inflates to more than 200000")
    trees = fresh()
    for number in range(3):
        names = [b"%04d" % (number * 100 + each) for each in range(100)]
        trees.tree(*[(b"100644", name, trees.blob()) for name in names])
    refused(small, last(trees), TooLarge, "trees have more than 9000 bytes in all")
    wide = fresh()
    wide.blob(os.urandom(100_000))
    refused(small, last(wide), TooLarge, "the bundle has", "at most 100000 are taken")
    long = fresh()
    tip = long.commit(long.tree())
    for _ in range(3):
        tip = long.commit(long.tree(), tip)
    refused(small, long.bundle(tip), TooLarge, "4 commits", "3")
    refused(small, long.bundle(tip, tip, tip, tip), TooLarge, "3 refs")
    refused(small, last(deep(6)), InvalidBundle, "deeper than 5")
    assert small.push(last(deep(5)))
    path = fresh()
    inner = path.tree((b"100644", b"f" * 60, path.blob()))
    path.commit(path.tree((b"40000", b"d" * 60, inner)))
    refused(small, last(path), InvalidBundle, "path of more than 100 bytes")
    bomb = fresh()
    tree = bomb.tree(*[(b"100644", b"%d" % number, bomb.blob()) for number in range(9)])
    for _ in range(3):
        tree = bomb.tree(*[(b"40000", b"%d" % number, tree) for number in range(9)])
    bomb.commit(tree)
    refused(small, last(bomb), InvalidBundle, "more than 100 paths")
    parents = fresh()
    roots = [parents.commit(parents.tree(), tail=b"\n%d\n" % number) for number in range(5)]
    refused(small, parents.bundle(parents.commit(parents.tree(), *roots)), InvalidBundle, "5 par")


def test_a_chain_of_5000_deltas_is_refused(hub: Hub, forge: Forge) -> None:
    refused(hub, chain_of_deltas(forge, 5000), InvalidBundle, "longer than 4096")
    refused(hub, chain_of_deltas(forge, 4000), InvalidBundle, "1" * 40)


def test_deltas_that_name_each_other_are_refused(hub: Hub, forge: Forge) -> None:
    delta = zlib.compress(write_delta(5, 5, [(0, 5)]))
    head = entry_header(7, len(write_delta(5, 5, [(0, 5)])))
    body = b"".join(head + bytes.fromhex(sha * 40) + delta for sha in "ab")
    refused(hub, forge.write(["1" * 40], pack(2, body)), InvalidBundle, "a" * 40)


def test_a_stored_base_that_the_pack_makes_from_its_own_delta_is_no_circle(
    hub: Hub, forge: Forge, tmp_path: Path
) -> None:
    old, new = b"old " * 20, b"new " * 20
    tip = forge.commit(forge.tree((b"100644", b"f", forge.blob(old))))
    hub.push(forge.bundle(tip))
    more = Forge(tmp_path)
    names = sorted([(b"100644", b"f", hash_object(BLOB, new)), (b"100644", b"g", forge.blob(old))])
    child = more.commit(more.tree(*names), tip)
    forth = write_delta(80, 80, [new])
    back = write_delta(80, 80, [old])
    body = b"".join(entry_header(k, len(c)) + zlib.compress(c) for k, c in more.objects.values())
    one = entry_header(7, len(forth)) + bytes.fromhex(forge.blob(old)) + zlib.compress(forth)
    two = entry_header(6, len(back)) + bytes([len(one)]) + zlib.compress(back)
    hub.push(forge.write([child], pack(4, body + one + two), [tip]))
    hub.check()


@pytest.mark.parametrize(
    ("mode", "name", "words"),
    [
        (b"100644", b"", "empty name"),
        (b"100644", b".", "named '.'"),
        (b"40000", b"..", "named '..'"),
        (b"40000", b".git", "'.git'"),
        (b"40000", b".GiT", "'.GiT'"),
        (b"40000", b"git~1", "'git~1'"),
        (b"40000", b"GIT~1. ", "git takes for .git"),
        (b"40000", b".git . ", "git takes for .git"),
        (b"100644", b".git:$DATA", "git takes for .git"),
        (b"100644", b"x\\.git", "git takes for .git"),
        (b"40000", ".g\u200cit".encode(), "git takes for .git"),
        (b"40000", "\ufeff.git".encode(), "git takes for .git"),
        (b"100644", b".gitmodules", "submodules"),
        (b"120000", b".GITMODULES", "submodules"),
        (b"100644", b"gitmod~1", "submodules"),
        (b"100644", b"GI7EBA~1", "submodules"),
        (b"40000", b".gitattributes", "no file"),
        (b"100644", b"a/b", "slash"),
        (b"160000", b"sub", "submodule 'sub'"),
        (b"100777", b"f", "mode '100777'"),
        (b"777", b"f", "mode '777'"),
        (b"0100644", b"f", "mode '0100644'"),
        (b"040000", b"f", "mode '040000'"),
    ],
)
def test_bad_tree_entries_are_refused_by_name(
    hub: Hub, forge: Forge, mode: bytes, name: bytes, words: str
) -> None:
    inner = forge.tree() if mode == b"40000" else forge.blob()
    bad = forge.tree((mode, name, inner))
    tip = forge.commit(forge.tree((b"40000", b"d", bad)))
    assert refused(hub, forge.bundle(tip), InvalidBundle, words, bad).subjects == [bad]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (((b"100644", b"b"), (b"100644", b"a")), "not sorted at 'a'"),
        (((b"40000", b"a"), (b"100644", b"a.b")), "not sorted at 'a.b'"),
        (((b"100644", b"a"), (b"100644", b"a")), "two entries named 'a'"),
        (((b"100644", b"a"), (b"100644", b"a-"), (b"40000", b"a")), "two entries named 'a'"),
    ],
)
def test_unsorted_and_doubled_entries_are_refused(
    hub: Hub, forge: Forge, names: Sequence[tuple[bytes, bytes]], words: str
) -> None:
    bad = forge.tree(
        *[(mode, name, forge.tree() if mode == b"40000" else forge.blob()) for mode, name in names]
    )
    refused(hub, forge.bundle(forge.commit(bad)), InvalidBundle, words, bad)


def test_attributes_that_git_would_not_read_are_refused(hub: Hub, forge: Forge) -> None:
    long = forge.blob(b"x" * 2048)
    tip = forge.commit(forge.tree((b"100644", b".gitattributes", long)))
    refused(hub, forge.bundle(tip), InvalidBundle, long, ".gitattributes")


def test_a_torn_tree_is_refused(hub: Hub, forge: Forge) -> None:
    good = forge.objects[forge.tree((b"100644", b"f", forge.blob()))][1]
    for content in (good[:-1], good + b"x", b"\0" * 30, b"100644 no end"):
        bad = forge.add(TREE, content)
        refused(hub, forge.bundle(forge.commit(bad)), InvalidBundle, bad)
        del forge.objects[bad]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"author %s\ncommitter %s\n\nx", "tree line"),
        (b"tree %s\nauthor %s\ncommitter %s\n\nx", "tree line"),
        (b"tree T\nparent abc\nauthor %s\ncommitter %s\n\nx", "parent line"),
        (b"tree T\ncommitter %s\nauthor %s\n\nx", "author line"),
        (b"tree T\nauthor %s\nauthor %s\ncommitter x\n\nx", "committer line"),
        (b"tree T\nauthor %s\n\nx", "committer line"),
        (b"tree T\nauthor A a@b 1 +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A <a@b> +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A <a@b> 01 +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A <a@b> -1 +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A <a@b> 1 0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A<a@b> 1 +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor <a@b> 1 +0000\ncommitter %s\n\nx", "author line"),
        (b"tree T\nauthor A <a@b> 9223372036854775808 +0000\ncommitter %s\n\nx", "date"),
        (b"tree T\nauthor %s\ncommitter %s\nencoding", "after its committer"),
        (b"tree T\nauthor %s\ncommitter %s\nparent T\n\nx", "after its committer"),
        (b"tree T\nauthor %s\ncommitter %s\n\nx\0y", "NUL"),
        (b"", "tree line"),
    ],
)
def test_bad_commit_headers_are_refused(hub: Hub, forge: Forge, content: bytes, words: str) -> None:
    content = content.replace(b"%s", IDENT).replace(b"T", forge.tree().encode(), 1)
    bad = forge.add(COMMIT, content)
    refused(hub, forge.bundle(bad), InvalidBundle, f"commit {bad}", words)


def test_a_parent_named_twice_and_bad_tags_are_refused(hub: Hub, forge: Forge) -> None:
    root = forge.commit(forge.tree())
    twice = forge.commit(forge.tree(), root, root)
    refused(hub, forge.bundle(twice), InvalidBundle, twice, "parent twice")
    del forge.objects[twice]
    bad = forge.add(TAG, b"object %s\ntype commit\n\nno name" % root.encode())
    refused(hub, forge.bundle(bad), InvalidBundle, f"tag {bad}")
    del forge.objects[bad]
    away = forge.add(TAG, b"object %s\ntype commit\ntag v\ntagger %s\n\nx" % (b"1" * 40, IDENT))
    refused(hub, forge.bundle(away), InvalidBundle, "1" * 40)


def test_missing_objects_are_named_with_who_needs_them(hub: Hub, forge: Forge) -> None:
    gone = "12" * 20
    tree = forge.tree((b"100644", b"f", gone))
    refused(hub, forge.bundle(forge.commit(tree)), InvalidBundle, f"tree {tree} needs blob {gone}")
    top = forge.tree((b"40000", b"d", gone))
    refused(hub, forge.bundle(forge.commit(top)), InvalidBundle, f"tree {top} needs tree {gone}")
    tip = forge.commit(gone)
    refused(hub, forge.bundle(tip), InvalidBundle, f"commit {tip} needs tree {gone}")
    child = forge.commit(forge.tree(), gone)
    error = refused(hub, forge.bundle(child), InvalidBundle, f"commit {child} needs its parent")
    assert error.subjects == [gone]
    refused(hub, forge.bundle(gone), InvalidBundle, gone)


def test_modes_must_match_what_they_name(hub: Hub, forge: Forge) -> None:
    blob, empty = forge.blob(), forge.tree()
    root = forge.commit(empty)
    for mode, sha, words in (
        (b"40000", blob, "is a blob"),
        (b"100644", empty, "is a tree"),
        (b"100644", root, "is a commit"),
    ):
        bad = forge.tree((mode, b"x", sha))
        refused(hub, forge.bundle(forge.commit(bad)), InvalidBundle, bad, sha, words)
    refused(hub, forge.bundle(forge.commit(blob)), InvalidBundle, "is a blob")
    refused(hub, forge.bundle(forge.commit(empty, blob)), InvalidBundle, "parent", blob)
    refused(hub, forge.bundle(blob), InvalidBundle, "refs/heads/b0", "blob")


def test_a_tree_may_not_take_a_new_commit_or_tree_for_a_file(hub: Hub, forge: Forge) -> None:
    root = forge.commit(forge.tree((b"100644", b"f", forge.blob())))
    for sha, words in (
        (root, "is a commit"),
        (forge.tree((b"100644", b"f", forge.blob())), "tree"),
    ):
        bad = forge.tree((b"100644", b"x", sha))
        tip = forge.commit(bad, root)
        refused(hub, forge.bundle(tip), InvalidBundle, f"tree {bad} takes {sha} for a blob", words)
        del forge.objects[tip], forge.objects[bad]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (b"/etc/passwd", "absolute path '/etc/passwd'"),
        (b"../../up", "leaves its tree: 'd/link'"),
        (b"x/../../up", "climbs after it descended"),
        (b"", "no path"),
        (b"a\0b", "no path"),
        (b"../.git/config", "into .git"),
    ],
)
def test_symlinks_that_leave_the_tree_are_refused_by_name(
    hub: Hub, forge: Forge, target: bytes, words: str
) -> None:
    inner = forge.tree((b"120000", b"link", forge.blob(target)))
    tip = forge.commit(forge.tree((b"40000", b"d", inner)))
    refused(hub, forge.bundle(tip), InvalidBundle, "link", words)


def test_a_stored_folder_may_not_move_to_where_its_symlinks_leave_the_tree(
    hub: Hub, forge: Forge, tmp_path: Path
) -> None:
    inner = forge.tree((b"120000", b"link", forge.blob(b"../f")))
    top = forge.tree((b"40000", b"d", inner), (b"100644", b"f", forge.blob()))
    tip = forge.commit(top)
    hub.push(forge.bundle(tip))
    more = Forge(tmp_path)
    refused(hub, more.bundle(more.commit(inner, tip), prerequisites=[tip]), InvalidBundle, "'link'")


def test_what_no_commit_reaches_is_dropped(hub: Hub, forge: Forge) -> None:
    lost = [forge.blob(b"lost"), forge.tree((b"100644", b"gone", "12" * 20))]
    tip = forge.commit(forge.tree((b"100644", b"f", forge.blob())))
    for number in range(120):
        tip = forge.commit(forge.tree(), tip, tail=b"\n%d\n" % number)
    assert len(hub.push(forge.bundle(tip)).commits) == 121
    hub.check()
    listed = hub.git("cat-file", "--batch-all-objects", "--batch-check")
    assert not any(sha in listed for sha in lost)


def test_faults_of_the_index_are_not_blamed_on_the_bundle(hub: Hub, work: Git) -> None:
    work.commit("one", a="1\n")
    before = hub.files()

    def fail(_: Collection[str]) -> set[str]:
        raise ValueError("the database is gone")

    with pytest.raises(ValueError, match="database"):
        hub.repo.stage(work.bundle("HEAD"), fail)
    assert hub.files() == before


# Bundles of ours -----------------------------------------------------------------------------


def received(bundle: Path, into: Git) -> str:
    into("bundle", "verify", bundle)
    return into("bundle", "unbundle", bundle)


@pytest.fixture(params=["loose", "packed"])
def stocked(request: pytest.FixtureRequest, hub: Hub, work: Git) -> Hub:
    """A hub with 30 commits, pushed one by one or at once."""
    work.history(30)
    hashes = work("rev-list", "--reverse", "--topo-order", "main").splitlines()
    if request.param == "packed":
        hub.push(work.bundle("main"))
        return hub
    for sha in hashes:
        work("update-ref", "refs/heads/next", sha)
        parents = work("rev-list", "--parents", "-1", sha).split()[1:]
        hub.push(work.bundle("next", *(f"^{parent}" for parent in parents)))
    assert not list(hub.repo.path.glob("objects/pack/*.pack"))
    return hub


def test_git_takes_our_bundles_in_every_way(stocked: Hub, work: Git, tmp_path: Path) -> None:
    tip = work("rev-parse", "main")
    out = tmp_path / "ours.bundle"
    stocked.repo.write_bundle(tip, out)
    assert out.read_bytes().startswith(b"# v2 git bundle\n%s HEAD\n\nPACK" % tip.encode())
    other = new_git(tmp_path / "other")
    assert received(out, other) == f"{tip} HEAD"
    assert len(other("rev-list", tip).split()) == 30
    fetcher = new_git(tmp_path / "fetcher")
    fetcher("fetch", "-q", out)
    assert fetcher("rev-parse", "FETCH_HEAD") == tip
    fetcher("fetch", "-q", out, "HEAD:refs/heads/theirs")
    fetcher("fsck", "--full", "--strict")
    work("clone", "-q", out, tmp_path / "clone")
    assert Git(tmp_path / "clone")("rev-parse", "HEAD") == tip


def test_a_bundle_of_an_inner_commit_holds_only_its_ancestry(
    stocked: Hub, work: Git, tmp_path: Path
) -> None:
    inner = work("rev-parse", "main~10")
    out = tmp_path / "inner.bundle"
    stocked.repo.write_bundle(inner, out)
    other = new_git(tmp_path / "other")
    received(out, other)
    other("fsck", "--full", "--strict")
    have = set(other("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())
    want = work("rev-list", "--objects", "--no-object-names", inner).split()
    assert have == set(want)


def test_thin_bundles_bring_the_rest(stocked: Hub, work: Git, tmp_path: Path) -> None:
    tip = work("rev-parse", "main")
    for number, haves in enumerate((["main~1"], ["main~9", "main~15"], ["main~3", "main~10^2"])):
        held = [work("rev-parse", have) for have in haves]
        other = new_git(tmp_path / f"other{number}")
        for each in held:
            out = tmp_path / f"base-{number}.bundle"
            stocked.repo.write_bundle(each, out)
            other("fetch", "-q", out, "HEAD")
        out = tmp_path / f"thin-{number}.bundle"
        stocked.repo.write_bundle(tip, out, [*held, "12" * 20])
        assert received(out, other) == f"{tip} HEAD"
        assert len(other("rev-list", "--objects", tip).split()) > 30
        other("update-ref", "refs/heads/got", tip)
        other("fsck", "--full", "--strict")
        missing = new_git(tmp_path / f"missing{number}")
        with pytest.raises(AssertionError, match="lacks these prerequisite"):
            received(out, missing)
    full = tmp_path / "full.bundle"
    stocked.repo.write_bundle(tip, full)
    stocked.repo.write_bundle(tip, out, [work("rev-parse", "main~1")])
    assert out.stat().st_size < min(2000, full.stat().st_size)


def test_a_receiver_that_has_all_gets_an_empty_bundle(hub: Hub, work: Git, tmp_path: Path) -> None:
    first, second = work.commit("one", a="1\n"), work.commit("two", a="2\n")
    hub.push(work.bundle("HEAD"))
    for tip, have in ((second, second), (first, second)):
        out = tmp_path / "none.bundle"
        hub.repo.write_bundle(tip, out, [have])
        assert received(out, work) == f"{tip} HEAD"


def test_our_bundles_can_be_pushed_to_another_hub(stocked: Hub, work: Git, tmp_path: Path) -> None:
    mirror = Hub(BareRepo(tmp_path / "mirror.git"))
    middle, tip = work("rev-parse", "main~12"), work("rev-parse", "main")
    out = tmp_path / "m.bundle"
    stocked.repo.write_bundle(middle, out)
    mirror.push(out)
    stocked.repo.write_bundle(tip, out, [middle])
    mirror.push(out)
    assert mirror.rows == stocked.rows
    mirror.check()


def test_wrong_dates_never_make_a_bundle_incomplete(hub: Hub, work: Git, tmp_path: Path) -> None:
    rng = random.Random(5)
    tree = work("hash-object", "-t", "tree", "-w", "--stdin", data=b"")
    hashes: list[str] = []
    for number in range(40):
        parents = sorted({rng.choice(hashes) for _ in range(rng.randrange(1, 4))}) if hashes else []
        date = f"@{rng.randrange(10**9)} +0000"
        links = [x for one in parents for x in ("-p", one)]
        hashes.append(work("commit-tree", tree, "-m", f"{number}", *links, GIT_COMMITTER_DATE=date))
        work("update-ref", f"refs/heads/b{number}", hashes[-1])
    hub.push(work.bundle("--branches"))
    for number in range(12):
        tip, *haves = rng.sample(hashes, 4)
        other = new_git(tmp_path / f"o{number}")
        for have in haves:
            work("push", "-q", other.path, f"{have}:refs/heads/h-{have}")
        out = tmp_path / f"o{number}.bundle"
        hub.repo.write_bundle(tip, out, haves)
        other("fetch", "-q", out, "HEAD:refs/heads/got")
        other("fsck", "--full", "--strict")


def test_unknown_commits_are_not_found(hub: Hub, work: Git, tmp_path: Path) -> None:
    work.commit("one", a="1\n")
    hub.push(work.bundle("HEAD"))
    blob = work("rev-parse", "HEAD:a")
    for sha in ("12" * 20, blob):
        with pytest.raises(NotFound):
            hub.repo.write_bundle(sha, tmp_path / "x.bundle")
        with pytest.raises(NotFound):
            hub.repo.diff(sha, work("rev-parse", "HEAD"))
        with pytest.raises(NotFound):
            hub.repo.read_commit(sha)
        assert not hub.repo.has(sha)
    assert not (tmp_path / "x.bundle").exists()


# The repository on disk ----------------------------------------------------------------------


def test_gc_keeps_every_promoted_commit(hub: Hub, work: Git, tmp_path: Path) -> None:
    work.history(50)
    hub.push(work.bundle("main"))
    work("checkout", "-q", "main")
    tips = []
    for number in range(5):
        work("checkout", "-q", f"main~{number + 1}")
        tips.append(work.commit(f"leaf {number}", leaf=f"{number}\n"))
        work("branch", f"leaf{number}")
        hub.push(work.bundle(f"leaf{number}", f"^main~{number + 1}"))
    # Reading first, so that what moves is remembered where it was.
    assert hub.repo.diff(tips[0], tips[1])
    hub.git("gc", "-q", "--prune=now")
    assert not list(hub.repo.path.glob("objects/[0-9a-f][0-9a-f]/*"))
    for commit in hub.rows:
        assert hub.repo.read_commit(commit).hash == commit
    fresh = BareRepo(hub.repo.path)
    fresh.write_bundle(tips[4], tmp_path / "x.bundle")
    received(tmp_path / "x.bundle", new_git(tmp_path / "other"))
    hub.check()


def test_opening_clears_what_a_crash_left_but_not_what_others_use(hub: Hub, work: Git) -> None:
    work.commit("one", a="1\n")
    left = hub.repo.path / "quarantine" / "dead" / "push"
    left.mkdir(parents=True)
    (left / "file").write_text("half a push")
    with hub.repo.stage(work.bundle("HEAD"), hub.known) as staged:
        again = BareRepo(hub.repo.path)
        assert not left.exists()
        hub.repo.promote(staged)
    again.close()
    hub.check()


def test_a_relative_path_works_and_stays_what_it_was(
    work: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub = Hub(BareRepo(Path("data/repo.git")))
    monkeypatch.chdir("/")
    tip = work.commit("one", a="1\n")
    hub.push(work.bundle("HEAD"))
    assert hub.repo.has(tip)
    assert hub.git("config", "gc.auto") == "0"
    assert hub.git("config", "gc.pruneExpire") == "never"
    assert (tmp_path / "data" / "repo.git" / "HEAD").exists()


def test_stored_files_are_read_only_and_refs_hold_the_tips(hub: Hub, work: Git) -> None:
    work.commit("one", a="1\n")
    tip = work.commit("two", a="2\n")
    hub.push(work.bundle("HEAD"))
    loose = list(hub.repo.path.glob("objects/[0-9a-f][0-9a-f]/*"))
    assert len(loose) == 6
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in loose)
    assert hub.git("for-each-ref", "--format=%(refname)") == f"refs/agenthub/heads/{tip}"


def test_eight_threads_push_the_same_and_different_bundles(
    hub: Hub, work: Git, tmp_path: Path
) -> None:
    work.history(60)
    work("checkout", "-q", "main")
    bundles = [work.bundle("main")] * 8
    for number in range(12):
        work("checkout", "-q", f"main~{number}")
        work.commit(f"leaf {number}", leaf=f"{number}\n", shared="the same\n")
        work("branch", f"leaf{number}")
        bundles += [work.bundle(f"leaf{number}")] * 2
    random.Random(1).shuffle(bundles)
    lock = threading.Lock()

    def push(bundle: Path) -> None:
        with hub.repo.stage(bundle, hub.known) as staged:
            hub.repo.promote(staged)
            with lock:
                hub.rows.update(commit.hash for commit in staged.commits)

    def read(number: int) -> None:
        if rows := sorted(hub.rows):
            hub.repo.write_bundle(rows[number % len(rows)], tmp_path / f"read{number}.bundle")

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(push, bundle) for bundle in bundles]
        done += [pool.submit(read, number) for number in range(20)]
    for each in done:
        each.result()
    assert len(hub.rows) == 72
    hub.check()
    left = {path.name for path in hub.repo.path.glob("quarantine/*/*")}
    assert left == {"lock", "journal-1"}


# Diffs ---------------------------------------------------------------------------------------

BODY = "".join(f"def f{number}():\n    return {number}\n\n" for number in range(30))
FILES: dict[str, tuple[dict[str, bytes | None], dict[str, bytes | None]]] = {
    "one changed line": ({"a": BODY.encode()}, {"a": BODY.replace("7", "seven").encode()}),
    "added, deleted, empty": ({"a": b"1\n", "e": b""}, {"b/c": b"2\n3\n", "n": b""}),
    "no newline at the end": ({"a": b"1\n2", "b": b"1\n"}, {"a": b"1\n2\n", "b": b"1"}),
    "no newline on both": ({"a": b"1\n2\n3"}, {"a": b"0\n2\n3"}),
    "binary": ({"a": b"\0\1", "b": b"x\n"}, {"a": b"\0\2", "b": b"\0", "c": b"\0"}),
    "odd names": (
        {"caf\u00e9": b"1\n", "two words": b"1\n", 'q"u\\o': b"1\n", "tab\there": b"1\n"},
        {"caf\u00e9": b"2\n", "two words": b"2\n", 'q"u\\o': b"2\n", "tab\there": b"2\n"},
    ),
    "carriage returns": ({"a": b"1\r\n2\r3\n"}, {"a": b"1\r\n2\rx\n"}),
    "file becomes folder": ({"a": b"1\n", "a-b": b"1\n"}, {"a/x": b"1\n", "a-b": b"2\n"}),
    "order": ({"x/y": b"1\n", "x.y": b"1\n", "x": None}, {"x/z": b"1\n", "x.y": b"2\n"}),
    "blocks that slide": (
        {"a": b"start\n{\n x\n}\nend\n"},
        {"a": b"start\n{\n x\n}\n{\n x\n}\n{\n x\n}\nend\n"},
    ),
    "everything": ({"a": BODY.encode()}, {"a": BODY.upper().encode()}),
    "nothing": ({"a": b"1\n"}, {"a": b"1\n"}),
}


def snapshot(work: Git, files: dict[str, bytes | None]) -> str:
    work("read-tree", "--empty")
    for name, content in files.items():
        if content is not None:
            blob = work("hash-object", "-w", "--stdin", data=content)
            work("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    return work("commit-tree", work("write-tree"), "-m", "x")


def both_ways(hub: Hub, work: Git, a: str, b: str) -> Iterator[tuple[bytes, bytes]]:
    work("update-ref", "refs/heads/a", a)
    work("update-ref", "refs/heads/b", b)
    hub.push(work.bundle("a", "b"))
    for old, new in ((a, b), (b, a)):
        ours = hub.repo.diff(old, new)
        yield ours, work.raw("diff", "--no-renames", "--no-indent-heuristic", old, new)
        if ours and b"Binary files" not in ours:
            work("read-tree", old)
            work("apply", "--cached", data=ours)
            assert work("write-tree") == work("rev-parse", f"{new}^{{tree}}")


@pytest.mark.parametrize("case", FILES)
def test_a_diff_is_what_git_prints(hub: Hub, work: Git, case: str) -> None:
    a, b = (snapshot(work, files) for files in FILES[case])
    for ours, theirs in both_ways(hub, work, a, b):
        assert ours == theirs


def test_a_diff_shows_changed_modes_and_symlinks(hub: Hub, work: Git) -> None:
    for name, content in {"run": "1\n", "both": "1\n", "link": "a\n"}.items():
        (work.path / name).write_text(content)
    a = work.commit("a")
    (work.path / "run").chmod(0o755)
    (work.path / "both").chmod(0o755)
    (work.path / "both").write_text("2\n")
    (work.path / "link").unlink()
    (work.path / "link").symlink_to("run")
    b = work.commit("b")
    for ours, theirs in both_ways(hub, work, a, b):
        assert ours == theirs


def test_random_edits_apply_cleanly(hub: Hub, work: Git) -> None:
    rng = random.Random(11)
    old: dict[str, bytes | None] = {}
    new: dict[str, bytes | None] = {}
    for number in range(60):
        lines = [f"{rng.randrange(12)}\n" for _ in range(rng.randrange(40))]
        old[f"f{number}"] = "".join(lines).encode()
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(lines) + 1)
            lines[at : at + rng.randrange(4)] = [f"{rng.randrange(12)}\n"] * rng.randrange(4)
        new[f"f{number}"] = "".join(lines).encode()
    a, b = snapshot(work, old), snapshot(work, new)
    for ours, theirs in both_ways(hub, work, a, b):
        signs = [
            sum(
                line[:1] in b"+-" and line[:3] not in (b"+++", b"---") for line in each.split(b"\n")
            )
            for each in (ours, theirs)
        ]
        # As short as git's.
        assert signs[0] <= signs[1] * 1.02


def test_large_files_are_named_and_large_diffs_are_cut(hub: Hub, work: Git) -> None:
    big = b"".join(b"%d\n" % number for number in range(19_000))
    old: dict[str, bytes | None] = {f"f{number}": big for number in range(60)}
    new: dict[str, bytes | None] = {
        f"f{number}": b"".join(b"%d.\n" % line for line in range(number, 19_000))
        for number in range(60)
    }
    old |= {"a_bytes": b"x" * 2**20, "a_lines": b"\n" * 20_001}
    new |= {"a_bytes": b"y" * (2**20 + 1), "a_lines": b"\n" * 20_002}
    a, b = snapshot(work, old), snapshot(work, new)
    work("update-ref", "refs/heads/a", a)
    work("update-ref", "refs/heads/b", b)
    hub.push(work.bundle("a", "b"))
    ours = hub.repo.diff(a, b)
    assert b"Binary files a/a_bytes and b/a_bytes differ" in ours
    assert b"Binary files a/a_lines and b/a_lines differ" in ours
    assert len(ours) < 9 * 2**20
    assert ours.endswith(b"# This diff is too large; the rest is left out.\n")


@pytest.mark.parametrize("words", [1, 2, 50, 10**6])
def test_no_pair_of_files_takes_long_to_compare(words: int) -> None:
    rng = random.Random(words)
    a = [b"%d\n" % rng.randrange(words) for _ in range(20_000)]
    b = [b"%d\n" % rng.randrange(words) for _ in range(19_000)]
    started = time.monotonic()
    hunks = compare_lines(a, b, Effort())
    assert time.monotonic() - started < 5
    built, at = [], 0
    for hunk in hunks:
        built += a[at : hunk.a0] + b[hunk.b0 : hunk.b1]
        at = hunk.a1
    assert built + a[at:] == b


def test_a_pack_writer_refuses_to_leave_a_pack_half_written(tmp_path: Path) -> None:
    with (tmp_path / "p").open("wb") as file, pytest.raises(RuntimeError, match="1 objects"):
        PackWriter(file, 1).finish()


# The journal ---------------------------------------------------------------------------------


def cut_power(hub: Hub, copy: Path) -> list[Path]:
    """A copy of the repository as a power cut leaves it: no loose file was on disk, or whole."""
    shutil.copytree(hub.repo.path, copy)
    loose = sorted(copy.glob("objects/[0-9a-f][0-9a-f]/*"))
    refs = sorted(copy.glob("refs/agenthub/heads/*"))
    for number, path in enumerate([*loose, *refs]):
        content = path.read_bytes()
        path.unlink()
        if number % 3:
            path.write_bytes(content[: len(content) // 2] if number % 3 == 1 else b"")
    return loose


def test_what_a_power_cut_takes_of_small_pushes_is_put_back(
    hub: Hub, work: Git, tmp_path: Path
) -> None:
    for number in range(4):
        work.commit(f"step {number}", a=f"{number}\n", b=f"{number % 2}\n")
        hub.push(work.bundle("HEAD"))
    copy = tmp_path / "copy.git"
    assert len(cut_power(hub, copy)) > 8
    # The last push was on its way: it was never acknowledged, and goes.
    (journal,) = copy.glob("quarantine/*/journal-*")
    with journal.open("ab") as file:
        file.write(journal.read_bytes()[:100])
    after = Hub(BareRepo(copy), set(hub.rows))
    after.check()
    assert {path.name for path in copy.glob("quarantine/*/*")} == {"lock"}
    assert {ref.name for ref in copy.glob("refs/agenthub/heads/*")} == hub.rows


def test_a_journal_goes_when_its_pushes_are_durable_without_it(hub: Hub, work: Git) -> None:
    for number in range(3):
        work.commit(f"step {number}", a=f"{number}\n")
        hub.push(work.bundle("HEAD"))
    hub.repo.close()
    assert list(hub.repo.path.glob("quarantine/*/*")) == []
    hub.check()


def test_a_push_that_the_disk_refuses_spoils_no_other(
    hub: Hub, work: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = work.commit("one", a="1\n")
    hub.push(work.bundle("HEAD"))
    work.commit("two", a="2\n")
    bundle = work.bundle("HEAD", f"^{first}")
    with monkeypatch.context() as patch:
        # A full disk takes a part.
        whole = os.write
        patch.setattr(os, "write", lambda handle, data: whole(handle, data[:50]))
        with pytest.raises(OSError, match="whole"):
            hub.push(bundle)
    hub.push(bundle)
    copy = tmp_path / "copy.git"
    cut_power(hub, copy)
    Hub(BareRepo(copy), set(hub.rows)).check()


def test_two_processes_build_on_each_others_pushes_while_one_packs(
    hub: Hub, work: Git, tmp_path: Path
) -> None:
    other = Hub(BareRepo(hub.repo.path), hub.rows)
    git = find_git(hub.repo.path)
    assert git is not None
    upkeep = other.repo.upkeep(git)
    parent = ""
    with ThreadPoolExecutor(1) as pool:
        for number in range(8):
            tip = work.commit(f"step {number}", a=f"{number}\n")
            hubs = (hub, other) if number % 2 else (other, hub)
            hubs[0].push(work.bundle("HEAD", *([f"^{parent}"] if parent else [])))
            assert hubs[1].repo.has(tip)
            if parent:
                assert b"+%d\n" % number in hubs[1].repo.diff(parent, tip)
            if number == 3:
                packing = pool.submit(upkeep.run, lambda _: None, wait=True)
            parent = tip
        assert packing.result()
    copy = tmp_path / "copy.git"
    cut_power(hub, copy)
    Hub(BareRepo(copy), set(hub.rows)).check()
