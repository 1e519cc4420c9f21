"""Workspace: where one training runs: the commit's files with the frozen ones restored.

    CACHE/mirror.git    commits, shared by all workers of this cache: see mirror.py
    CACHE/live/NAME/    one live worker: `lock`, held as long as it lives, its workspaces, and the
                        run that it holds
    CACHE/withheld/     what lies over folders that trainings must not read: see sandbox/withheld.py

A folder whose lock nobody holds was left by a dead worker and is swept by the next that starts,
which gives the run back to the hub.
Names are short since the path of a Unix socket below TMPDIR has room for 107 bytes.
"""

import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ah_cli import git
from worker.mirror import Mirror
from worker.template import TRAINED_FILE, Template
from worker.trainer import capture

#: A file that holds much more than code holds text or weights.
TRAIN_FILE_BYTES = 128 * 1024
#: What git says of paths no file system takes; all else that fails is this machine's fault.
UNWRITABLE = re.compile("name too long|invalid path", re.IGNORECASE)


class InvalidTree(Exception):
    """The commit's files cannot be trained; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Folders of one training; all of them are gone after it."""

    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as a dead worker left it."""

    hub: str
    run: int
    fence: int


class Cache:
    """This worker's place in a cache folder that other workers may share."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        workers = directory / "live"
        workers.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.mirror = Mirror(directory, limit_bytes)
        with _locked(directory / "lock"):
            #: Leases of dead workers.
            self.left = _sweep(workers)
            self._own = Path(tempfile.mkdtemp(prefix="", dir=workers))
            # Never closed: the lock lives as long as the process.
            self._lock = _lock(self._own / "lock", fcntl.LOCK_EX)
            self.mirror.open()

    def close(self) -> None:
        _remove(self._own)

    @contextmanager
    def holding(self, hub: str, run: int, fence: int) -> Iterator[None]:
        """Note the lease, so that whoever sweeps after us can give it back."""
        note = self._own / "held"
        note.write_text(json.dumps(asdict(Held(hub, run, fence))))
        try:
            yield
        finally:
            note.unlink()

    def bundle_path(self, hash: str) -> Path:
        return self._own / f"{hash}.bundle"

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """An empty workspace, removed afterwards with all that a training may leave in it."""
        space = Workspace(Path(tempfile.mkdtemp(prefix="", dir=self._own)))
        try:
            for directory in (space.tree, space.home, space.tmp):
                directory.mkdir()
            yield space
        finally:
            _remove(space.root)

    def fill(self, space: Workspace, hash: str, template: Template, *, whole: bool) -> None:
        """Write the commit's files, or train.py alone, and the frozen ones; raise InvalidTree."""
        try:
            git.export_tree(hash, self.mirror.path, space.tree)
        except git.GitError as error:
            if UNWRITABLE.search(str(error)):
                raise InvalidTree(f"a file of it cannot be written: {error}") from error
            raise
        check_train_file(space.tree / TRAINED_FILE)
        if not whole:
            keep_train_file(space.tree)
        restore_frozen(space.tree, template)


def keep_train_file(tree: Path) -> None:
    """Remove all else: a file without a cap could hold the very text that is scored."""
    for path in list(tree.iterdir()):
        if path.name != TRAINED_FILE:
            _clear(path)


def check_train_file(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError:
        raise InvalidTree(f"there is no {TRAINED_FILE}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InvalidTree(f"{TRAINED_FILE} is not a plain file")
    if found.st_size > TRAIN_FILE_BYTES:
        raise InvalidTree(f"{TRAINED_FILE} has {found.st_size} bytes, more than {TRAIN_FILE_BYTES}")


def restore(tree: Path, template: Template, train: bytes) -> None:
    """Undo what a training without a sandbox may have done to the files it was started with."""
    _clear(tree / TRAINED_FILE)
    (tree / TRAINED_FILE).write_bytes(train)
    restore_frozen(tree, template)


def restore_frozen(tree: Path, template: Template) -> None:
    """Put the trusted files in place, and nothing that Python would import instead of them."""
    for directory, folders, _ in os.walk(tree):
        for folder in [name for name in folders if name.casefold() == "__pycache__"]:
            _clear(Path(directory, folder))
            folders.remove(folder)
    for name, content in template.frozen.items():
        parent = _real_folder(tree, name.parent)
        for rival in list(parent.iterdir()):
            if _shadows(rival.name.casefold(), name.name.casefold()):
                _clear(rival)
        (parent / name.name).write_bytes(content)


def _shadows(rival: str, name: str) -> bool:
    """Whether it is the file itself, or the package or extension module of the same name."""
    return rival == name or (name.endswith(".py") and rival.split(".")[0] == name[:-3])


def _real_folder(tree: Path, below: PurePosixPath) -> Path:
    """The folder as a real one: a link in its place must not lead the frozen files elsewhere."""
    folder = tree
    for part in below.parts:
        folder = folder / part
        if folder.is_symlink() or not folder.is_dir():
            _clear(folder)
            folder.mkdir()
    return folder


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _remove(path)
    else:
        path.unlink(missing_ok=True)


def _sweep(workers: Path) -> list[Held]:
    """Remove what dead workers left; return the leases that they held."""
    found = []
    for left in workers.iterdir():
        try:
            lock = _lock(left / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # Its worker lives.
        with suppress(OSError, ValueError, TypeError):
            found.append(Held(**json.loads((left / "held").read_text())))
        _remove(left)
        os.close(lock)
    return found


def _remove(directory: Path) -> None:
    """Remove a folder; what resists even force is left for the next sweep."""
    with suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # Folders that may not be read, or thousands inside of each other.
        capture(["chmod", "-R", "u+rwx", str(directory)])
        capture(["rm", "-rf", str(directory)])


def _lock(path: Path, how: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, how)
    except OSError:
        os.close(file)
        raise
    return file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(file)
