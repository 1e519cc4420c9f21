"""Entry: the first program inside a sandbox. It gives up what the training must not have.

Run as a script, `python -I -S -B entry.py PLAN`, PLAN being JSON: `argv`, `env` and `cwd` of the
program to become, and what to do before: `copy` a folder into `scratch`, drop to `uid`, `limits`,
`landlock`, `own` namespaces, `memfd`, a `line` to the worker, and whether to stay as `init`. The
standard library only: it runs in the trainer's interpreter, where nothing else of ours can be seen.
Says so on descriptor READY_FD when all of it is done, so that nobody takes a sandbox that could not
start for a training that failed.
"""

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import shutil
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
CLONE_NEWUSER = 0x10000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

#: AUDIT_ARCH of the machine, and the system calls that have other numbers on each.
MACHINES = {
    "x86_64": (0xC000003E, 0),
    "aarch64": (0xC00000B7, 1),
}
#: What no training needs, and what reaches kernel code that only root used to reach. Keyrings
#: belong to a user and not to a namespace: one training could leave a note for the next in them.
DENIED = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "syslog": (103, 116),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "memfd_secret": (447, 447),
}
#: Memory that neither a limit of the process nor the size of a tmpfs counts.
UNCOUNTED = {"memfd_create": (319, 279), "shmget": (29, 194)}
#: Without namespaces of its own: ways to other programs, and what Landlock lets anybody do to
#: files of the same user.
SHARED = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "inotify_add_watch": (254, 27),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
#: Kernels before 6.12 cannot keep signals inside.
SIGNALS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}
SIGNALS_ABI, LEAST_ABI = 6, 3
CLONE, CLONE3, UNSHARE, IOCTL = (56, 220), (435, 435), (272, 97), (16, 29)
SOCKETPAIR, SENDTO, PRLIMIT = (53, 199), (44, 206), (302, 261)

RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1, 2, 4, 8
FS_REFER, FS_TRUNCATE, FS_IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
#: Bits a kernel of this ABI knows: files, network, scopes.
LANDLOCK_ABI = {
    1: (FS_REFER - 1, 0, 0),
    2: (FS_TRUNCATE - 1, 0, 0),
    3: (FS_IOCTL_DEV - 1, 0, 0),
    4: (FS_IOCTL_DEV - 1, 3, 0),
    5: (2 * FS_IOCTL_DEV - 1, 3, 0),
    6: (2 * FS_IOCTL_DEV - 1, 3, 3),
}

#: One instruction of a filter: operation, how far to jump if true and if not, operand.
Step = tuple[int, int, int, int]

libc = ctypes.CDLL(None, use_errno=True)


def main(text: str) -> None:
    plan = json.loads(text)
    sys.setrecursionlimit(100_000)  # A commit may hold thousands of folders inside of each other.
    line = open_line(plan["line"]) if plan["line"] else None
    try:
        make_folders(plan)
    except OSError as error:
        if error.errno == errno.ENOSPC or "[Errno 28]" in str(error):
            tell(b"f")
        raise
    Path("/proc/self/oom_score_adj").write_text("1000")  # The trainer dies before the worker.
    drop_user(plan["uid"])
    os.chdir(plan["cwd"])
    set_limits(plan["limits"])
    call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if plan["landlock"]:
        restrict_files(**plan["landlock"])
    filter_calls(own=plan["own"], memfd=plan["memfd"])
    if plan["init"]:
        be_init(line)
    tell(b"r")
    os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606


