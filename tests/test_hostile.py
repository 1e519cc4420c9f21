"""Bundles made to hurt, over HTTP to a real hub: refused by name, at once, in little memory."""

import random
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import HubProcess, listing, uploads
from forge import IDENT, Forge, chain_of_deltas, entry_header, pack

from ah_cli.client import ApiError
from server.repo.pack import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TAG, TREE
from server.repo.writer import write_delta

MIB = 2**20


@dataclass
class Target:
    """A hub, and what a bundle did to it."""

    hub: HubProcess
    key: str

    def push(self, bundle: Path) -> ApiError | None:
        with self.hub.client(self.key) as client:
            try:
                client.push(bundle)
            except ApiError as refusal:
                return refusal
        return None

    def refuses(self, bundle: Path, status: int, *words: str) -> ApiError:
        """Push it and see that it is refused by name and leaves nothing."""
        before = self.files()
        refusal = self.push(bundle)
        assert refusal is not None
        for word in words:
            assert word in str(refusal), refusal
        assert refusal.status == status, refusal
        assert self.files() == before
        return refusal

    def files(self) -> set[str]:
        return listing(self.hub.data / "repo.git") | set(map(str, uploads(self.hub.data)))

    def forget_peak(self) -> None:
        self._proc("clear_refs").write_text("5")

    def peak_mib(self) -> int:
        """The most memory the hub's process held since `forget_peak`."""
        lines = self._proc("status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
        print(f"peak {peak} MiB")
        return peak

    def _proc(self, name: str) -> Path:
        assert self.hub.process is not None
        return Path("/proc", str(self.hub.process.pid), name)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    hub = HubProcess(tmp_path_factory.mktemp("hostile"), ("--max-pushes-per-hour", "0"))
    hub.start()
    yield Target(hub, hub.key("mallory"))
    hub.kill()


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


# Bombs ------------------------------------------------------------------------------------------


def zip_bomb(forge: Forge, blobs: int, blob_mib: int) -> Path:
    """Blobs of zeros with a different random end each; none passes the cap of one object."""
    dice = random.Random(1)
    zeros = zlib.compressobj(9)
    start = b"".join(zeros.compress(bytes(MIB)) for _ in range(blob_mib))
    parts = []
    for _ in range(blobs):
        each, end = zeros.copy(), dice.randbytes(200_000)
        size = blob_mib * MIB + len(end)
        parts += [entry_header(BLOB, size), start, each.compress(end), each.flush()]
    return forge.write(["1" * 40], pack(blobs, b"".join(parts)))


def test_a_bomb_of_50_mib_that_holds_10_gib_is_refused_in_little_memory(
    target: Target, forge: Forge
) -> None:
    bomb = zip_bomb(forge, 200, 51)
    assert 45 * MIB < bomb.stat().st_size < 50 * MIB
    target.forget_peak()
    target.refuses(bomb, 413, f"inflates to more than {512 * MIB} bytes")
    assert target.peak_mib() < 450


def test_a_blob_of_10_gib_is_refused_before_it_is_inflated(target: Target, forge: Forge) -> None:
    deflater = zlib.compressobj(9)
    body = b"".join(deflater.compress(bytes(MIB)) for _ in range(256)) + deflater.flush()
    bundle = forge.write(["1" * 40], pack(1, entry_header(BLOB, 10 * 2**30) + body))
    target.forget_peak()
    target.refuses(bundle, 413, f"{10 * 2**30} bytes, at most {64 * MIB}")
    assert target.peak_mib() < 200


def test_many_small_bombs_at_once_are_unpacked_two_at_a_time(target: Target, forge: Forge) -> None:
    zeros = zlib.compress(bytes(60 * MIB), 9)
    body = (entry_header(BLOB, 60 * MIB) + zeros) * 3
    bundle = forge.write(["1" * 40], pack(3, body))
    assert bundle.stat().st_size < 256 * 1024
    target.forget_peak()
    with ThreadPoolExecutor(10) as pool:
        for refusal in pool.map(target.push, [bundle] * 10):
            assert refusal is not None
            assert refusal.status == 400
    assert target.peak_mib() < 700


def test_heavy_pushes_that_wait_leave_room_for_readers(target: Target, forge: Forge) -> None:
    bomb = zip_bomb(forge, 1, 20)
    with ThreadPoolExecutor(50) as pool, target.hub.client(target.key) as reader:
        pushes = [pool.submit(target.push, bomb) for _ in range(50)]
        reads = 0
        while not all(push.done() for push in pushes):
            reader.commits(limit=1)
            reads += 1
    # Without room, reads wait for pushes, and few come through.
    print(f"{reads} reads")
    assert reads > 100


def test_a_delta_that_copies_its_base_10000_times_is_refused_at_once(
    target: Target, forge: Forge
) -> None:
    base = bytes(2**16)
    delta = write_delta(len(base), 10_000 * 0xFFFF, [(0, 0xFFFF)] * 10_000)
    entry = entry_header(BLOB, len(base)) + zlib.compress(base)
    bomb = entry_header(OFS_DELTA, len(delta)) + bytes([len(entry)]) + zlib.compress(delta)
    target.refuses(forge.write(["1" * 40], pack(2, entry + bomb)), 413, str(10_000 * 0xFFFF))


def test_a_chain_of_5000_deltas_is_refused(target: Target, forge: Forge) -> None:
    target.refuses(chain_of_deltas(forge, 5000), 400, "a chain of deltas is longer than 4096")


def test_a_header_of_millions_of_lines_is_checked_in_little_memory(
    target: Target, forge: Forge
) -> None:
    head = b"author %s\ncommitter %s\n" % (IDENT, IDENT) + b"x\n" * 20_000_000
    bad = forge.commit(forge.tree(), head=head, tail=b"\0")
    target.forget_peak()
    target.refuses(forge.bundle(bad), 400, f"commit {bad} has headers that git does not accept")
    assert target.peak_mib() < 450


def test_a_commit_of_a_million_parents_is_refused_in_little_memory(
    target: Target, forge: Forge
) -> None:
    parents = b"".join(b"parent %040x\n" % number for number in range(1_000_000))
    bad = forge.commit(forge.tree(), head=parents + b"author %s\ncommitter %s\n" % (IDENT, IDENT))
    target.forget_peak()
    target.refuses(forge.bundle(bad), 400, f"commit {bad} has 1000000 parents")
    assert target.peak_mib() < 450


def test_attributes_of_millions_of_lines_are_checked_in_little_memory(
    target: Target, forge: Forge
) -> None:
    long = forge.blob(b"\n" * 60_000_000 + b"x" * 2048)
    tip = forge.commit(forge.tree((b"100644", b".gitattributes", long)))
    target.forget_peak()
    target.refuses(forge.bundle(tip), 400, f"blob {long} is a .gitattributes with a line of more")
    assert target.peak_mib() < 450


# Trees ------------------------------------------------------------------------------------------

Entries = Callable[[Forge], list[tuple[bytes, bytes, str]]]
TREES: dict[str, tuple[Entries, str]] = {
    ".git": (
        lambda f: [(b"40000", b".git", f.tree())],
        "has an entry that git takes for .git: '.git'",
    ),
    "..": (lambda f: [(b"40000", b"..", f.tree())], "has an entry named '..'"),
    "a/b": (lambda f: [(b"100644", b"a/b", f.blob())], "has a slash in the name 'a/b'"),
    "twice": (lambda f: [(b"100644", b"a", f.blob())] * 2, "has two entries named 'a'"),
    "unsorted": (
        lambda f: [(b"100644", b"b", f.blob()), (b"100644", b"a", f.blob())],
        "is not sorted at 'a'",
    ),
    "to /etc": (
        lambda f: [(b"120000", b"link", f.blob(b"/etc"))],
        "has a symlink 'link' to the absolute path '/etc'",
    ),
    "missing": (lambda f: [(b"100644", b"gone", "12" * 20)], f"needs blob {'12' * 20}"),
    "long": (lambda f: [(b"100644", b"x" * 5000, f.blob())], "has a path of more than 4096 bytes"),
}


@pytest.mark.parametrize("case", TREES)
def test_bad_trees_are_refused_by_name(target: Target, forge: Forge, case: str) -> None:
    entries, words = TREES[case]
    bad = forge.tree(*entries(forge))
    tip = forge.commit(forge.tree((b"40000", b"d", bad)))
    target.refuses(forge.bundle(tip), 400, f"tree {bad} {words}")


def test_a_link_out_of_the_tree_is_refused_by_name(target: Target, forge: Forge) -> None:
    tree = forge.tree((b"120000", b"link", forge.blob(b"../etc/passwd")))
    tip = forge.commit(tree)
    target.refuses(forge.bundle(tip), 400, f"commit {tip}", "leaves its tree: 'link'")


def test_a_commit_that_names_a_missing_tree_is_refused_by_name(
    target: Target, forge: Forge
) -> None:
    gone = "12" * 20
    tip = forge.commit(gone)
    target.refuses(forge.bundle(tip), 400, f"commit {tip} needs tree {gone}")


def test_a_deep_tree_is_refused(target: Target, forge: Forge) -> None:
    tree = forge.tree()
    for _ in range(5000):
        tree = forge.tree((b"40000", b"d", tree))
    target.refuses(forge.bundle(forge.commit(tree)), 400, "deeper than 100 folders")


def test_a_tree_that_names_a_billion_files_is_refused(target: Target, forge: Forge) -> None:
    tree = forge.tree((b"100644", b"f", forge.blob()))
    for _ in range(9):
        tree = forge.tree(*((b"40000", b"%d" % number, tree) for number in range(10)))
    target.refuses(forge.bundle(forge.commit(tree)), 400, "names more than 200000 paths")


def test_many_versions_of_a_huge_tree_are_refused(target: Target, forge: Forge) -> None:
    blob = forge.blob()
    base = b"".join(b"100644 %08d\0" % number + bytes.fromhex(blob) for number in range(60_000))
    sha = forge.add(TREE, base)
    deltas = []
    for number in range(80):
        more = b"100644 x%07d\0" % number + bytes.fromhex(blob)
        delta = write_delta(len(base), len(base) + len(more), [(0, len(base)), more])
        head = entry_header(REF_DELTA, len(delta)) + bytes.fromhex(sha)
        deltas.append(head + zlib.compress(delta))
    body = b"".join(
        entry_header(kind, len(content)) + zlib.compress(content)
        for kind, content in forge.objects.values()
    )
    bundle = forge.write(["1" * 40], pack(82, body + b"".join(deltas)))
    target.refuses(bundle, 413, f"trees have more than {128 * MIB} bytes in all")


def test_a_push_of_20001_commits_is_refused(target: Target, forge: Forge) -> None:
    tree = forge.tree()
    tip = forge.commit(tree)
    for number in range(20_000):
        tip = forge.commit(tree, tip, tail=b"\n%d\n" % number)
    refusal = target.refuses(forge.bundle(tip), 413, "20001 commits, at most 20000")
    assert "several steps" in (refusal.hint or "")


@pytest.mark.parametrize(("kind", "name"), [(COMMIT, "commit"), (TREE, "tree"), (TAG, "tag")])
def test_an_object_of_noise_is_refused_by_name(
    target: Target, forge: Forge, kind: int, name: str
) -> None:
    bad = forge.add(kind, random.Random(kind).randbytes(500))
    target.refuses(forge.bundle(bad), 400, f"{name} {bad}")
