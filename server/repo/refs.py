"""Keep-refs: one for each pushed head that no other one keeps, so that no gc drops a commit.

A keep-ref is named after its commit and never changes. So writing one twice is harmless, and so
is removing its file once `packed-refs` names it, or names a descendant of its commit.
"""

import contextlib
import os
from pathlib import Path

from server.repo.cgit import CGit
from server.repo.store import sync_file, sync_folder

_PREFIX = "refs/agenthub/heads/"
_HASH_DIGITS = 40


class KeepRefs:
    """The keep-refs of one repository: a file each, or lines of `packed-refs`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path / _PREFIX
        self._packed = path / "packed-refs"

    def add(self, commit: str, draft: Path) -> None:
        """Write a ref, over `draft`; not durable before `sync_one` and `sync`."""
        ref = self._folder / commit
        if not ref.exists():
            self._write(ref, draft)

    def put_back(self, commit: str, draft: Path) -> None:
        """Write a ref unless it is there and whole."""
        ref = self._folder / commit
        with contextlib.suppress(FileNotFoundError):
            if ref.read_text() == _line(commit):
                return
        self._write(ref, draft)
        sync_file(ref)

    def _write(self, ref: Path, draft: Path) -> None:
        draft.write_text(_line(ref.name))
        try:
            draft.rename(ref)
        except FileNotFoundError:
            # An operator's git removes folders that it leaves empty.
            self.make_folder()
            draft.rename(ref)

    def sync_one(self, commit: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            sync_file(self._folder / commit)

    def make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self._folder.parent)
        sync_folder(self._folder.parent.parent)

    def sync(self) -> None:
        # Gone only when git packed all that was in it.
        with contextlib.suppress(FileNotFoundError):
            sync_folder(self._folder)

    def tidy(self, git: CGit, lock: int) -> int:
        """Pack the refs and drop those whose commit another one keeps; how many files went."""
        loose = self._list_loose()
        if not loose:
            return 0
        # Also those of a promote that has not come to its own sync: what follows relies on them.
        self.sync()
        before = self._list_packed()
        git.run("pack-refs", "--all", "--no-prune", hold=[lock])
        self._sync_packed()
        done = loose & self._list_packed()
        self._drop(self._find_kept_by_others(git, lock, done, before - done))
        for commit in done:
            (self._folder / commit).unlink(missing_ok=True)
        return len(done)

    def _find_kept_by_others(self, git: CGit, lock: int, new: set[str], old: set[str]) -> set[str]:
        """Commits that are ancestors of others, given that no old one is of another old one."""
        if not new:
            return set()
        given = "\n".join([*new, *(f"^{commit}" for commit in old)])
        answer = git.run("rev-list", "--parents", "--stdin", given=given.encode(), hold=[lock])
        lines = [line.split() for line in answer.decode().splitlines()]
        reached = {line[0] for line in lines}
        parents = {parent for line in lines for parent in line[1:]}
        return (new - reached) | ((new | old) & parents)

    def _list_loose(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {ref.name for ref in self._folder.iterdir() if len(ref.name) == _HASH_DIGITS}
        return set()

    def _list_packed(self) -> set[str]:
        """All keep-refs among the lines; "" is the end of lines that are none."""
        return {_name(line) for line in self._read_lines()} - {""}

    def _read_lines(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return self._packed.read_text().splitlines(keepends=True)
        return []

    def _drop(self, commits: set[str]) -> None:
        """Take lines out of `packed-refs`, under the lock that git takes."""
        if not commits:
            return
        lock = self._path / "packed-refs.lock"
        with lock.open("x") as file:
            try:
                file.writelines(line for line in self._read_lines() if _name(line) not in commits)
                file.flush()
                os.fsync(file.fileno())
                lock.rename(self._packed)
            except BaseException:
                lock.unlink(missing_ok=True)
                raise
        self._sync_packed()

    def _sync_packed(self) -> None:
        # Git before 2.36 does not do it.
        sync_file(self._packed)
        sync_folder(self._path)


def _line(commit: str) -> str:
    return f"{commit}\n"


def _name(line: str) -> str:
    """The commit of a keep-ref's line; "" for any other line."""
    _, _, ref = line.rstrip("\n").partition(" ")
    return ref.removeprefix(_PREFIX) if ref.startswith(_PREFIX) else ""
