"""The user's own git, by subprocess: bundles of what we have, imports of what the hub sends.

The hub never shells out; the clients never link a git library.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from itertools import takewhile
from pathlib import Path


class GitError(Exception):
    """git is missing, there is no repository here, or it refused; the message is one line."""


#: At most so many commits are told to the hub, so that they fit into any proxy's URL.
HAVE_MAX = 64
_HAVE_TIPS = 48
_DISTANCE_MAX = 2**16


def git(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = ""
) -> str:
    """Run one git command and return its standard output; raise GitError if it fails."""
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})},
            input=stdin.encode(),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        where = f"no such directory: {cwd}" if cwd and not cwd.exists() else "git is not installed"
        raise GitError(where) from error
    if done.returncode:
        raise GitError(_reason(done.stderr) or f"git {args[0]} failed")
    return done.stdout.decode(errors="replace")


def head(cwd: Path | None = None) -> str:
    """Hash of HEAD; raise GitError outside a repository or before the first commit."""
    try:
        return git("rev-parse", "--verify", "HEAD^{commit}", cwd=cwd).strip()
    except GitError as error:
        raise GitError(f"no commit to push here: {error}") from error


def has_commit(hash: str, cwd: Path | None = None) -> bool:
    try:
        git("cat-file", "-e", f"{hash}^{{commit}}", cwd=cwd)
    except GitError:
        return False
    return True


def is_shallow(cwd: Path | None = None) -> bool:
    return git("rev-parse", "--is-shallow-repository", cwd=cwd).strip() == "true"


def read_history(cwd: Path | None = None) -> dict[str, list[str]]:
    """The parents of HEAD and of all its ancestors here; no commit comes before its children."""
    listed = git("--no-replace-objects", "rev-list", "--topo-order", "--parents", "HEAD", cwd=cwd)
    rows = (line.split() for line in listed.splitlines())
    return {commit: parents for commit, *parents in rows}


def list_have(cwd: Path | None = None) -> list[str]:
    """Commits to tell the hub we have: the youngest tips, and ancestors of HEAD ever further up.

    The hub may not know what was committed here; some ancestor not far above that it does.
    """
    tips = git("rev-list", "--all", "--no-walk", f"--max-count={_HAVE_TIPS}", cwd=cwd).split()
    try:
        line = git(
            "rev-list", "--first-parent", f"--max-count={_DISTANCE_MAX}", "HEAD", cwd=cwd
        ).split()
    except GitError:
        line = []  # There is no commit yet, or none checked out.
    spaced = [line[2**n] for n in range(16) if 2**n < len(line)]
    return list(dict.fromkeys([*tips, *spaced]))[:HAVE_MAX]


def bundle_head(out: Path, without: Collection[str] = (), cwd: Path | None = None) -> None:
    """Write a bundle of HEAD and its history, less some commits and their history."""
    wanted = "".join(f"{line}\n" for line in ["HEAD", *(f"^{commit}" for commit in without)])
    path = str(out.resolve())
    git(
        "--no-replace-objects",
        "bundle",
        "create",
        "--quiet",
        path,
        "--stdin",
        cwd=cwd,
        stdin=wanted,
    )


def unbundle(bundle: Path, cwd: Path | None = None) -> list[str]:
    """Add a bundle's objects to the repository, checked by git; return the hashes it names."""
    listed = git(
        "-c", "transfer.fsckObjects=true", "bundle", "unbundle", str(bundle.resolve()), cwd=cwd
    )
    return [line.split()[0] for line in listed.splitlines() if line]


def keep(hash: str, cwd: Path | None = None) -> None:
    """Hold a fetched commit against garbage collection without making a branch of it."""
    git("update-ref", f"refs/agenthub/{hash}", hash, cwd=cwd)


def checkout(hash: str, cwd: Path | None = None) -> None:
    """Check a commit out, detached; git refuses if that would lose changes."""
    git("checkout", "--quiet", "--detach", hash, cwd=cwd)


def init(directory: Path, *, bare: bool = False) -> None:
    git("init", "--quiet", *(["--bare"] if bare else []), str(directory))


def find_tree(revision: str, cwd: Path | None = None) -> str | None:
    """Hash of a commit's tree; None when there is no such commit."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{revision}^{{tree}}", cwd=cwd).strip()
    except GitError:
        return None


def write_work_tree(cwd: Path | None = None) -> str:
    """Hash of the tree that `git commit --all` would commit; the index stays as it is."""
    top = git("rev-parse", "--show-toplevel", cwd=cwd).rstrip("\n")
    with tempfile.TemporaryDirectory(prefix="ah-") as scratch:
        index = Path(scratch, "index")
        own = Path(top, git("rev-parse", "--git-path", "index", cwd=Path(top)).rstrip("\n"))
        if own.exists():
            shutil.copyfile(own, index)
        env = {"GIT_INDEX_FILE": str(index)}
        git("add", "--update", cwd=Path(top), env=env)
        return git("write-tree", cwd=Path(top), env=env).strip()


def read_message(revision: str, cwd: Path | None = None) -> str:
    return git("log", "--max-count=1", "--format=%B", revision, cwd=cwd)


def diff(a: str, b: str, cwd: Path | None = None) -> str:
    """The changed lines between two commits or trees, without context."""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--unified=0")
    return git("diff", *plain, "--src-prefix=a/", "--dst-prefix=b/", a, b, "--", cwd=cwd)


def commit_all(message: str, cwd: Path, author: str) -> str:
    """Commit everything in `cwd`; use the user's git identity, or `author` if there is none."""
    git("add", "--all", cwd=cwd)
    identity: list[str] = []
    try:
        git("var", "GIT_COMMITTER_IDENT", cwd=cwd)
    except GitError:
        identity = ["-c", f"user.name={author}", "-c", f"user.email={author}@agenthub.invalid"]
    git(*identity, "commit", "--quiet", "--message", message, cwd=cwd)
    return head(cwd)


def export_tree(hash: str, repository: Path, directory: Path) -> None:
    """Write a commit's files into `directory` as plain files: no .git, no filters, no hooks."""
    index = directory.with_name(f"{directory.name}.index")
    env = {
        "GIT_DIR": str(repository.resolve()),
        "GIT_WORK_TREE": str(directory.resolve()),
        "GIT_INDEX_FILE": str(index.resolve()),
        # Filters and line endings of the user's own configuration stay out of it.
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    try:
        git("read-tree", hash, env=env)
        git("checkout-index", "--all", "--force", env=env, cwd=directory)
    finally:
        index.unlink(missing_ok=True)


def _reason(stderr: bytes) -> str:
    """git's complaint without the advice after it, with the files it is about."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith(("fatal: ", "error: ")):
            files = takewhile(lambda text: text.startswith("\t"), lines[number:])
            return " ".join([line.partition(": ")[2], *map(str.strip, files)])
    return lines[-1] if lines else ""
