"""Keeper: the process between the worker and one trainer. When it ends, nothing of that is left.

Run by the worker as a script: `python keeper.py COMMAND…`. Standard input is its line to the
worker: `t` asks the trainer to end, and when the line breaks, which the worker's death does too,
every process is killed. Daemons that left the trainer's process group are found as well: on
Linux orphans come to the keeper. Exits as the trainer did, 128 + N after signal N.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINE = 0


def main(command: list[str]) -> int:
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    bell = open_bell()
    trainer = start(command)
    status = watch(trainer, bell)
    return end(trainer, status)


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def open_bell() -> int:
    """A descriptor that becomes readable with each signal, which it holds as one byte."""
    bell, rope = os.pipe()
    os.set_blocking(rope, False)
    signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return bell


def start(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), LINE)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec inherits that.
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def watch(trainer: int, bell: int) -> int | None:
    """Wait for the trainer's end and return its status; None when it is to be killed."""
    while True:
        ready, _, _ = select.select([LINE, bell], [], [])
        if LINE in ready:
            if os.read(LINE, 1) != b"t":
                return None
            kill(-trainer, signal.SIGTERM)
        if bell in ready:
            if set(os.read(bell, 512)) - {signal.SIGCHLD}:
                return None
            if (status := reap().get(trainer)) is not None:
                return status


def end(trainer: int, status: int | None) -> int:
    """Kill all that is left and return how the trainer ended."""
    kill(-trainer, signal.SIGKILL)
    while children := find_children():
        for pid in children:
            kill(pid, signal.SIGKILL)
        ended = wait()
        status = ended.get(trainer, status)
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def find_children() -> list[int]:
    """Every child, adopted ones included; other systems than Linux adopt none."""
    me = os.getpid()
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything, brackets too; ppid is the 2nd field after it.
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # It ended meanwhile.
        if int(fields[1]) == me:
            found.append(int(stat.parent.name))
    return found


def wait() -> dict[int, int]:
    """Status of at least one child that ended."""
    try:
        pid, status = os.waitpid(-1, 0)
    except ChildProcessError:
        return {}
    return {pid: status} | reap()


def reap() -> dict[int, int]:
    """Statuses of the children that have ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = status


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
