"""Keeper: the process between the worker and one trainer. When it ends, nothing of that is left.

Run by the worker as a script: `python keeper.py GUARD COMMAND…`. Standard input is its line to the
worker: `t` asks the trainer to end, and when the line breaks, which the worker's death does too,
every process is killed. Daemons that left the trainer's process group are found as well: on
Linux orphans come to the keeper. So is everything once a limit of GUARD is passed: trainer.Guard as
JSON. Exits as the trainer did, 128 + N after signal N.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINE = 0
#: Between two looks at what is guarded.
LOOK_SECONDS = 0.25


def main(guard: dict[str, Any], command: list[str]) -> int:
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    bell = open_bell()
    trainer = start(command)
    status = watch(trainer, bell, guard)
    code = end(trainer, status)
    if guard["last"]:
        os.waitpid(start(guard["last"]), 0)
    for left in guard["files"]:
        Path(left).unlink(missing_ok=True)
    return code


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


def watch(trainer: int, bell: int, guard: dict[str, Any]) -> int | None:
    """Wait for the trainer's end and return its status; None when it is to be killed."""
    limits = [guard[name] for name in ("memory_bytes", "wall_seconds", "folder")]
    look_seconds = LOOK_SECONDS if any(limits) else None
    started = looked = time.monotonic()
    while True:
        ready, _, _ = select.select([LINE, bell], [], [], look_seconds)
        if look_seconds and time.monotonic() >= looked + look_seconds:
            looked = time.monotonic()
            if passed := find_passed(guard, looked - started):
                os.write(1, f"\nsandbox: killed, {passed}\n".encode())
                return None
        if LINE in ready:
            if os.read(LINE, 1) != b"t":
                return None
            kill(-trainer, signal.SIGTERM)
        if bell in ready:
            if set(os.read(bell, 512)) - {signal.SIGCHLD}:
                return None
            if (status := reap().get(trainer)) is not None:
                return status


def find_passed(guard: dict[str, Any], seconds: float) -> str:
    """The limit that was passed, in words; empty while all hold."""
    most = guard["memory_bytes"]
    if most and (used := memory_of(descendants(), most)) > most:
        return f"out of memory: {used >> 20} MiB of {most >> 20}"
    if guard["wall_seconds"] and seconds > guard["wall_seconds"]:
        return f"still there after {seconds:.0f} s"
    if guard["folder"] and weigh(guard["folder"], guard["folder_bytes"]) > guard["folder_bytes"]:
        return f"more than {guard['folder_bytes'] >> 20} MiB of files"
    return ""


def descendants() -> list[int]:
    found = [os.getpid()]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found[1:]


def memory_of(pids: list[int], most: int) -> int:
    """Bytes of these processes; what they share is told apart once it matters, for it is slow."""
    whole = sum(count_kib(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:")) for pid in pids) << 10
    if whole <= most:
        return whole
    # Files that are mapped are the system's to drop, so only these.
    fields = ("Pss_Anon:", "Pss_Shmem:")
    fair = sum(count_kib(f"/proc/{pid}/smaps_rollup", fields) for pid in pids) << 10
    return fair or whole


def count_kib(path: str, fields: tuple[str, ...]) -> int:
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return 0  # It ended meanwhile.
    return sum(int(words[1]) for words in lines if words and words[0] in fields)


def weigh(folder: str, enough: int) -> int:
    """Bytes on the disk below a folder, counted until they are more than enough."""
    used, folders = 0, [folder]
    while folders and used <= enough:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return used


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
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
