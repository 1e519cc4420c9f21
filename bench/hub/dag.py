"""The history that a filled hub holds: one long line of commits, and a swarm's DAG beside it.

The same for each size and seed, down to the hashes. The line has a root of its own and `LINE`
commits of eight files, so that lineages, diffs and bundles cost the same at every size. The swarm
builds mostly on the newest commits: some 27 % are leaves, and lineages grow with the hub.
"""

import hashlib
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from bench.research import BASELINE, IDEAS
from server.repo.code import code_of

LINE = 1000
AGENTS = tuple(f"agent{number:03}" for number in range(200))
STEP_SECONDS = 30
_BEGIN = datetime(2025, 10, 9, tzinfo=UTC)
_TRAIN_LINES = 800
#: How often a commit of the swarm builds on the newest one, on one of the last 50; else on one of
#: the last 5,000. Now and then it merges another one.
_NEWEST, _RECENT, _MERGE = 0.6, 0.95, 0.02
_SETTINGS = ("LR", "WIDTH", "DEPTH", "WARMDOWN", "BATCH", "DECAY", "HEADS", "WINDOW")
_TAIL = "".join(f"def part_{n}(x):\n    return x * {n} + LR\n\n\n" for n in range(6))


@dataclass(slots=True)
class Commit:
    seq: int
    hash: str
    tree: str
    code: str
    parents: tuple[int, ...]
    agent: str
    message: str
    #: None for a crash.
    score: float | None
    #: The setting that it changed, and to what.
    setting: str
    value: str


@dataclass(slots=True)
class _Draft:
    commit: Commit
    #: What it writes: git's names of files, and their bytes.
    files: dict[str, bytes]


def walk(count: int, seed: int = 1) -> Iterator[Commit]:
    """`LINE` commits of the line, then `count` of the swarm, in the order of their seqs."""
    for draft in _drafts(count, seed):
        yield draft.commit


def write_git(repo: Path, count: int, seed: int = 1) -> None:
    """The objects of `walk`, and keep-refs of the leaves, into a bare repository."""
    git = ("git", "-C", str(repo))
    command = [*git, "fast-import", "--quiet", "--depth=50", "--force"]
    importer = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=2**20)
    assert importer.stdin is not None
    leaves: dict[int, str] = {}
    for draft in _drafts(count, seed):
        importer.stdin.write(_told(draft))
        leaves[draft.commit.seq] = draft.commit.hash
        for parent in draft.commit.parents:
            leaves.pop(parent, None)
    importer.stdin.close()
    assert importer.wait() == 0
    tip = subprocess.check_output([*git, "rev-parse", "refs/heads/draft"], text=True).strip()
    if tip != draft.commit.hash:
        raise RuntimeError(f"git calls the last commit {tip}, not {draft.commit.hash}")
    # By hand: git would first make a file of each.
    lines = sorted(f"{hash} refs/agenthub/heads/{hash}\n" for hash in leaves.values())
    head = "# pack-refs with: peeled fully-peeled sorted \n"
    (repo / "packed-refs").write_text(head + "".join(lines))
    subprocess.run([*git, "update-ref", "-d", "refs/heads/draft"], check=True)


def _drafts(count: int, seed: int) -> Iterator[_Draft]:
    hashes: list[str] = [""]
    lines = list(_first_train())
    chance = random.Random(seed)
    for seq in range(1, LINE + count + 1):
        is_line = seq <= LINE
        if is_line:
            parents = (seq - 1,) if seq > 1 else ()
            _change(lines, seq)
            files = {"train.py": _text(lines)}
            whole = {**other_files(), **files}
        else:
            parents = _choose(chance, seq)
            files = {}
        score = _try(chance, seq)
        setting, value = _SETTINGS[seq % len(_SETTINGS)], f"{chance.random():.4f}"
        if not is_line:
            text = f"import torch\nSTEP = {seq}\n{setting} = {value}\n{_TAIL}"
            files = whole = {"train.py": text.encode()}
        message = IDEAS[seq % len(IDEAS)].format(x=float(value), n=seq % 97)
        agent = AGENTS[min(int(chance.expovariate(0.03)), len(AGENTS) - 1)]
        body = tree_body(whole)
        tree, code = object_hash("tree", body), code_of(body)
        hash = object_hash(
            "commit", commit_body(tree, [hashes[p] for p in parents], agent, seq, message)
        )
        hashes.append(hash)
        commit = Commit(seq, hash, tree, code, parents, agent, message, score, setting, value)
        yield _Draft(commit, whole if seq == 1 else files)


