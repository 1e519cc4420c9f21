"""Targets: folders and files that are made whole or not at all.

A folder is built in its own subfolder `.unfinished` and carries that until it is whole. What a
killed command leaves is told by it, refused by the hub, and cleared by the next attempt.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.errors import InvalidRequest

MARK = ".unfinished"
# What a fresh file system has in it.
_NOT_OURS = {"lost+found"}


class Refused(InvalidRequest):
    """The command cannot be done; nothing was changed."""


def refuse_unfinished(folder: Path) -> None:
    if (folder / MARK).exists():
        raise Refused(
            f"{folder} is unfinished: a restore or an import into it was interrupted",
            "run that command again; it starts afresh",
        )


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """Yield a folder to work in; its contents become those of `target`, which must be empty."""
    is_new = not target.exists()
    if target.exists() and not target.is_dir():
        raise Refused(f"{target} is a file, not a folder", "name a new or an empty folder")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(target):
        names = {path.name for path in target.iterdir()} - _NOT_OURS
        if names and MARK not in names:
            raise Refused(f"{target} is not empty", "name a new or an empty folder")
        # It was empty when the interrupted command began, so all of this is that command's.
        for name in sorted(names, key=lambda name: name == MARK):
            _remove(target / name)
        work = target / MARK
        work.mkdir(mode=0o700)
        try:
            yield work
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            if is_new:
                with suppress(OSError):
                    target.rmdir()
            raise
        _move_up(work)


@contextmanager
def building_file(target: Path) -> Iterator[Path]:
    """Yield a folder to work in; its file of the target's name becomes the target."""
    work = target.with_name(f"{target.name}{MARK}")
    if target.exists():
        raise Refused(f"{target} exists", "name another file, or remove this one first")
    target.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(mode=0o700, exist_ok=True)
    with _alone(work):
        for path in work.iterdir():
            _remove(path)
        try:
            yield work
            os.sync()
            (work / target.name).rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        os.sync()


def _move_up(work: Path) -> None:
    # The database last: without it there is no hub here.
    paths = sorted(work.iterdir(), key=lambda path: (path.name == "hub.db", path.name))
    os.sync()
    for path in paths:
        path.rename(work.parent / path.name)
    os.sync()
    work.rmdir()
    os.sync()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"another command writes {folder}", "wait until it is done") from error
        yield
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
