"""A fuzzer of bundles: made from a seed, mutated at any layer, checksums right again above it.

    python tests/fuzz_bundles.py 100000 --jobs 2 --seed 1

Most inputs are sound but for one or two things, so that mutations reach deep: bundle headers,
pack and entry headers, deflate streams, deltas, trees, commits, tags, and what refers to what.
Every finding prints the seed that makes it; `--write DIR` keeps its bytes.
"""

import argparse
import hashlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from forge import IDENT, Forge, entry_header

from server.errors import HubError
from server.repo import BareRepo, Caps
from server.repo.pack import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TAG, TREE, hash_object
from server.repo.writer import write_delta

SLOW_SECONDS = 1.0
# What differs between refusals of one sort.
_VARIABLE = re.compile(r"[0-9a-f]{40}|'.*?'|\"|[0-9]+|(?<=:).*|\A@[^,]*")
#: Small, so that small inputs reach the caps.
CAPS = Caps(
    bundle_bytes=2**20, objects=60, inflated_bytes=2**20, blob_bytes=2**18, commits=12, parents=8,
    refs=8, tree_depth=12, tree_paths=300, path_bytes=300, delta_depth=6,
)  # fmt: skip

NAMES = (
    b"a", b"b", b"a.b", b"a-b", b"train.py", b"x" * 120, b"caf\xc3\xa9", b"\xff\xfe", b" ", b"a b",
    b".gitattributes", b"-rf", b"tab\t", b'q"',
)  # fmt: skip
BAD_NAMES = (
    b"", b".", b"..", b".git", b".GIT", b"git~1", b".git ", b"a/b", b"/", b".gitmodules",
    b"GITMOD~2", b".g\xe2\x80\x8cit", b"x\\.git", b"\\", b"\n", b"y" * 400, b"gi7eba~1",
    b".git::$INDEX",
)  # fmt: skip
MODES = (b"100644", b"100644", b"100755", b"120000")
BAD_MODES = (
    b"160000", b"100777", b"0", b"", b"0100644", b"040000", b"7777777", b"77777777", b"-1",
    b"10x644", b"100664",
)  # fmt: skip
TARGETS = (b"a", b"./b", b"a/../b", b"x/y")
BAD_TARGETS = (b"/etc", b"..", b"../../x", b"", b"\0", b"a/../../b", b".git/config", b"z" * 400)
WILD_SIZES = (0, 1, 15, 16, 127, 128, 2**16, 2**18 + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)
NOISE = (b"", b"\0", b"\n", b" ", b"<", b">", b"\xff", b"0", b"-", b"\r\n", b"\x80" * 11)
GONE = "12" * 20


@dataclass
class Input:
    """One bundle in the making. `budget` is how many wrongs it may still get."""

    dice: random.Random
    base: list[tuple[int, bytes]]
    budget: int = 0
    objects: list[tuple[int, bytes]] = field(default_factory=list)
    shas: dict[int, list[str]] = field(default_factory=lambda: {k: [] for k in (1, 2, 3, 4)})

    def wrong(self, chance: float) -> bool:
        """Whether to do something wrong here."""
        if self.budget and self.dice.random() < chance:
            self.budget -= 1
            return True
        return False

    def add(self, kind: int, content: bytes) -> str:
        if self.wrong(0.04):
            content = self.mangle(content)
        sha = hash_object(kind, content)
        if sha not in self.shas[kind] or self.wrong(0.1):
            self.objects.append((kind, content))
            self.shas[kind].append(sha)
        return sha

    def any_sha(self, kind: int, fallback: str = GONE) -> str:
        if self.wrong(0.03):
            others = [sha for shas in self.shas.values() for sha in shas]
            return self.dice.choice([*others, GONE, "0" * 40])
        return self.dice.choice(self.shas[kind] or [fallback])

    def mangle(self, data: bytes) -> bytes:
        """Bytes with a few of them changed, cut, moved or put in."""
        dice, out = self.dice, bytearray(data)
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            at = dice.randrange(len(out) + 1)
            end = min(len(out), at + dice.choice([1, 1, 2, 8, 40]))
            match dice.randrange(7):
                case 0 if out:
                    out[at % len(out)] ^= 1 << dice.randrange(8)
                case 1:
                    del out[at:end]
                case 2:
                    out[at:at] = dice.choice(NOISE)
                case 3:
                    out[at:at] = out[at:end]
                case 4:
                    del out[at:]
                case 5:
                    out[at:end] = dice.randbytes(end - at)
                case _:
                    other = dice.choice(self.objects)[1] if self.objects else b"x"
                    out[at:end] = other[: dice.randrange(1, 60)]
        return bytes(out)