def _choose(chance: random.Random, seq: int) -> tuple[int, ...]:
    first = LINE + 1
    if seq == first:
        return ()
    luck = chance.random()
    if luck < _NEWEST:
        parent = seq - 1
    else:
        parent = chance.randrange(max(first, seq - (50 if luck < _RECENT else 5_000)), seq)
    if chance.random() < _MERGE:
        other = chance.randrange(max(first, seq - 200), seq)
        if other != parent:
            return (parent, other)
    return (parent,)


def _try(chance: random.Random, seq: int) -> float | None:
    """Slowly better, whatever it builds on: there is always a next record."""
    if chance.random() < 0.05:
        return None
    level = 0.9 + (BASELINE - 0.9) * (1 + seq / 2000) ** -0.15
    return round(level + abs(chance.gauss(0.001, 0.002)), 6)


# Objects ----------------------------------------------------------------------------------------


def object_hash(kind: str, body: bytes) -> str:
    return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(body), body)).hexdigest()


def tree_body(files: dict[str, bytes]) -> bytes:
    """Of files in one folder."""
    return b"".join(
        b"100644 %s\0%s" % (name.encode(), bytes.fromhex(_blob_hash(name, files[name])))
        for name in sorted(files)
    )


def tree_hash(files: dict[str, bytes]) -> str:
    return object_hash("tree", tree_body(files))


def commit_body(tree: str, parents: list[str], agent: str, seq: int, message: str) -> bytes:
    who = f"{agent} <{agent}@example.org> {moment_of(seq).timestamp():.0f} +0000"
    lines = [f"tree {tree}", *(f"parent {hash}" for hash in parents)]
    return "\n".join([*lines, f"author {who}", f"committer {who}", "", message]).encode()


def moment_of(seq: int) -> datetime:
    return _BEGIN + timedelta(seconds=seq * STEP_SECONDS)


@cache
def other_files() -> dict[str, bytes]:
    """What the commits of the line have beside train.py."""
    sizes = {"prepare.py": 400, "program.md": 120, "pyproject.toml": 30}
    sizes |= {f"note{n}.md": 20 for n in range(4)}
    return {name: _text([f"{name} {n}" for n in range(size)]) for name, size in sizes.items()}


@cache
def _other_hashes() -> dict[str, str]:
    return {name: object_hash("blob", body) for name, body in other_files().items()}


def _blob_hash(name: str, body: bytes) -> str:
    return object_hash("blob", body) if name == "train.py" else _other_hashes()[name]


def line_train(seq: int) -> bytes:
    """train.py of the line's commit: every commit changes three lines."""
    lines = list(_first_train())
    for at in range(1, seq + 1):
        _change(lines, at)
    return _text(lines)


def _change(lines: list[str], seq: int) -> None:
    for part in range(3):
        lines[(seq * 3 + part) * 7919 % len(lines)] = f"value_{seq}_{part} = {seq * part / 7}"


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


@cache
def _first_train() -> tuple[str, ...]:
    """25 KB that look like a train.py; not the template's own, which changes."""
    chance = random.Random(3)
    names = [f"{_SETTINGS[n % len(_SETTINGS)].lower()}_{n}" for n in range(60)]
    return tuple(
        f"    {chance.choice(names)} = {chance.choice(names)} * {chance.random():.4f}"
        for _ in range(_TRAIN_LINES)
    )


def _told(draft: _Draft) -> bytes:
    commit = draft.commit
    who = (
        f"{commit.agent} <{commit.agent}@example.org> {moment_of(commit.seq).timestamp():.0f} +0000"
    )
    message = commit.message.encode()
    lines = [
        f"commit refs/heads/draft\nmark :{commit.seq}\ncommitter {who}",
        f"data {len(message)}\n{commit.message}",
    ]
    for position, parent in enumerate(commit.parents):
        lines.append(f"{'merge' if position else 'from'} :{parent}")
    if not commit.parents:
        # Else fast-import would go on from the branch as it stands.
        lines[0] = "reset refs/heads/draft\n" + lines[0]
    parts = ["\n".join(lines).encode() + b"\n"]
    for name, body in draft.files.items():
        parts.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(body), body))
    return b"".join(parts)
