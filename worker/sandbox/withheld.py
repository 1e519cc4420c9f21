"""Withheld: folders among what trainings see that they must not read, but for a few files.

Text that scores are made of may come with a package that trainings need. Where there are walls, a
folder with copies of the few files lies over it; copies of the whole that are found in places where
packages lie are covered too. Others are for the probe to find, and a reason to refuse.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL = 3
#: Where packages lie below a folder that is shown.
PACKAGES = ("", "lib*/python*/*-packages", "local/lib*/python*/*-packages")


@dataclass(frozen=True, slots=True)
class Withheld:
    #: Its path inside.
    folder: Path
    #: Files below it that may be read.
    kept: tuple[str, ...]
    #: Holds copies of those and nothing else.
    mask: Path


def withhold(
    told: Mapping[str, Sequence[str]], shown: Sequence[Path], cache: Path
) -> tuple[Withheld, ...]:
    """What to cover in `shown`, given folders and the files of each that may be read."""
    return tuple(
        Withheld(inside, tuple(kept), _make_mask(inside, kept, cache))
        for name, kept in told.items()
        for inside in _find(Path(name), shown)
    )


def tail_of(folder: Path) -> Path:
    """What tells the folder wherever its package lies: `torch/testing/_internal`."""
    return Path(*folder.parts[-TAIL:])


def _find(folder: Path, shown: Sequence[Path]) -> list[Path]:
    """All paths in `shown` of a folder and of its copies, without links below what is shown."""
    places = {folder.resolve()}
    for path in shown:
        for packages in PACKAGES:
            pattern = Path(packages, tail_of(folder))
            places |= {place.resolve() for place in path.glob(str(pattern))}
    return sorted(
        path / place.relative_to(path.resolve())
        for path in shown
        for place in places
        if place.is_relative_to(path.resolve()) and place.is_dir()
    )


def _make_mask(folder: Path, kept: Iterable[str], cache: Path) -> Path:
    files = {name: (folder / name).read_bytes() for name in kept if (folder / name).is_file()}
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    mask = cache / "withheld" / digest
    if mask.is_dir():
        return mask
    mask.parent.mkdir(exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix="new", dir=mask.parent))
    for name, content in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(content)
        (new / name).chmod(0o644)
    for path in [new, *new.rglob("*/")]:
        path.chmod(0o755)  # Trainings may be another user.
    try:
        new.rename(mask)
    except OSError:  # Another worker of this cache was faster.
        shutil.rmtree(new)
    return mask


def open_around(
    shown: Iterable[Path], withheld: Sequence[Withheld]
) -> tuple[list[Path], list[Path]]:
    """For sandboxes that can only allow: what may be read, and folders that may be listed alone."""
    closed = [each.folder.resolve() for each in withheld]
    kept = [path / name for each, path in zip(withheld, closed, strict=True) for name in each.kept]
    readable, listed = list[Path](), list[Path]()
    for path, is_whole in _walk_around([path.resolve() for path in shown], closed):
        (readable if is_whole else listed).append(path)
    return [*readable, *kept], [*listed, *closed]


def _walk_around(paths: Iterable[Path], closed: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    for path in paths:
        if any(path.is_relative_to(folder) for folder in closed):
            continue
        is_whole = not any(folder.is_relative_to(path) for folder in closed)
        yield path, is_whole
        if not is_whole:
            # A link may lead back to what is closed; what it leads to counts, not the link.
            children = [child for child in path.iterdir() if not child.is_symlink()]
            yield from _walk_around(children, closed)
