"""Census: everything a repository holds, looked at by an operator; nothing is ever written.

Other processes may push to the repository and repack it meanwhile.
"""

import contextlib
import fcntl
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from dulwich.object_format import SHA1
from dulwich.pack import load_pack_index

from server.repo.check import DIRECTORY, read_links, read_tree
from server.repo.pack import BLOB, COMMIT, KINDS, TREE, hash_object
from server.repo.stage import StagedCommit, describe_commit
from server.repo.store import EMPTY_TREE, CorruptRepo, Store

KEEP_REFS = "refs/agenthub/heads/"
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_LOOSE = re.compile(r"[0-9a-f]{38}")
_PACKED_REF = re.compile(r"([0-9a-f]{40}) (refs/\S+)")


class Census:
    """Reads and checks what is stored. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = Store(path / "objects")
        self._sound: set[str] = set()

    def objects(self) -> set[str]:
        """All objects, whatever names them. Loose ones first: packing moves them on."""
        found = set(list_loose(self.path))
        for index in list_indexes(self.path):
            found.update(read_index(index))
        return found

    def is_commit(self, sha: str) -> bool:
        """Raises CorruptRepo."""
        return self._store.kind(sha) == COMMIT

    def heads(self) -> set[str]:
        """Commits that the hub's own refs keep from `git gc`."""
        refs = read_refs(self.path)
        return {sha for name, sha in refs.items() if name.startswith(KEEP_REFS)}

    def read_commit(self, sha: str) -> StagedCommit:
        """Raises CorruptRepo for one that is missing, unreadable or not what its hash says."""
        content = self._read(sha, COMMIT)
        links = read_links(content)
        try:
            tree = self._read(links.tree, TREE)
        except CorruptRepo:
            tree = b""  # For `check_tree` to tell; the commit itself is whole.
        return describe_commit(sha, links, content, tree)

    def check_tree(self, sha: str, *, full: bool) -> None:
        """Raise CorruptRepo unless all below is there; `full` also reads every file."""
        if sha in self._sound:
            return
        for entry in read_tree(self._read(sha, TREE)):
            if entry.mode == DIRECTORY:
                self.check_tree(entry.hash, full=full)
            elif entry.hash not in self._sound:
                self._check_blob(entry.hash, full)
        self._sound.add(sha)

    def _check_blob(self, sha: str, full: bool) -> None:
        if full:
            self._read(sha, BLOB)
        elif self._store.kind(sha) != BLOB:
            raise CorruptRepo(f"blob {sha} is missing")
        self._sound.add(sha)

    def _read(self, sha: str, kind: int) -> bytes:
        found = self._store.get(sha)
        if found is None:
            raise CorruptRepo(f"{KINDS[kind]} {sha} is missing")
        if found[0] != kind:
            raise CorruptRepo(f"{sha} is a {KINDS[found[0]]}, not a {KINDS[kind]}")
        if sha != EMPTY_TREE and hash_object(*found) != sha:
            raise CorruptRepo(f"{KINDS[kind]} {sha} is damaged: its content has another hash")
        return found[1]

    def is_in_use(self) -> bool:
        """Whether a hub has the repository open now."""
        for folder in (self.path / "quarantine").glob("*/"):
            try:
                with (folder / "lock").open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except FileNotFoundError:
                continue
        return False


def list_loose(path: Path) -> Iterator[str]:
    for folder in (path / "objects").iterdir():
        if _FAN_OUT.fullmatch(folder.name):
            # Packing may remove the folder meanwhile.
            with contextlib.suppress(FileNotFoundError):
                for file in folder.iterdir():
                    if _LOOSE.fullmatch(file.name):
                        yield folder.name + file.name


def list_indexes(path: Path) -> list[Path]:
    """Indexes of packs whose packs are there, the largest first."""
    sizes: dict[Path, int] = {}
    for index in (path / "objects" / "pack").glob("pack-*.idx"):
        try:
            sizes[index] = index.with_suffix(".pack").stat().st_size
        except FileNotFoundError:
            continue
    return sorted(sizes, key=lambda index: -sizes[index])


def read_index(path: Path, keep: Callable[[bytes], bool] = lambda _: True) -> Iterator[str]:
    """Names of the objects in a pack. Raises what a damaged file makes its reader raise."""
    try:
        index = load_pack_index(path, object_format=SHA1)
    except FileNotFoundError:
        return
    try:
        yield from [sha.hex() for sha, _, _ in index.iterentries() if keep(sha)]
    finally:
        index.close()


def read_refs(path: Path) -> dict[str, str]:
    """All refs that name an object; files first, since packing moves them into `packed-refs`."""
    refs: dict[str, str] = {}
    for file in (path / "refs").rglob("*"):
        try:
            text = file.read_text(errors="replace").strip() if file.is_file() else ""
        except FileNotFoundError:
            continue
        if re.fullmatch(r"[0-9a-f]{40}", text):
            refs[file.relative_to(path).as_posix()] = text
    try:
        lines = (path / "packed-refs").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    packed = {found[2]: found[1] for line in lines if (found := _PACKED_REF.fullmatch(line))}
    return packed | refs
