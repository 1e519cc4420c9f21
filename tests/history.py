"""A history as years of work by many leave it, made by C git's fast-import from a seed."""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

NAMES = (
    b"train.py", b"model.py", b"data/prepare.py", b"data/raw/a.bin", b"docs/caf\xc3\xa9.md",
    b"docs/latin-\xe9.txt", b"with space/f", b'quo"te', b"tab\there", b"run.sh", b"link",
    b"a/b/c/d/e/f/g/h/i/j/k/l/deep.txt", b"empty", b"no-newline", b"crlf.txt", b"a-b",
    b"a.b", b"a/x",
)  # fmt: skip
TARGETS = (b"train.py", b"docs", b"data/prepare.py", b"nowhere")


@dataclass
class History:
    """Writes commits for `git fast-import`, each upon some of the twenty newest."""

    seed: int
    out: list[bytes] = field(default_factory=list)
    #: Of each mark, the paths it has.
    paths: dict[int, set[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def write(self, count: int) -> bytes:
        for mark in range(1, count + 1):
            self._commit(mark)
        return b"".join(self.out)

    def _commit(self, mark: int) -> None:
        dice = self.dice
        parents = self._parents(mark)
        date = dice.choice([1_700_000_000 + mark, 0, dice.randrange(2**33), 1_700_000_000])
        encoding = b"encoding latin1\n" if dice.random() < 0.02 else b""
        message = (
            dice.choice([b"step %d", b"step %d\n\nand why\n", b"caf\xe9 %d", b"\n\n%d\n"]) % mark
        )
        self.out.append(
            b"commit refs/heads/b%d\nmark :%d\n" % (mark, mark)
            + b"author A <a@b> %d +0130\n" % dice.randrange(2**33)
            + b"committer C <c@d> %d -0800\n" % date
            + encoding + b"data %d\n%s\n" % (len(message), message)
        )  # fmt: skip
        for at, parent in enumerate(parents):
            self.out.append(b"%s :%d\n" % (b"merge" if at else b"from", parent))
        paths = self.paths[mark] = set(self.paths[parents[0]]) if parents else set()
        for _ in range(dice.choice([0, 1, 1, 1, 2, 4])):
            self._change(paths)
        self.out.append(b"\n")

    def _parents(self, mark: int) -> list[int]:
        dice = self.dice
        if mark == 1 or dice.random() < 0.002:
            return []
        recent = range(max(1, mark - 20), mark)
        count = dice.choice([1] * 14 + [2, 2, 2, 3, 5])
        if count == 1:
            return [mark - 1 if dice.random() < 0.7 else dice.choice(recent)]
        return dice.sample(recent, min(count, len(recent)))

    def _change(self, paths: set[bytes]) -> None:
        dice = self.dice
        match dice.randrange(8):
            case 0 if len(paths) > 3:
                gone = dice.choice(sorted(paths))
                paths.remove(gone)
                self.out.append(b"D %s\n" % _quoted(gone))
            case 1 if paths:
                old = dice.choice(sorted(paths))
                new = b"moved/" + old if not old.startswith(b"moved/") else old[6:]
                if not self._is_taken(new, paths - {old}):
                    paths.remove(old)
                    paths.add(new)
                    self.out.append(b"R %s %s\n" % (_quoted(old), _quoted(new)))
            case _:
                name = dice.choice(NAMES)
                if not self._is_taken(name, paths):
                    paths.add(name)
                    self._file(name)

    def _is_taken(self, name: bytes, paths: set[bytes]) -> bool:
        """Whether a file is where the name needs a folder, or the other way round."""
        return any(
            (path + b"/").startswith(name + b"/") or name.startswith(path + b"/")
            for path in paths - {name}
        )

    def _file(self, name: bytes) -> None:
        dice = self.dice
        mode, content = b"100644", self._text()
        if name == b"link":
            mode, content = b"120000", dice.choice(TARGETS)
        elif name == b"run.sh":
            mode = dice.choice([b"100644", b"100755"])
        elif name.endswith(b".bin"):
            content = dice.randbytes(dice.randrange(3000))
        elif name == b"empty":
            content = dice.choice([b"", b"x\n"])
        elif name == b"no-newline":
            content = content[: -dice.randrange(2) or None]
        elif name == b"crlf.txt":
            content = content.replace(b"\n", b"\r\n")
        self.out.append(
            b"M %s inline %s\ndata %d\n%s\n" % (mode, _quoted(name), len(content), content)
        )

    def _text(self) -> bytes:
        """Some lines of a file that most versions share, so that diffs are small."""
        dice = self.dice
        lines = [b"line %d\n" % number for number in range(dice.choice([3, 30, 200]))]
        for _ in range(dice.randrange(6)):
            at = dice.randrange(len(lines) + 1)
            lines[at : at + dice.randrange(3)] = [b"changed %d\n" % dice.randrange(9)]
        return b"".join(lines)


def _quoted(path: bytes) -> bytes:
    escaped = b"".join(
        b"\\%03o" % byte if byte in b'"\\' or not 32 <= byte < 127 else bytes([byte])
        for byte in path
    )
    return b'"%s"' % escaped


def grow(repository: Path, count: int, seed: int = 1) -> None:
    """Put a history of `count` commits into a git repository, a branch `b<number>` on each."""
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=repository,
        input=History(seed).write(count),
        check=True,
    )
