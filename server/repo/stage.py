"""Staging: from the bytes of a bundle to checked commits in quarantine.

Whatever a bundle's bytes make the parsers do ends as a refusal here and nowhere else. What a
refusal or a crash leaves behind is only ever in the quarantine folder.
"""

import contextlib
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

from server.errors import HubError, InvalidBundle, MissingPrerequisite, TooLarge
from server.repo.bundle import Header, Ref, read_header
from server.repo.caps import Caps
from server.repo.check import Links, check_object
from server.repo.closure import Closure, Shape
from server.repo.code import code_of
from server.repo.pack import (
    COMMIT,
    KINDS,
    TAG,
    TREE,
    Data,
    Entry,
    IncomingPack,
    PackError,
    check_trailer,
)
from server.repo.store import EMPTY_TREE, Store, deflate_loose, map_file
from server.repo.writer import PackWriter

#: The subset of some hashes that the hub's index knows as commits.
Known = Callable[[Collection[str]], set[str]]

SUBJECT_CHARS = 1000
BODY_BYTES = 64 * 1024
# All bodies of one push; the rest of them is only in git.
_BODIES_BYTES = 32 * 2**20
# Up to this a push becomes loose objects: at some 0.5 ms each, hardly slower than a pack.
_LOOSE_OBJECTS = 100
_LOOSE_BYTES = 4 * 2**20
_DATE_MAX = 253402300799  # the last second of the year 9999
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_COMMITTED = re.compile(rb"\ncommitter [^\n]* ([0-9]+) ")
_AUTHORED = re.compile(rb"\nauthor [^\n]* ([0-9]+) ")


@dataclass(frozen=True, slots=True)
class StagedCommit:
    hash: str
    tree: str
    #: Equal for commits that train alike, see `code_of`.
    code: str
    #: All of them, in the commit's own order.
    parents: tuple[str, ...]
    #: Capped here, whole in git.
    subject: str
    body: str
    authored_at: datetime


#: A file in quarantine and its place in the repository.
Move = tuple[Path, Path]