# Objects ----------------------------------------------------------------------------------------


def make_blob(it: Input) -> str:
    dice = it.dice
    size = dice.choice([0, 1, 10, 60, 300, 3000])
    text = dice.choice([b"line %d\n", b"%d", b"\0%d"]) % dice.randrange(50)
    content = (text * (size // len(text) + 1))[:size]
    if it.wrong(0.02):
        content = bytes(2**18 + 1)
    return it.add(BLOB, content)


def make_tree(it: Input, depth: int = 0) -> str:
    dice = it.dice
    entries: dict[bytes, tuple[bytes, str]] = {}
    for _ in range(dice.choice([0, 1, 1, 2, 3, 5])):
        name = dice.choice(BAD_NAMES) if it.wrong(0.05) else dice.choice(NAMES)
        if dice.random() < 0.3 and depth < 4:
            deeper = make_tree(it, depth + 1) if dice.random() < 0.6 else it.any_sha(TREE)
            entries[name] = b"40000", deeper
        else:
            entries[name] = make_file(it)
    rows = [
        (name + b"/" if mode == b"40000" else name, b"%s %s\0" % (mode, name) + bytes.fromhex(sha))
        for name, (mode, sha) in entries.items()
        if name != b".gitattributes" or mode.startswith(b"100")
    ]
    rows.sort()
    if rows and it.wrong(0.04):
        rows.append(dice.choice(rows))
    if it.wrong(0.04):
        dice.shuffle(rows)
    return it.add(TREE, b"".join(row for _, row in rows))


def make_file(it: Input) -> tuple[bytes, str]:
    mode = it.dice.choice(BAD_MODES) if it.wrong(0.04) else it.dice.choice(MODES)
    if mode == b"120000":
        target = it.dice.choice(BAD_TARGETS) if it.wrong(0.15) else it.dice.choice(TARGETS)
        return mode, it.add(BLOB, target)
    is_new = not it.shas[BLOB] or it.dice.random() < 0.6
    return mode, make_blob(it) if is_new else it.any_sha(BLOB)


def make_commit(it: Input) -> str:
    dice = it.dice
    tree = make_tree(it) if not it.shas[TREE] or dice.random() < 0.6 else it.any_sha(TREE)
    known = [hash_object(kind, content) for kind, content in it.base if kind == COMMIT]
    pool = it.shas[COMMIT] + known
    parents = dice.sample(pool, min(len(pool), dice.choice([0, 1, 1, 1, 2, 3])))
    if parents and it.wrong(0.04):
        parents += parents[:1]
    if it.wrong(0.03):
        parents.append(it.any_sha(dice.choice([BLOB, TREE, TAG])))
    if it.wrong(0.02):
        parents = (parents or [GONE]) * 9
    lines = [b"tree %s" % tree.encode(), *(b"parent %s" % one.encode() for one in parents)]
    lines += [b"author " + make_ident(it), b"committer " + make_ident(it)]
    lines += dice.choice([[], [], [b"encoding latin1"], [b"gpgsig -----", b" x", b" y"]])
    if it.wrong(0.06):
        spoil_lines(it, lines)
    tail = dice.choice(
        [b"\nwork\n", b"\n", b"", b"\n\n\nsub\n \nbody\n", b"\n" + b"caf\xe9 " * 300]
    )
    return it.add(COMMIT, b"\n".join(lines) + b"\n" + tail)


def make_ident(it: Input) -> bytes:
    if not it.wrong(0.05):
        date = it.dice.choice([0, 1, 1700000000, 2**31, 2**40, 2**63 - 1])
        return IDENT if it.dice.random() < 0.5 else b"A <a@b> %d -0130" % date
    return it.dice.choice(
        [
            b"", b"A", b"A <a@b>", b"A <a@b> 1", b"A <a@b> x +0000", b"A <a@b> 01 +0000",
            b"A<a@b> 1 +0000", b"<a@b> 1 +0000", b" <> 1 +0000", b"A <a@b> 1 +000",
            b"A <a@b> 9223372036854775808 +0000", b"A <a@b> 99999999999999999999 +0000",
            b"A <a<b> 1 +0000", b"A\0 <a@b> 1 +0000", b"A <a@b> -1 +0000", b"A <a@b>  1 +0000",
        ]
    )  # fmt: skip


def spoil_lines(it: Input, lines: list[bytes]) -> None:
    dice, at = it.dice, it.dice.randrange(len(lines))
    match dice.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines.insert(at, lines.pop(dice.randrange(len(lines))))
        case _:
            lines[at] = it.mangle(lines[at])


def make_tag(it: Input) -> str:
    kind = it.dice.choice([COMMIT, COMMIT, COMMIT, TREE, BLOB, TAG])
    target = it.any_sha(kind)
    name = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}[kind]
    lines = [b"object " + target.encode(), b"type " + name, b"tag v%d" % it.dice.randrange(9)]
    if it.dice.random() < 0.8:
        lines.append(b"tagger " + make_ident(it))
    if it.wrong(0.1):
        spoil_lines(it, lines)
    return it.add(TAG, b"\n".join(lines) + b"\n\nmessage\n")


# Packs ------------------------------------------------------------------------------------------


def make_pack(it: Input) -> bytes:
    dice = it.dice
    order = list(it.objects)
    if dice.random() < 0.3:
        dice.shuffle(order)
    body, starts = bytearray(), dict[str, int]()
    for kind, content in order:
        at = 12 + len(body)
        body += make_entry(it, kind, content, at, starts)
        starts[hash_object(kind, content)] = at
    count = len(order)
    if it.wrong(0.03):
        count = dice.choice([0, count + 1, count - 1, 2**32 - 1, 61, 10**6]) & 0xFFFFFFFF
    head = b"PACK" + struct.pack(">LL", 2, count)
    if it.wrong(0.01):
        head = dice.choice([b"PACK\0\0\0\3" + head[8:], b"KCAP" + head[4:], head[:7], b""])
    if it.wrong(0.03):
        body = bytearray(it.mangle(bytes(body)))
    if it.wrong(0.02):
        body += dice.choice([b"\0", b"\x30x", dice.randbytes(30)])
    out = head + bytes(body)
    digest = hashlib.sha1(out).digest()
    if it.wrong(0.01):
        digest = dice.choice([b"", digest[:-1], bytes(20), it.mangle(digest)])
    return out + digest


def make_entry(it: Input, kind: int, content: bytes, at: int, starts: dict[str, int]) -> bytes:
    if it.dice.random() < 0.25:
        delta = make_delta_entry(it, kind, content, at, starts)
        if delta:
            return delta
    size = len(content)
    if it.wrong(0.03):
        size = it.dice.choice([size + 1, max(size - 1, 0), *WILD_SIZES])
    if it.wrong(0.02):
        kind = it.dice.randrange(8)
    head = entry_header(kind, size)
    if it.wrong(0.02):
        head = it.dice.choice([head[:-1], b"\xff" * 12, head + b"\x80", it.mangle(head)])
    return head + deflate(it, content)


def make_delta_entry(
    it: Input, kind: int, content: bytes, at: int, starts: dict[str, int]
) -> bytes:
    """The object as a delta of one before it, or of one the hub has; empty when there is none."""
    dice = it.dice
    inside = [one for one in it.objects if hash_object(*one) in starts and one[0] == kind]
    outside = [one for one in it.base if one[0] == kind]
    if not inside and not outside:
        return b""
    base = dice.choice(inside + outside)
    sha, text = hash_object(*base), base[1]
    delta = make_delta(it, text, content)
    if sha in starts and dice.random() < 0.7:
        distance = at - starts[sha]
        if it.wrong(0.05):
            distance = dice.choice([0, 1, at, at + 1, at - 12, distance + 1, 2**40])
        head, link = OFS_DELTA, encode_distance(distance)
    else:
        if it.wrong(0.05):
            sha = dice.choice([GONE, "0" * 40, hash_object(kind, content), *starts])
        head, link = REF_DELTA, bytes.fromhex(sha)
    if it.wrong(0.03):
        link = it.mangle(link)
    size = len(delta)
    if it.wrong(0.02):
        size = dice.choice(WILD_SIZES)
    return entry_header(head, size) + link + deflate(it, delta)


def make_delta(it: Input, base: bytes, content: bytes) -> bytes:
    """A delta by common head and tail, in pieces; or one that is wrong."""
    dice = it.dice
    head = next((n for n, (x, y) in enumerate(zip(base, content, strict=False)) if x != y), None)
    head = min(len(base), len(content)) if head is None else head
    ops: list[tuple[int, int] | bytes] = [(0, head)] if head else []
    rest = content[head:]
    while rest:
        cut = dice.randrange(1, len(rest) + 1)
        found = base.find(rest[:cut])
        ops.append((found, cut) if found >= 0 else rest[:cut])
        rest = rest[cut:]
    sizes = [len(base), len(content)]
    if it.wrong(0.08):
        sizes[dice.randrange(2)] = dice.choice([0, len(base) + 1, len(content) + 1, *WILD_SIZES])
    if it.wrong(0.08):
        wild = dice.choice([(0, 0xFFFF), (2**31, 3), (len(base), 1), (len(base) - 1, 2), b"zz"])
        ops.insert(dice.randrange(len(ops) + 1), wild if wild[0] != -1 else b"z")
    delta = write_delta(*sizes, ops)
    if it.wrong(0.08):
        bad = [b"\0", b"\xff", b"\x80", b"\x7f", delta, b"\x80" * 12, b"\xff" * 7 + b"\x90"]
        at = dice.randrange(len(delta) + 1)
        delta = dice.choice([delta[:at], delta[:at] + dice.choice(bad) + delta[at:]])
    return delta


def encode_distance(distance: int) -> bytes:
    out = bytearray([distance & 0x7F])
    while distance := distance >> 7:
        distance -= 1
        out.append(distance & 0x7F | 0x80)
    out.reverse()
    return bytes(out)


def deflate(it: Input, content: bytes) -> bytes:
    dice = it.dice
    good = zlib.compress(content, dice.choice([0, 1, 6, 9]))
    if not it.wrong(0.03):
        return good
    raw = zlib.compressobj(6, zlib.DEFLATED, -15)
    preset = zlib.compressobj(zdict=b"tree parent author")
    empty = b"\0\0\0\xff\xff" * dice.choice([1, 100])
    return dice.choice(
        [
            good[:-1], good[:-4], good[:2], b"", good[:-4] + bytes(4), good + b"\0", good * 2,
            raw.compress(content) + raw.flush(), preset.compress(content) + preset.flush(),
            b"\x1f\x8b\x08\0" + good, good[:2] + empty + good[2:], it.mangle(good),
            zlib.compress(content + b"more"), zlib.compress(content[:-1]), b"x\x9c\x07" + good,
            zlib.compress(bytes(2**20)),
        ]
    )  # fmt: skip


# Bundles ----------------------------------------------------------------------------------------


def make_header(it: Input) -> bytes:
    dice = it.dice
    is_v3 = dice.random() < 0.3
    lines = [b"# v3 git bundle" if is_v3 else b"# v2 git bundle"]
    if is_v3 and dice.random() < 0.7:
        lines.append(b"@object-format=sha1")
    if it.wrong(0.03):
        lines.append(
            dice.choice(
                [
                    b"@object-format=sha256", b"@filter=blob:none", b"@", b"@x" * 300,
                    b"@object-format=sha1\0", b"@object-format", b"@object-format=sha1 ",
                ]
            )
        )  # fmt: skip
    for kind, content in it.base:
        if kind == COMMIT and dice.random() < 0.3:
            comment = dice.choice([b"", b" ", b" the subject", b" \xff\0"])
            lines.append(b"-" + hash_object(kind, content).encode() + comment)
    if it.wrong(0.02):
        lines.append(b"-" + dice.choice([GONE.encode(), b"x", b"A" * 40, b"", b"1" * 41]))
    heads = it.shas[COMMIT][-1:] + dice.sample(it.shas[COMMIT], min(len(it.shas[COMMIT]), 1))
    heads += it.shas[TAG][-1:]
    if it.wrong(0.05):
        heads.append(it.any_sha(dice.choice([BLOB, TREE, TAG])))
    if it.wrong(0.02):
        heads = dice.choice([[], heads * 9])
    lines += [sha.encode() + b" " + make_ref(it) for sha in heads]
    if it.wrong(0.03):
        spoil_lines(it, lines)
    out = b"\n".join(lines) + b"\n\n"
    if it.wrong(0.02):
        out = dice.choice([it.mangle(out), out[:-1], out.replace(b"\n", b"\r\n"), b"\n" + out])
    return out


def make_ref(it: Input) -> bytes:
    good = it.dice.choice([b"HEAD", b"refs/heads/main", b"refs/tags/v1", b"refs/heads/caf\xc3\xa9"])
    bad = (b"", b"..", b"\0", b"\xff", b"refs/heads/../../x", b"x" * 8200, b"a\r", b"-x", b"@{u}")
    return it.dice.choice(bad) if it.wrong(0.04) else good


def make_bundle(seed: int, base: list[tuple[int, bytes]]) -> bytes:
    """The bundle of a seed; `base` are the objects that the hub has."""
    dice = random.Random(seed)
    it = Input(dice, base, budget=dice.choice([0, 1, 1, 1, 1, 1, 2, 2, 3, 8]))
    for _ in range(dice.choice([1, 1, 2, 3, 5])):
        make_commit(it)
    if it.wrong(0.02):
        for _ in range(15):
            make_commit(it)
    if dice.random() < 0.2:
        make_tag(it)
    out = make_header(it) + make_pack(it)
    if it.wrong(0.02):
        out = out[: dice.randrange(len(out))]
    if it.budget and dice.random() < 0.1:
        out = it.mangle(out)
    return out


def make_base() -> Forge:
    """What the hub has before: three commits, on which thin bundles build."""
    forge = Forge(Path())
    text = b"".join(b"line %d\n" % number for number in range(40))
    tip = ""
    for number in range(3):
        blob = forge.blob(text.replace(b"7", b"seven %d" % number))
        inner = forge.tree((b"100644", b"a", blob), (b"120000", b"link", forge.blob(b"a")))
        tree = forge.tree((b"40000", b"d", inner), (b"100644", b"train.py", forge.blob(text)))
        tip = forge.commit(tree, *([tip] if tip else []), tail=b"\nbase %d\n" % number)
    return forge


# Judging ----------------------------------------------------------------------------------------


@dataclass
class Finding:
    seed: int
    what: str


@dataclass
class Report:
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    seconds: float = 0.0

    def __iadd__(self, other: "Report") -> "Report":
        self.taken += other.taken
        self.refused += other.refused
        self.findings += other.findings
        self.slowest = max(self.slowest, other.slowest)
        self.seconds = max(self.seconds, other.seconds)
        return self


class Judge:
    """Stages inputs in a repository that holds the base and nothing else, ever.

    What is taken is promoted in a second one, which C git judges at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.forge = make_base()
        self.base = list(self.forge.objects.values())
        self._bundle = folder / "input.bundle"
        self.repo = BareRepo(folder / "repo.git", CAPS)
        self.sink = BareRepo(folder / "sink.git", CAPS)
        self._rows: dict[BareRepo, set[str]] = {self.repo: set(), self.sink: set()}
        tip = [sha for sha, (kind, _) in self.forge.objects.items() if kind == COMMIT][-1]
        self.forge.path = folder
        first = self.forge.bundle(tip)
        for repo in (self.repo, self.sink):
            self._push(repo, first)
        self._names = self._list()

    def try_input(self, content: bytes) -> str:
        """ "" when it is taken, else the name of its refusal. Anything else raises."""
        self._bundle.write_bytes(content)
        rows = self._rows[self.repo]
        refusal = ""
        try:
            with self.repo.stage(self._bundle, lambda hashes: rows & set(hashes)) as staged:
                is_new = bool(staged.commits)
        except HubError as error:
            error.body().model_dump_json()
            refusal = error.message
        if self._list() != self._names:
            raise AssertionError("files were left behind")
        if not refusal and is_new:
            self._push(self.sink, self._bundle)
        return refusal

    def ask_git(self) -> str:
        """What git says about all that was taken; empty when it is content."""
        done = subprocess.run(
            ["git", "fsck", "--full", "--strict", "--no-dangling"],
            cwd=self.sink.path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or done.stdout or "error" in done.stderr:
            return f"git fsck: {done.stdout}{done.stderr}"[:2000]
        return ""

    def _push(self, repo: BareRepo, bundle: Path) -> None:
        rows = self._rows[repo]
        with repo.stage(bundle, lambda hashes: rows & set(hashes)) as staged:
            repo.promote(staged)
        rows.update(commit.hash for commit in staged.commits)

    def _list(self) -> list[str]:
        # Whatever a push writes goes through quarantine first.
        folders = ("quarantine", "objects", "objects/pack", "refs/agenthub/heads")
        names = [str(p) for folder in folders for p in (self.repo.path / folder).iterdir()]
        return sorted(names + [str(p) for p in (self.repo.path / "quarantine").glob("*/*")])


def run(seeds: range) -> Report:
    """Try the inputs of some seeds."""
    report = Report()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        judge = Judge(Path(folder))
        for seed in seeds:
            judge_one(judge, seed, report)
        complaint = judge.ask_git()
    if complaint and len(seeds) == 1:
        report.findings.append(Finding(seeds.start, complaint))
    if complaint and len(seeds) > 1:
        # One of them is to blame, or several.
        middle = (seeds.start + seeds.stop) // 2
        for half in (range(seeds.start, middle), range(middle, seeds.stop)):
            report.findings += run(half).findings
    report.seconds = time.monotonic() - started
    return report


def judge_one(judge: Judge, seed: int, report: Report) -> None:
    content = make_bundle(seed, judge.base)
    started = time.monotonic()
    try:
        refusal = judge.try_input(content)
    except Exception as error:  # noqa: BLE001 - this is what a fuzzer looks for
        report.findings.append(Finding(seed, f"{type(error).__name__}: {error}"))
        return
    took = time.monotonic() - started
    report.slowest = max(report.slowest, (took, seed))
    if took > SLOW_SECONDS:
        report.findings.append(Finding(seed, f"took {took:.2f} s"))
    if refusal:
        report.refused[_VARIABLE.sub("", refusal)[:60]] += 1
    else:
        report.taken += 1


def run_all(count: int, first: int = 0, jobs: int = 1, tick: Callable[[int], None] = id) -> Report:
    size = max(1, min(2000, -(-count // jobs)))
    parts = [range(at, min(at + size, first + count)) for at in range(first, first + count, size)]
    report = Report()
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run, parts):
            report += part
            tick(report.taken + report.refused.total())
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, help="keep the bytes of findings here")
    args = parser.parse_args()
    started = time.monotonic()
    report = run_all(
        args.count, args.seed, args.jobs, lambda n: print(n, end="\r", file=sys.stderr)
    )
    seconds = time.monotonic() - started
    print(f"{args.count} inputs in {seconds:.0f} s, {args.count / seconds:.0f} a second")
    print(f"taken {report.taken}, refused {report.refused.total()}:")
    for sort, number in report.refused.most_common():
        print(f"  {number:7} {sort}")
    print(f"slowest {report.slowest[0] * 1000:.0f} ms (seed {report.slowest[1]})")
    base = list(make_base().objects.values())
    for found in report.findings:
        print(f"FOUND seed {found.seed}: {found.what}")
        if args.write:
            args.write.mkdir(exist_ok=True)
            (args.write / f"{found.seed}.bundle").write_bytes(make_bundle(found.seed, base))
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