def open_line(path: str) -> socket.socket:
    """Take the descriptors that a container engine does not pass on, each under its number."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    text, files, _, _ = socket.recv_fds(line, 4096, 64)
    numbers = json.loads(text)
    # None may take the place of one that is still to be moved, nor of the line.
    highest = max([*numbers, *files, line.fileno()]) + 1
    line = socket.socket(fileno=fcntl.fcntl(line.detach(), fcntl.F_DUPFD_CLOEXEC, highest))
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, highest) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number)
    os.environ["READY_FD"] = str(numbers[0])
    return line


def end_with(line: socket.socket) -> None:
    """Wait for the worker to leave; its engine would let the container live on."""
    line.recv(1)
    os._exit(128 + signal.SIGKILL)


def be_init(line: socket.socket | None) -> None:
    """Return in a child; stay, as the process whose end ends its PID namespace, until it ends."""
    trainer = os.fork()
    if not trainer:
        return
    if line:
        threading.Thread(target=end_with, args=[line], daemon=True).start()
    # All limits hold for this process too, and the trainer cannot even look into it.
    call(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        pid, status = os.wait()
        if pid == trainer:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def tell(word: bytes) -> None:
    """`r` for ready, `f` for a commit that does not fit; the line is not passed on."""
    if line := os.environ.get("READY_FD"):
        os.write(int(line), word)
        os.close(int(line))


def make_folders(plan: dict[str, Any]) -> None:
    """Fill the private scratch and give all in it to the user that the training runs as."""
    scratch, uid = plan["scratch"], plan["uid"]
    if plan["copy"]:
        shutil.copytree(plan["copy"], scratch, symlinks=True, dirs_exist_ok=True)
    if uid is None:
        return
    # A folder comes after all in it: root has no power over what is not its own here.
    for folder, folders, files in os.walk(scratch, topdown=False):
        for name in [*folders, *files, "."]:
            os.chown(os.path.join(folder, name), uid, uid, follow_symlinks=False)  # noqa: PTH118


def drop_user(uid: int | None) -> None:
    if uid is not None:
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def set_limits(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (most, most))


def call(answer: int, what: str) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return answer


# System calls -----------------------------------------------------------------------------------


def filter_calls(*, own: bool, memfd: bool) -> None:
    """Forbid what needs no walls around it; `own` tells whether there are namespaces as well."""
    if platform.machine() not in MACHINES or sys.byteorder != "little" or sys.maxsize < 2**32:
        if not own:
            raise OSError(errno.ENOSYS, f"no filter of system calls for {platform.machine()}")
        return
    code = b"".join(struct.pack("HBBI", *step) for step in make_filter(own, memfd))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    call(libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0), "seccomp")


def make_filter(own: bool, memfd: bool) -> list[Step]:
    arch, column = MACHINES[platform.machine()]
    steps = [(LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, arch), (RETURN, 0, 0, RET_KILL)]
    steps += [(LOAD, 0, 0, NUMBER_AT)]
    # The x32 calls of x86 have numbers of their own.
    steps += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS)]
    # Its flags lie in memory, where a filter cannot see them; libc then falls back to clone.
    steps += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS)]
    denied = DENIED | ({} if memfd else UNCOUNTED) | ({} if own else SHARED)
    if not own and landlock_abi() < SIGNALS_ABI:
        denied |= SIGNALS
    deny, allow = (RETURN, 0, 0, RET_ERRNO | errno.EPERM), (RETURN, 0, 0, RET_ALLOW)
    for number in [numbers[column] for numbers in denied.values()]:
        steps += [] if number is None else [(EQUAL, 0, 1, number), deny]
    for numbers in (CLONE, UNSHARE):
        flags = [argument(0), (ANY_BIT, 0, 1, CLONE_NEWUSER), deny, allow]
        steps += only_for(numbers[column], flags)
    command = [argument(1), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX), deny, allow]
    steps += only_for(IOCTL[column], command)
    if not own:
        # A pair of datagram sockets can still be sent to any address; these two kinds cannot.
        kind = [argument(1), (AND, 0, 0, 0xF), (EQUAL, 2, 0, 1), (EQUAL, 1, 0, 5), deny, allow]
        steps += only_for(SOCKETPAIR[column], kind)
        address = [argument(4), (EQUAL, 0, 2, 0), argument(4, 4), (EQUAL, 1, 0, 0), deny, allow]
        steps += only_for(SENDTO[column], address)
        itself = [argument(0), (EQUAL, 1, 0, 0), deny, allow]
        steps += only_for(PRLIMIT[column], itself)
    return [*steps, allow]


def argument(place: int, half: int = 0) -> Step:
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * place + half)


def only_for(number: int, steps: list[Step]) -> list[Step]:
    return [(EQUAL, 0, len(steps), number), *steps]


# Landlock ---------------------------------------------------------------------------------------


def landlock_abi() -> int:
    """0 where the kernel has none or has it switched off."""
    return max(0, int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def restrict_files(
    read: list[str], listed: list[str], write: list[str], devices: list[str]
) -> None:
    """From here on nothing else can be opened, nor what lies outside be signalled or connected."""
    abi = landlock_abi()
    if abi < LEAST_ABI:
        raise OSError(errno.ENOSYS, f"needs Landlock as of Linux 6.2, this kernel has ABI {abi}")
    files, network, scopes = LANDLOCK_ABI[min(abi, max(LANDLOCK_ABI))]
    known = struct.pack("QQQ", files, network, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(known))
    rules = call(libc.syscall(LANDLOCK_CREATE, known, size, 0), "landlock")
    reading = FS_READ_FILE | FS_READ_DIR | FS_EXECUTE
    using = FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV
    allowed = ((read, reading), (listed, FS_READ_DIR), (write, files), (devices, using))
    for paths, rights in allowed:
        for path in paths:
            allow_below(rules, path, rights & files)
    call(libc.syscall(LANDLOCK_RESTRICT, rules, 0), "landlock")
    os.close(rules)


def allow_below(rules: int, path: str, rights: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV
    rule = struct.pack("=Qi", rights, file)
    call(libc.syscall(LANDLOCK_ADD, rules, 1, rule, 0), f"landlock: {path}")
    os.close(file)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"sandbox: {error}")
