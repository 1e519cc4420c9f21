"""BareRepo: the hub's git repository, one bare folder that plain git can read at any moment.

A push goes through quarantine: nothing of it is visible before it is checked whole, and every
object is durable before anything that refers to it has a name.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from dulwich.repo import Repo

from server.errors import NotFound
from server.kept import Shelf
from server.repo.caps import Caps
from server.repo.cgit import CGit
from server.repo.check import read_links
from server.repo.closure import Shape
from server.repo.diff import diff_trees
from server.repo.files import Node, find_file, list_tree, read_file
from server.repo.journal import Journal, Record, list_segments, replay, settle
from server.repo.outgoing import Plan, plan_bundle, write_bundle
from server.repo.pack import BLOB, COMMIT, TREE
from server.repo.refs import KeepRefs
from server.repo.stage import Known, Move, Staged, StagedCommit, Stager, describe_commit
from server.repo.store import Store, sync_file, sync_folder
from server.repo.upkeep import PACK_WEIGHT, Upkeep, alone

_QUARANTINE = "quarantine"
_SHAPES_MAX = 50_000
# Pushes above these sizes are checked two at a time, which bounds memory and leaves the
# interpreter to the small ones.
_LIGHT_BYTES = 256 * 1024
_LIGHT_INFLATED_BYTES = 8 * 2**20
_HEAVY_AT_ONCE = 2
# Longer diffs are made anew each time; those of neighbours have a few kilobytes.
_DIFF_KEPT_BYTES = 2**20


class BareRepo:
    """Open or create the repository; safe to use from many threads and several processes."""

    def __init__(self, path: Path, caps: Caps | None = None) -> None:
        self.path = path.absolute()
        self.caps = caps or Caps()
        #: Set by each promote of this process that brings something.
        self.promoted = threading.Event()
        self._lock_path = self.path / _QUARANTINE / "lock"
        self._promoting = threading.Lock()
        self._heavy = threading.BoundedSemaphore(_HEAVY_AT_ONCE)
        self._shapes: dict[str, Shape] = {}
        self._diffs: Shelf[tuple[str, str], bytes] = Shelf(sys.getsizeof)
        self._refs = KeepRefs(self.path)
        self._store = Store(self.path / "objects")
        self._quarantine, lock = self._open()
        self._leave = weakref.finalize(self, _leave, self._quarantine, lock, os.getpid())
        self._journal = Journal(self._quarantine)
        self._drafts = itertools.count()

    def close(self) -> None:
        """Give up the quarantine folder; a repository that is dropped closes itself.

        One that is dropped without this may leave its journal to the next that opens it.
        """
        for segment in self._journal.finish():
            settle(segment, self._store, self._refs)
        self._leave()

    def stage(self, bundle: Path | bytes, known: Known) -> Staged:
        """Check a bundle whole and put what is new in quarantine; refuse it without a trace.

        Raises InvalidBundle, MissingPrerequisite or TooLarge.
        """
        if len(self._shapes) > _SHAPES_MAX:
            self._shapes = {}
        stager = Stager(self._store, self.caps, self._shapes, self._quarantine, known)
        with contextlib.ExitStack() as stack:
            data = stack.enter_context(stager.open_bundle(bundle))
            is_heavy = False

            def weigh(inflated_bytes: int) -> None:
                nonlocal is_heavy
                if not is_heavy and inflated_bytes > _LIGHT_INFLATED_BYTES:
                    stack.enter_context(self._heavy)
                    is_heavy = True

            if len(data) > _LIGHT_BYTES:
                weigh(_LIGHT_INFLATED_BYTES + 1)
            header, is_known = stager.read_header(data)
            if is_known:
                return Staged([ref.hash for ref in header.refs])
            return stager.stage(header, stager.read_pack(data, header, weigh))

    def promote(self, staged: Staged) -> None:
        """Make what is staged visible and durable, and keep it from `git gc`. Repeatable."""
        if staged.groups:
            self._promote_pack(staged)
        else:
            # What it was staged upon may be a pack on its way: durable before anybody else
            # promotes.
            with self._locked(fcntl.LOCK_SH):
                pass
        self._promote_loose(staged.loose, staged.tips)
        if staged.groups or staged.loose:
            self._grow(len(staged.loose) + _weight(staged.groups))
            self.promoted.set()

    def _promote_pack(self, staged: Staged) -> None:
        for group in staged.groups:
            for source, target in group:
                if not target.exists():
                    sync_file(source)
        # One at a time: a push that was staged upon another's objects while those were being
        # promoted gets here only when they are durable.
        with self._exclusively():
            for group in staged.groups:
                self._move(group)

    def _promote_loose(self, loose: list[tuple[str, bytes]], tips: list[str]) -> None:
        if not loose and not tips:
            return
        draft = self._quarantine / f"draft-{next(self._drafts)}"
        with self._journal.holding(Record(loose, tips)):
            for sha, content in loose:
                self._store.write_loose(sha, content, draft)
            for tip in tips:
                self._refs.add(tip, draft)

    def settle(self) -> None:
        """Drop what the journal holds of pushes that are durable without it, or make them so."""
        for segment in self._journal.take_full():
            settle(segment, self._store, self._refs)

    def let_go(self) -> None:
        """Of the packs, what readers do not need at this moment."""
        self._store.let_go()

    @property
    def growth(self) -> int:
        """What all processes have promoted, as `Upkeep.measure` counts it; only ever grows."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.path / _QUARANTINE / "growth").read_bytes())
        return 0

    def plan_bundle(self, tip: str, have: Collection[str] = ()) -> Plan:
        """What `write_bundle` would write. Raises NotFound."""
        self._read(tip)
        return plan_bundle(self._store, tip, have)

    def write_bundle(self, tip: str, out: Path, have: Collection[str] = ()) -> None:
        """Write a bundle of a commit and its ancestry without what `have` and its ancestry hold.

        Unknown hashes in `have` are passed over. Raises NotFound.
        """
        self._read(tip)
        write_bundle(self._store, tip, out, have)

    def diff(self, a: str, b: str) -> bytes:
        """What `git diff a b` prints, without renames. Raises NotFound."""
        return self.diff_trees(read_links(self._read(a)).tree, read_links(self._read(b)).tree)

    def diff_trees(self, a: str, b: str) -> bytes:
        """The same of two trees, which are the diff's key: those asked for last are at hand."""
        found = self._diffs.get((a, b))
        if found is not None:
            return found
        text = diff_trees(self._store, a, b)
        if len(text) <= _DIFF_KEPT_BYTES:
            self._diffs.put((a, b), text)
        return text

    def list_tree(self, root: str, path: str) -> list[Node]:
        return list_tree(self._store, root, path)

    def find_file(self, root: str, path: str) -> Node:
        return find_file(self._store, root, path)

    def read_file(self, file: Node) -> bytes:
        return read_file(self._store, file)

    def read_commit(self, sha: str) -> StagedCommit:
        content = self._read(sha)
        links = read_links(content)
        tree = self._store.get(links.tree)
        return describe_commit(sha, links, content, tree[1] if tree else b"")

    def upkeep(self, git: CGit) -> Upkeep:
        return Upkeep(self.path, git, self._exclusively)

    @contextlib.contextmanager
    def without_upkeep(self) -> Iterator[None]:
        """No object moves while the block runs: for who copies the folder file by file."""
        with alone(self.path, wait=True):
            yield

    def has(self, sha: str) -> bool:
        """Whether the repository holds this commit, known to the index or not."""
        return self._store.kind(sha) == COMMIT

    def has_content(self, sha: str) -> bool:
        """Whether the repository holds this file or tree."""
        return self._store.kind(sha) in (BLOB, TREE)

    def _read(self, sha: str) -> bytes:
        found = self._store.get(sha)
        if not found or found[0] != COMMIT:
            raise NotFound(f"commit {sha} not found")
        return found[1]

    def _move(self, group: list[Move]) -> None:
        folders = set()
        for source, target in group:
            folders.add(target.parent)
            if target.exists():
                continue
            if not target.parent.exists():
                _make_folder(target.parent)
            try:
                source.rename(target)
            except FileNotFoundError:
                # An operator's git removes folders that it leaves empty.
                _make_folder(target.parent)
                source.rename(target)
        # Also where the object was there already: another process may not have come this far.
        for folder in folders:
            # Gone only when git has packed all that was in it.
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)

    def _grow(self, weight: int) -> None:
        """Count what was promoted."""
        handle = os.open(self.path / _QUARANTINE / "growth", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Overwritten in place, so that a crash cannot lose it; not durable, for whoever begins
            # to watch it measures first.
            os.pwrite(handle, b"%020d" % (int(os.pread(handle, 20, 0) or b"0") + weight), 0)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Exclude other promotes, of this process and of others."""
        with self._promoting, self._locked():
            yield

    @contextlib.contextmanager
    def _locked(self, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Exclude other processes, or with LOCK_SH those that exclude others."""
        handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def _open(self) -> tuple[Path, BinaryIO]:
        """Create what is missing, clear the quarantine, and take a folder of our own in it."""
        quarantine = self.path / _QUARANTINE
        quarantine.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not (self.path / "HEAD").exists():
                _init(self.path)
            self._refs.make_folder()
            abandoned = [path for path in quarantine.iterdir() if path.is_dir() and _is_free(path)]
            if abandoned:
                # What a killed promote had renamed may not be on disk yet, and from now on
                # its presence is taken for granted.
                os.sync()
            for folder in abandoned:
                for segment in list_segments(folder):
                    replay(segment, self._store, self._refs)
                shutil.rmtree(folder)
            own = Path(mkdtemp(dir=quarantine))
            # Held for as long as this object lives; a crash lets go of it.
            lock = (own / "lock").open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return own, lock


def _make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def _weight(groups: list[list[Move]]) -> int:
    targets = [target for group in groups for _, target in group]
    return PACK_WEIGHT * sum(target.suffix == ".idx" for target in targets)


def _init(path: Path) -> None:
    with Repo.init_bare(path, default_branch=b"main") as repo:
        config = repo.get_config()
        config.set((b"gc",), b"auto", b"0")
        config.set((b"gc",), b"pruneExpire", b"never")
        config.write_to_path()
    for folder in (path / "objects" / "pack", path / "objects", path / "refs", path):
        sync_folder(folder)
    sync_folder(path.parent)


def _leave(folder: Path, lock: BinaryIO, owner: int) -> None:
    # A forked child ends with its parent's folder still in use; a journal is the next one's.
    if os.getpid() == owner and not list_segments(folder):
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _is_free(folder: Path) -> bool:
    try:
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
