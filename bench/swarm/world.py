"""The world of a simulated swarm: what each code is really worth, and its commits as bundles."""

import hashlib
import random
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

_COMMIT, _TREE, _BLOB = 1, 2, 3
_NAMES = {_COMMIT: b"commit", _TREE: b"tree", _BLOB: b"blob"}

#: What a change does to the true score of its parent: harm, good, or nothing; the first two are
#: exponential with these means.
HARM, GOOD = 0.3, 0.15
HARM_BPB, GOOD_BPB = 0.0030, 0.0006
#: Code that always crashes, that ignores the seed, and that makes its score up.
BROKEN, FIXED_SEED, CHEATING = 0.03, 0.01, 0.01
CHEATED_BPB = 0.2
#: Changes pushed again as they are, by somebody else or under another message.
COPIES = 0.02


@dataclass(frozen=True)
class Platform:
    name: str
    #: val_bpb of the first commit, and the standard deviation of one run.
    start: float
    sigma: float


PLATFORMS = (Platform("H100", 0.998, 0.0006), Platform("RTX-4090", 1.104, 0.0009))


@dataclass(frozen=True)
class Code:
    """One content of train.py: equal codes are the same experiment."""

    number: int
    #: True val_bpb on each platform.
    truth: dict[str, float]
    nature: str = "honest"


@dataclass(frozen=True)
class Commit:
    hash: str
    parent: str
    code: Code
    agent: str


@dataclass
class World:
    """Makes commits; `dice` decides what they are worth."""

    dice: random.Random
    commits: dict[str, Commit] = field(default_factory=dict)
    codes: list[Code] = field(default_factory=list)

    def make_root(self, agent: str, out: Path) -> Commit:
        code = self._add({one.name: one.start for one in PLATFORMS}, "honest")
        return self._commit_chain([code], "", agent, out)[-1]

    def make_change(self, parent: Commit, agent: str, length: int, out: Path) -> list[Commit]:
        """A chain of changes on a parent as one bundle; only the last one becomes a leaf."""
        codes: list[Code] = []
        for _ in range(length):
            codes.append(self._change(codes[-1] if codes else parent.code))
        return self._commit_chain(codes, parent.hash, agent, out)

    def measure(self, code: Code, platform: str) -> float:
        """What one training comes to, to six decimals as a trainer prints it."""
        truth = code.truth[platform]
        if code.nature == "cheating":
            return CHEATED_BPB
        if code.nature != "fixed seed":
            truth += self.dice.gauss(0, next(p.sigma for p in PLATFORMS if p.name == platform))
        return round(truth, 6)

    def _change(self, parent: Code) -> Code:
        if self.dice.random() < COPIES:
            return self.dice.choice(self.codes)
        step, luck = 0.0, self.dice.random()
        if luck < HARM:
            step = self.dice.expovariate(1 / HARM_BPB)
        elif luck < HARM + GOOD:
            step = -self.dice.expovariate(1 / GOOD_BPB)
        # Platforms agree on what is good, not on how good it is.
        truth = {name: at + step * self.dice.uniform(0.7, 1.3) for name, at in parent.truth.items()}
        natures = ("broken", "fixed seed", "cheating", "honest")
        odds = (BROKEN, FIXED_SEED, CHEATING, 1 - BROKEN - FIXED_SEED - CHEATING)
        return self._add(truth, self.dice.choices(natures, odds)[0])

    def _add(self, truth: dict[str, float], nature: str) -> Code:
        code = Code(len(self.codes), truth, nature)
        self.codes.append(code)
        return code

    def _commit_chain(self, codes: list[Code], parent: str, agent: str, out: Path) -> list[Commit]:
        packed: dict[str, bytes] = {}
        made, above = [], parent
        for code in codes:
            above = _pack_commit(packed, code, above, f"{agent}: try {len(self.commits)}")
            made.append(Commit(above, made[-1].hash if made else parent, code, agent))
            self.commits[above] = made[-1]
        _write_bundle(out, above, parent, list(packed.values()))
        return made


def _pack_commit(packed: dict[str, bytes], code: Code, parent: str, message: str) -> str:
    blob = _pack_object(packed, _BLOB, b"# train.py\nTRY = %d\n" % code.number)
    tree = _pack_object(packed, _TREE, b"100644 train.py\0" + bytes.fromhex(blob))
    ident = "Agent <agent@example.org> 1760000000 +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
    lines += [f"author {ident}", f"committer {ident}", "", message, ""]
    return _pack_object(packed, _COMMIT, "\n".join(lines).encode())


def _pack_object(packed: dict[str, bytes], kind: int, content: bytes) -> str:
    head = b"%s %d\0" % (_NAMES[kind], len(content))
    sha = hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
    size, byte = len(content) >> 4, kind << 4 | len(content) & 15
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        size, byte = size >> 7, size & 0x7F
    packed[sha] = bytes([*header, byte]) + zlib.compress(content)
    return sha


def _write_bundle(out: Path, tip: str, prerequisite: str, entries: list[bytes]) -> None:
    pack = b"PACK" + struct.pack(">LL", 2, len(entries)) + b"".join(entries)
    pack += hashlib.sha1(pack, usedforsecurity=False).digest()
    lines = ["# v2 git bundle", *([f"-{prerequisite} "] if prerequisite else [])]
    out.write_bytes("\n".join([*lines, f"{tip} refs/heads/main", "", ""]).encode() + pack)
