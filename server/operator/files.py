"""A hub's files: its database opened without writing it, its parts copied while it runs."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from server.db import Database
from server.operator.target import Refused, refuse_unfinished
from server.repo import BareRepo

_COPIES_MAX = 100
_PACK_SUFFIXES = (".pack", ".rev", ".idx")


def find_hub(data: Path) -> Path:
    """The absolute path of a data directory that has a database and a repository."""
    data = data.resolve()
    refuse_unfinished(data)
    for part in ("hub.db", "repo.git"):
        if not (data / part).exists():
            raise Refused(f"{data} is no hub's data directory: it has no {part}", "name it: --data")
    return data


@contextmanager
def reading(path: Path) -> Iterator[Database]:
    """A hub's database, for reading alone."""
    db = Database(f"sqlite:///{_read_only(path)}&uri=true")
    try:
        yield db
    finally:
        db.close()


def connect_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(_read_only(path), uri=True)


def _read_only(path: Path) -> str:
    # Without a log nobody is writing, and looking should leave no files behind, nor need to.
    is_quiet = not path.with_name(f"{path.name}-wal").exists()
    return f"file:{quote(str(path.resolve()))}?mode=ro{'&immutable=1' if is_quiet else ''}"


def copy_database(source: Path, target: Path, *, is_live: bool) -> None:
    """One moment of a database, by SQLite's online backup; a live one may be written meanwhile."""
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    opened = sqlite3.connect(source) if is_live else connect_read_only(source)
    with closing(opened) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def copy_repo(source: Path, target: Path, place: Callable[[Path, Path], object]) -> None:
    """Copy objects and refs of a repository that others may push to and repack.

    What the source had when this began is in the target afterwards. Its configuration and hooks
    are not copied: a hub needs none of its own.
    """
    BareRepo(target).close()
    with _no_upkeep(source):
        # In the order in which maintenance moves things: files first, then what takes them in.
        _copy_refs(source, target)
        for folder in sorted((source / "objects").glob("[0-9a-f][0-9a-f]")):
            _copy_names(folder, target / "objects" / folder.name, place)
        _copy_packs(source / "objects" / "pack", target / "objects" / "pack", place)


@contextmanager
def _no_upkeep(repo: Path) -> Iterator[None]:
    """Keep the hub from repacking for a while; a backup of a read-only copy needs no such care."""
    try:
        file = (repo / "upkeep.lock").open("ab")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy_refs(source: Path, target: Path) -> None:
    for path in sorted((source / "refs").rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(".lock"):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _try(shutil.copyfile, path, copy)
    _try(shutil.copyfile, source / "packed-refs", target / "packed-refs")


def _copy_names(
    source: Path, target: Path, place: Callable[[Path, Path], object], names: str = "*"
) -> bool:
    """Copy plain files that are not there yet; False when one went meanwhile."""
    target.mkdir(exist_ok=True)
    is_whole = True
    for path in source.glob(names):
        copy = target / path.name
        if path.name.startswith(("tmp_", ".")) or path.is_symlink() or copy.exists():
            continue
        is_whole &= _try(place, path, copy)
    return is_whole


def _copy_packs(source: Path, target: Path, place: Callable[[Path, Path], object]) -> None:
    """A pack that goes while we copy was replaced by another one, so we look again."""
    for _ in range(_COPIES_MAX):
        before = {path.name for path in source.glob("pack-*.idx")}
        # Nobody looks at a pack before its index is there.
        is_whole = [_copy_names(source, target, place, f"pack-*{end}") for end in _PACK_SUFFIXES]
        if all(is_whole) and before == {path.name for path in source.glob("pack-*.idx")}:
            break
    for index in target.glob("pack-*.idx"):
        if not index.with_suffix(".pack").exists():
            index.unlink()


def _try(place: Callable[[Path, Path], object], source: Path, target: Path) -> bool:
    try:
        place(source, target)
    except FileNotFoundError:
        return False
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """For copies that do not stay: packs and loose objects never change."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy(source, target)
