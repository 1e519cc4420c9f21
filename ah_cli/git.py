"""The user's own git, by subprocess: bundles of what we have, imports of what the hub sends.

The hub never shells out; the clients never link a git library.
"""

import os
import subprocess
from itertools import takewhile
from pathlib import Path


class GitError(Exception):
    """git is missing, there is no repository here, or it refused; the message is one line."""


def git(*args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run one git command and return its standard output; raise GitError if it fails."""
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})},
            stdin=subprocess.DEVNULL,
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


def bundle_head(out: Path, cwd: Path | None = None) -> None:
    """Write a bundle of HEAD with its whole history."""
    git("bundle", "create", "--quiet", str(out.resolve()), "HEAD", cwd=cwd)


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