@dataclass(slots=True)
class Staged:
    """What a bundle brings, checked and not yet visible. Leaving it removes its files."""

    #: Commits that the bundle's refs name, in its order, duplicates kept.
    heads: list[str]
    #: What the hub does not know of their ancestry, parents before children.
    commits: list[StagedCommit] = field(default_factory=list)
    #: Loose files to be, by hash; what is referred to goes first.
    loose: list[tuple[str, bytes]] = field(default_factory=list)
    #: Files to move; all of a group before any of the next.
    groups: list[list[Move]] = field(default_factory=list)
    folder: Path | None = None

    def __enter__(self) -> "Staged":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    @property
    def tips(self) -> list[str]:
        """New commits that no other new commit keeps alive."""
        inner = {parent for commit in self.commits for parent in commit.parents}
        return [commit.hash for commit in self.commits if commit.hash not in inner]


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except HubError:
        raise
    except PackError as error:
        raise InvalidBundle(str(error)) from error
    except (
        ArithmeticError,
        AssertionError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise InvalidBundle(f"the bundle cannot be read: {error}") from error


class Stager:
    """One push on its way into quarantine."""

    def __init__(
        self, store: Store, caps: Caps, shapes: dict[str, Shape], quarantine: Path, known: Known
    ) -> None:
        self._store = store
        self._caps = caps
        self._shapes = shapes
        self._quarantine = quarantine
        self._look_up = known
        self._asked: set[str] = set()
        self._found: set[str] = set()

    @contextlib.contextmanager
    def open_bundle(self, bundle: Path | bytes) -> Iterator[Data]:
        size = len(bundle) if isinstance(bundle, bytes) else bundle.stat().st_size
        if size > self._caps.bundle_bytes:
            raise TooLarge(
                f"the bundle has {size} bytes, at most {self._caps.bundle_bytes} are taken",
                "push the history in several steps",
            )
        if not size:
            raise InvalidBundle("the bundle is empty")
        if isinstance(bundle, bytes):
            yield bundle
            return
        with map_file(bundle) as data:
            yield data

    def _known(self, hashes: set[str]) -> set[str]:
        """Nothing is looked up twice: in a small push most that is asked for comes again."""
        if fresh := hashes - self._asked:
            self._asked |= fresh
            self._found |= self._look_up(fresh)
        return self._found & hashes

    def read_header(self, data: Data) -> tuple[Header, bool]:
        """The header, and whether all that its refs name is known already."""
        with _refusing():
            header = read_header(data, self._caps)
            check_trailer(data, header.size)
        named = {ref.hash for ref in header.refs}
        known = self._known(named | set(header.prerequisites))
        names = [sha for sha in dict.fromkeys(header.prerequisites) if sha not in known]
        if names:
            raise MissingPrerequisite(
                f"the hub does not have {len(names)} commits that the bundle builds on: "
                + ", ".join(names[:10]),
                subjects=names,
            )
        return header, named <= known

    def read_pack(
        self, data: Data, header: Header, on_growth: Callable[[int], None]
    ) -> IncomingPack:
        with _refusing():
            return IncomingPack(data, header.size, self._caps, on_growth)

    def stage(self, header: Header, pack: IncomingPack) -> Staged:
        with _refusing():
            links = self._check_objects(pack)
            heads = [_peel(ref, links, pack) for ref in header.refs]
        known = self._known(_mentioned(heads, links))
        with _refusing():
            new = _order_commits(heads, links, known)
            if len(new) > self._caps.commits:
                raise TooLarge(
                    f"the bundle brings {len(new)} commits, at most {self._caps.commits} are taken",
                    "push the history in several steps",
                )
            closure = Closure(pack, self._store, self._caps, self._shapes)
            for sha in new:
                closure.add_commit(sha, links[sha].tree, links[sha].parents)
            commits = list(self._describe(new, links, pack))
        return self._write(Staged(heads, commits), pack, closure.kept)

    def _describe(
        self, new: Iterable[str], links: dict[str, Links], pack: IncomingPack
    ) -> Iterator[StagedCommit]:
        room = _BODIES_BYTES
        for sha in new:
            tree = self._read_tree(links[sha].tree, pack)
            size = min(room, BODY_BYTES)
            commit = describe_commit(sha, links[sha], pack.read(sha)[1], tree, size)
            room -= len(commit.body)
            yield commit

    def _read_tree(self, sha: str, pack: IncomingPack) -> bytes:
        """One that the closure has found."""
        if sha in pack.by_sha:
            return pack.read(sha)[1]
        found = self._store.get(sha)
        return found[1] if found else b""

    def _check_objects(self, pack: IncomingPack) -> dict[str, Links]:
        """Check every object; return the links of commits and tags."""
        links: dict[str, Links] = {}
        room = self._caps.tree_bytes
        for entry, content in pack.resolve(self._store.get):
            room -= len(content) if entry.kind == TREE else 0
            if room < 0:
                raise TooLarge(
                    f"the bundle's trees have more than {self._caps.tree_bytes} bytes in all",
                    "push the history in several steps",
                )
            found = check_object(entry.kind, entry.sha, content, self._caps)
            if found:
                links[entry.sha] = found
        return links

    def _write(self, staged: Staged, pack: IncomingPack, kept: dict[str, int]) -> Staged:
        if EMPTY_TREE in kept:
            # It may not be in the pack, and git wants it on disk all the same.
            del kept[EMPTY_TREE]
            staged.loose.append((EMPTY_TREE, deflate_loose(TREE, b"")))
        entries = [pack.by_sha[sha] for sha in kept]
        size = sum(entry.length for entry in entries)
        if len(kept) <= _LOOSE_OBJECTS and size <= _LOOSE_BYTES:
            ranked = sorted(kept, key=kept.__getitem__)
            staged.loose += [(sha, deflate_loose(*pack.read(sha))) for sha in ranked]
            return staged
        staged.folder = Path(mkdtemp(dir=self._quarantine))
        try:
            staged.groups += self._write_pack(staged.folder, pack, entries)
        except BaseException:
            staged.__exit__(None, None, None)
            raise
        return staged

    def _write_pack(
        self, folder: Path, pack: IncomingPack, entries: list[Entry]
    ) -> list[list[Move]]:
        path = folder / "pack"
        with path.open("wb") as file:
            writer = PackWriter(file, len(entries))
            for entry in _bases_first(entries, pack):
                _copy_entry(entry, pack, writer)
            name = f"pack-{writer.finish().hex()}"
        index = folder / "idx"
        writer.write_index(index)
        path.chmod(0o444)
        index.chmod(0o444)
        target = self._store.pack_folder / name
        # Git looks at a pack only once its index is there.
        return [[(path, target.with_suffix(".pack"))], [(index, target.with_suffix(".idx"))]]


def _peel(ref: Ref, links: dict[str, Links], pack: IncomingPack) -> str:
    """The commit that a ref names, through any number of tags."""
    sha = ref.hash
    while (entry := pack.by_sha.get(sha)) and entry.kind == TAG:
        sha = links[sha].target
    if entry and entry.kind != COMMIT:
        raise InvalidBundle(
            f"ref {ref.name} names {KINDS[entry.kind]} {sha}, but only commits can be pushed",
            "name a branch or HEAD when making the bundle",
            subjects=[sha],
        )
    return sha


def _mentioned(heads: Iterable[str], links: dict[str, Links]) -> set[str]:
    commits = {sha for sha, link in links.items() if link.tree}
    parents = {parent for sha in commits for parent in links[sha].parents}
    return commits | parents | set(heads)


def _order_commits(heads: Sequence[str], links: dict[str, Links], known: set[str]) -> list[str]:
    """Unknown commits reachable from the heads, parents first."""
    ordered: dict[str, None] = {}
    for head in heads:
        if head not in known and head not in links:
            raise InvalidBundle(
                f"the bundle names {head}, which is neither in it nor known to the hub",
                subjects=[head],
            )
        stack = [(head, False)]
        while stack:
            sha, is_ready = stack.pop()
            if is_ready:
                ordered[sha] = None
            elif sha not in known and sha not in ordered:
                stack.append((sha, True))
                stack += [(parent, False) for parent in reversed(_parents(sha, links, known))]
    return list(ordered)


def _parents(sha: str, links: dict[str, Links], known: set[str]) -> tuple[str, ...]:
    for parent in links[sha].parents:
        if parent not in known and not (parent in links and links[parent].tree):
            raise InvalidBundle(
                f"commit {sha} needs its parent {parent}, which neither the bundle nor the hub has",
                "push the whole history: `git bundle create FILE HEAD`",
                subjects=[parent],
            )
    return links[sha].parents


def describe_commit(
    sha: str, links: Links, content: bytes, tree: bytes, body_bytes: int = BODY_BYTES
) -> StagedCommit:
    """Of the contents of a commit and of its tree."""
    head, _, message = content.partition(b"\n\n")
    message = message.lstrip(b"\n")
    blank = _BLANK_LINE.search(message)
    first, rest = (message[: blank.start()], message[blank.end() :]) if blank else (message, b"")
    lines = first[: SUBJECT_CHARS * 8].split(b"\n")
    subject = _text(b" ".join(line.strip() for line in lines))[:SUBJECT_CHARS]
    return StagedCommit(
        sha, links.tree, code_of(tree), links.parents,
        subject.strip(), _text(rest[:body_bytes]).strip(), _moment(_AUTHORED, head),
    )  # fmt: skip


def read_committed_at(content: bytes) -> int:
    found = _COMMITTED.search(content)
    return int(found[1]) if found else 0


def _moment(line: re.Pattern[bytes], head: bytes) -> datetime:
    found = line.search(head)
    return datetime.fromtimestamp(min(int(found[1]) if found else 0, _DATE_MAX), UTC)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").replace("\x00", "\ufffd")


def _bases_first(entries: list[Entry], pack: IncomingPack) -> Iterator[Entry]:
    """Entries in the order of the pack, but each delta after its base."""
    left = {entry.sha for entry in entries}
    for entry in sorted(entries, key=lambda entry: entry.offset):
        chain = []
        while entry.sha in left:
            left.remove(entry.sha)
            chain.append(entry)
            if not entry.is_delta or entry.is_thin:
                break
            entry = pack.base_of(entry)
        yield from reversed(chain)


def _copy_entry(entry: Entry, pack: IncomingPack, writer: PackWriter) -> None:
    if not entry.is_delta:
        writer.add(entry.sha, entry.kind, entry.size, pack.packed(entry))
        return
    base = None if entry.is_thin else pack.base_of(entry).sha
    if base in writer.offsets:
        writer.add_delta(entry.sha, base, entry.size, pack.packed(entry))
    else:
        # Its base stays outside, and a stored pack must stand alone.
        kind, content = pack.read(entry.sha)
        writer.add(entry.sha, kind, len(content), zlib.compress(content))
