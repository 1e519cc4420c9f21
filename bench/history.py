"""A research history as a swarm makes it, written by `git fast-import`: the same for each seed."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_TRAIN = "train.py"
_TRAIN_BYTES = 25_000
_FILES = 8
#: How often a commit builds on the newest one, on a recent one, on any.
_NEWEST, _RECENT, _RECENT_COMMITS = 0.6, 0.35, 50


def make_history(path: Path, count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Make a bare repository; return each commit with its parent ("" for the root), in order."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    importer = subprocess.Popen(
        ["git", "fast-import", "--quiet", "--depth=50", "--export-marks=marks"],
        cwd=path,
        stdin=subprocess.PIPE,
    )
    assert importer.stdin is not None
    parents: list[int] = []
    for parent, command in _commits(random.Random(seed), count):
        parents.append(parent)
        importer.stdin.write(command)
    importer.stdin.close()
    assert importer.wait() == 0
    hashes = dict(line.split() for line in (path / "marks").read_text().splitlines())
    names = ["", *(hashes[f":{mark}"] for mark in range(1, count + 1))]
    return [(names[mark], names[parent]) for mark, parent in enumerate(parents, 1)]


def write_bundle(path: Path, commit: str, parent: str, out: Path) -> None:
    """Write a bundle of one commit for those who have its parent."""
    revisions = f"{commit}\n^{parent}\n" if parent else f"{commit}\n"
    pack = subprocess.run(
        ["git", "pack-objects", "--quiet", "--revs", "--thin", "--stdout"],
        cwd=path,
        input=revisions.encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    lines = ["# v2 git bundle", *([f"-{parent} "] if parent else []), f"{commit} refs/heads/main"]
    out.write_bytes("\n".join([*lines, "", ""]).encode() + pack)


def _commits(chance: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
    texts: dict[int, list[str]] = {0: _first_train()}
    for mark in range(1, count + 1):
        parent = _choose_parent(chance, mark)
        lines = list(texts[parent])
        for _ in range(chance.randint(2, 5)):
            at = chance.randrange(len(lines))
            lines[at] = f"    value_{chance.randrange(1000)} = {chance.random():.4f}  # try {mark}"
        texts[mark] = lines
        # Each holds references to its lines, not copies; still, 10,000 suffice to choose from.
        texts.pop(mark - 10_000, None)
        yield parent, _commit(mark, parent, "\n".join(lines) + "\n")


def _choose_parent(chance: random.Random, mark: int) -> int:
    if mark == 1:
        return 0
    luck = chance.random()
    if luck < _NEWEST:
        return mark - 1
    oldest = mark - _RECENT_COMMITS if luck < _NEWEST + _RECENT else mark - 9_999
    return chance.randrange(max(1, oldest), mark)


def _commit(mark: int, parent: int, train: str) -> bytes:
    message = f"experiment {mark}: change a few values and see"
    head = [
        f"commit refs/heads/c{mark}",
        f"mark :{mark}",
        f"committer Agent {mark % 10} <agent@example.org> {1_760_000_000 + mark * 60} +0000",
        _data(message),
    ]
    if parent:
        head.append(f"from :{parent}")
    else:
        head += [f"M 644 inline {name}\n{_data(text)}" for name, text in _other_files()]
    return "\n".join([*head, f"M 644 inline {_TRAIN}", _data(train), "", ""]).encode()


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"


def _first_train() -> list[str]:
    text = (_ROOT / "train_template" / "train.py").read_text()
    return (text * (1 + _TRAIN_BYTES // len(text)))[:_TRAIN_BYTES].split("\n")


def _other_files() -> Iterator[tuple[str, str]]:
    for name in ("prepare.py", "program.md", "pyproject.toml"):
        yield name, (_ROOT / "train_template" / name).read_text()
    for number in range(_FILES - 4):
        yield f"notes/{number}.md", f"# Note {number}\n" + "words of this note\n" * 20
