"""Trees and files of a commit, found by path.

Paths are text on the other side of this door; bytes that are no UTF-8 are in it as `os.fsdecode`
has them, surrogates, so that no two names look the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from server.errors import InvalidRequest, NotFound, TooLarge
from server.repo.check import DIRECTORY, SYMLINK, TreeEntry, read_tree, shown
from server.repo.pack import BLOB
from server.repo.store import CorruptRepo, Store

FILE_BYTES = 10 * 2**20
ENTRIES_MAX = 10_000
_CLONE = "clone the hub to look at it: `git clone --filter=blob:none HUB/repo.git`"


@dataclass(frozen=True, slots=True)
class Node:
    """A file, a symlink or a tree; the path is from the root of the commit."""

    path: str
    mode: str
    hash: str
    #: None for trees.
    size: int | None

    @property
    def type(self) -> str:
        if self.size is None:
            return "tree"
        return "symlink" if self.mode.encode() == SYMLINK else "blob"


def list_tree(store: Store, root: str, path: str) -> list[Node]:
    """What a tree holds, in git's order. Raises NotFound, InvalidRequest or TooLarge."""
    parts = _split(path)
    found = _find(store, root, parts)
    if found.mode != DIRECTORY:
        raise NotFound(f"{_shown(parts)} is a file", "read it at /api/git/blob/{hash}/{path}")
    entries = list(_read(store, found.hash))
    if len(entries) > ENTRIES_MAX:
        raise TooLarge(
            f"{_shown(parts)} has {len(entries)} entries, at most {ENTRIES_MAX} are listed", _CLONE
        )
    return [_node(store, [*parts, entry.name], entry) for entry in entries]


def find_file(store: Store, root: str, path: str) -> Node:
    """A file, or a symlink, which is not followed. Raises NotFound or InvalidRequest."""
    parts = _split(path)
    found = _find(store, root, parts)
    if found.mode == DIRECTORY:
        raise NotFound(f"{_shown(parts)} is a tree", "list it at /api/git/tree/{hash}/{path}")
    return _node(store, parts, found)


def read_file(store: Store, file: Node) -> bytes:
    """The content of a file, the target of a symlink. Raises TooLarge."""
    if file.size is None or file.size > FILE_BYTES:
        raise TooLarge(
            f"{_shown(_split(file.path))} has {file.size} bytes, at most {FILE_BYTES} are sent",
            _CLONE,
        )
    found = store.get(file.hash)
    if not found or found[0] != BLOB:
        raise CorruptRepo(f"file {file.hash} is missing from the repository")
    return found[1]


def _split(path: str) -> list[bytes]:
    parts = [part for part in path.encode(errors="surrogateescape").split(b"/") if part]
    if b"." in parts or b".." in parts:
        raise InvalidRequest("a path has no . or .. in it", "give it from the root of the commit")
    return parts


def _find(store: Store, root: str, parts: list[bytes]) -> TreeEntry:
    found = TreeEntry(DIRECTORY, b"", root)
    for number, part in enumerate(parts):
        inside = _read(store, found.hash) if found.mode == DIRECTORY else ()
        entry = next((entry for entry in inside if entry.name == part), None)
        if entry is None:
            far = _shown(parts[:number])
            raise NotFound(
                f"there is no {_shown(parts)} in this commit",
                f"{far} is as far as it goes; /api/git/tree/{{hash}}/{{path}} lists what is there",
            )
        found = entry
    return found


def _read(store: Store, sha: str) -> Iterator[TreeEntry]:
    found = store.get(sha)
    if not found:
        raise CorruptRepo(f"tree {sha} is missing from the repository")
    return read_tree(found[1])


def _node(store: Store, parts: list[bytes], entry: TreeEntry) -> Node:
    size = None if entry.mode == DIRECTORY else store.size(entry.hash)
    path = b"/".join(parts).decode(errors="surrogateescape")
    return Node(path, entry.mode.decode().zfill(6), entry.hash, size)


def _shown(parts: list[bytes]) -> str:
    return shown(b"/".join(parts)) if parts else "the root"
