"""Bundles of many tips at once: a whole repository, or a slice of one."""

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from server.repo.outgoing import Assembler, History, Selection
from server.repo.store import Store
from server.repo.writer import PackWriter

T = TypeVar("T", bound=Hashable)


def write_whole(
    path: Path, refs: dict[str, str], out: Path, advance: Callable[[], None] = lambda: None
) -> None:
    """Write a bundle of what some refs of the repository at `path` name, with all history."""
    store = Store(path / "objects")
    history = History(store)
    commits = order_history(refs.values(), lambda sha: history.node(sha).parents)
    write_slice(store, refs, commits, (), out, advance)


def write_slice(
    store: Store,
    refs: dict[str, str],
    commits: Iterable[str],
    prerequisites: Collection[str],
    out: Path,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write a bundle of these commits, parents first, for a reader who has the prerequisites.

    Raises CorruptRepo.
    """
    history = History(store)
    wanted = Selection(store, history)
    for commit in commits:
        wanted.add_commit(commit)
        advance()
    lines = ["# v2 git bundle", *(f"-{sha}" for sha in prerequisites)]
    lines += [f"{sha} {name}" for name, sha in refs.items()]
    with out.open("wb") as file:
        file.write("\n".join([*lines, "", ""]).encode())
        Assembler(store, wanted.hints, PackWriter(file, len(wanted.hints))).write()


def order_history(tips: Iterable[T], parents: Callable[[T], Sequence[T]]) -> dict[T, None]:
    """All commits that the tips reach, parents first, those of an earlier tip before others."""
    ordered: dict[T, None] = {}
    entered: set[T] = set()
    for tip in tips:
        stack = [(tip, False)]
        while stack:
            commit, is_ready = stack.pop()
            if is_ready:
                ordered[commit] = None
            elif commit not in entered:
                entered.add(commit)
                stack.append((commit, True))
                stack += [(parent, False) for parent in reversed(parents(commit))]
    return ordered
