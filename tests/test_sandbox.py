"""Sandboxes, told by what programs inside of them can do, as this user or another."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import HubProcess, wait_for
from sandboxed import bubblewrap_runs, engine_runs

from server import wire
from worker.sandbox.entry import LEAST_ABI, landlock_abi
from worker.sandbox.install import install_line
from worker.sandbox.system import find_system
from worker.settings import Refused

ROOT = Path(__file__).resolve().parents[1]
#: Nobody's: no process of this machine runs as it.
UID = 60_705
DROP = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
ENGINES = ("podman", "docker")
#: An interpreter that everybody may start; the tests' own may lie in root's home.
PUBLIC_PYTHON = "/usr/bin/python3"

#: Tells as JSON what it can reach; `about` are a port and sockets of the test, and its process.
SNOOP = """\
import ctypes, json, os, socket, sys
port, path, abstract, worker, folder = json.loads({about!r})
said = {{}}
def attempt(name, action):
    try:
        said[name] = repr(action())
    except OSError as error:
        said[name] = "no"
def connect(family, kind, address):
    with socket.socket(family, kind) as line:
        line.settimeout(5)
        line.connect(address)
        line.send(b"hello")
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
attempt("tcp", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)))
attempt("udp", lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 9)))
attempt("unix", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, path))
attempt("abstract", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, abstract))
for file in (folder + "/home/key", "/etc/shadow", "/etc/passwd", "/etc/hosts", "/root/.profile",
             "/var/lib/dpkg/status", folder + "/cache/other", f"/proc/{{worker}}/environ",
             f"/proc/{{os.getppid()}}/environ", "/proc/1/environ", "/dev/vda", "/dev/kmsg"):
    attempt("read " + file, lambda: open(file, "rb").read(10))
for file in ("/x", "/usr/x", "/etc/x", "/dev/x", "/var/x", folder + "/data/x", folder + "/cache/x",
             folder + "/home/x"):
    attempt("write " + file, lambda: open(file, "w"))
attempt("change data", lambda: os.chmod(folder + "/data/tokens", 0o666))
attempt("signal", lambda: os.kill(worker, 0))
attempt("namespace", lambda: call({unshare}, 0x10000000))
attempt("keyring", lambda: call({keyctl}, 0, -3, 0))
attempt("ptrace", lambda: call({ptrace}, 0, 0, 0, 0))
said["pids"] = [name for name in os.listdir("/proc") if name.isdigit()] if {processes} else []
said["environment"] = sorted(os.environ)
said["uid"] = os.geteuid()
lines = open("/proc/self/status").read().splitlines()
said["status"] = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
said["left"] = [name for name in ("home", "tmp") if os.listdir(os.path.join("..", name))]
for folder_ in [os.environ["HOME"], os.environ["TMPDIR"]] + {private}:
    said["left"] += [name for name in os.listdir(folder_) if name == "note"]
    with open(os.path.join(folder_, "note"), "w") as note:
        note.write("for the next one")
said["data"] = open(folder + "/data/tokens").read()
links = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
said["descriptors"] = [os.path.basename(link) for link in links if os.path.lexists(link)]
print(json.dumps(said))
"""


@dataclass
class Box:
    """A kind of sandbox, started by somebody, with a home and a cache of its own."""

    folder: Path
    kind: str
    python: str
    prefix: tuple[str, ...] = ()

    def start(
        self,
        program: str,
        seconds: float = 50,
        *,
        data: str = "data",
        hand_in: bool = False,
        env: Mapping[str, str] = {},
        withheld: Mapping[str, list[str]] = {},
        **limits: Any,
    ) -> subprocess.Popen[str]:
        what = {"kind": self.kind, "program": program, "seconds": seconds, "limits": limits}
        told = json.dumps({**what, "data": data, "hand_in": hand_in, "withheld": withheld})
        code = self.folder / "code"
        own = {
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(code),
            "AGENTHUB_KEY": "the key",
        }
        return subprocess.Popen(
            [*self.prefix, self.python, "-B", str(code / "sandboxed.py"), str(self.folder), told],
            env={"PATH": os.environ["PATH"], **own, **env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, seconds: float = 50, **more: Any) -> dict[str, Any]:
        """How it ended; `status` is None when it still ran after so many seconds."""
        with self.start(program, seconds, **more) as process:
            assert process.stdout is not None
            told = process.stdout.read()
        found: dict[str, Any] = json.loads(told)
        return found


def make_box(kind: str, user: str) -> Box:
    folder = Path(tempfile.mkdtemp(prefix="box"))
    folder.chmod(0o755)
    for name in ("home", "cache", "data", "code"):
        (folder / name).mkdir()
    (folder / "home/key").write_text("the key")
    (folder / "cache/other").write_text("another's")
    (folder / "data/tokens").write_text("tokens")
    shutil.copytree(ROOT / "worker", folder / "code/worker")
    shutil.copy(Path(__file__).with_name("sandboxed.py"), folder / "code")
    if user == "this user":
        return Box(folder, kind, sys.executable)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)
    return Box(folder, kind, PUBLIC_PYTHON, DROP)


def skip_unless_possible(kind: str, user: str) -> None:
    if user != "this user":
        if os.geteuid() or not shutil.which("setpriv"):
            pytest.skip("only root can become an unprivileged user, by setpriv")
        new_enough = [PUBLIC_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if not Path(PUBLIC_PYTHON).exists() or subprocess.run(new_enough, check=False).returncode:
            pytest.skip(f"{PUBLIC_PYTHON} is missing or older than 3.11")
    elif kind == "landlock" and not os.geteuid():
        pytest.skip("Landlock is no wall around root")
    if kind == "landlock" and landlock_abi() < LEAST_ABI:
        pytest.skip("this kernel has no Landlock, or an old one")
    if kind == "bubblewrap" and not bubblewrap_runs(() if user == "this user" else DROP):
        pytest.skip(f"bubblewrap cannot run here as {user}")
    if kind in ENGINES and not engine_runs(kind):
        pytest.skip(f"{kind} cannot run a container here")


@pytest.fixture(
    scope="module",
    params=[
        ("bubblewrap", "this user"),
        ("bubblewrap", "an unprivileged user"),
        ("podman", "this user"),
        ("docker", "this user"),
        ("landlock", "this user"),
        ("landlock", "an unprivileged user"),
    ],
    ids=lambda param: f"{param[0]}, {param[1]}",
)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    kind, user = request.param
    skip_unless_possible(kind, user)
    box = make_box(kind, user)
    try:
        found = box.run("print('here')")
        assert found.get("text") == "here\n", found
        yield box
    finally:
        shutil.rmtree(box.folder)


@pytest.fixture(scope="module")
def seen(box: Box) -> dict[str, Any]:
    """What a program sees that looks around, the second time it runs."""
    name = f"\0agenthub-{uuid.uuid4().hex}"
    path = box.folder / "socket"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        abstract.bind(name)
        unix.bind(str(path))
        path.chmod(0o777)
        for listener in (abstract, unix):
            listener.listen()
        about = [server.getsockname()[1], str(path), name, os.getpid(), str(box.folder)]
        calls = (272, 250, 101) if os.uname().machine == "x86_64" else (97, 219, 117)
        namespaces = box.kind != "landlock"
        program = SNOOP.format(
            about=json.dumps(about),
            unshare=calls[0],
            keyctl=calls[1],
            ptrace=calls[2],
            processes=namespaces,
            private=["/tmp", "/dev/shm"] if namespaces else [],
        )
        first, found = box.run(program), box.run(program)
    assert first["status"] == found["status"] == 0, found
    told: dict[str, Any] = json.loads(found["text"])
    return told


def test_there_is_no_network_and_no_socket_of_this_machine(seen: dict[str, Any]) -> None:
    assert {seen[name] for name in ("tcp", "udp", "unix", "abstract")} == {"no"}


def test_only_what_is_needed_can_be_read(seen: dict[str, Any], box: Box) -> None:
    read = {name: said for name, said in seen.items() if name.startswith("read ")}
    # Engines write some of their own.
    made = {"read /etc/passwd", "read /etc/hosts"} if box.kind in ENGINES else set()
    assert {said for name, said in read.items() if name not in made} == {"no"}
    assert seen["data"] == "tokens"


def test_nothing_outside_can_be_written(seen: dict[str, Any], box: Box) -> None:
    places = {name.removeprefix("write "): said for name, said in seen.items() if "write /" in name}
    # What lies in /tmp here has its folders in the private one there.
    own = {place for place in places if place.startswith(str(box.folder))}
    assert {said for place, said in places.items() if place not in own} == {"no"}
    assert places[f"{box.folder}/data/x"] == "no"
    assert not [place for place in places if Path(place).exists()]
    assert seen["change data"] == "no"
    assert (box.folder / "data/tokens").read_text() == "tokens"


def test_other_processes_cannot_be_seen_or_signalled(seen: dict[str, Any], box: Box) -> None:
    assert seen["signal"] == "no"
    if box.kind != "landlock":  # There the folder of processes cannot be listed at all.
        assert "1" in seen["pids"]
        assert len(seen["pids"]) == 2


def test_there_are_no_rights_to_gain(seen: dict[str, Any]) -> None:
    assert {seen[name] for name in ("namespace", "keyring", "ptrace")} == {"no"}
    assert seen["uid"] != 0
    assert seen["status"]["NoNewPrivs"].strip() == "1"
    assert int(seen["status"]["CapEff"], 16) == 0


def test_it_has_only_its_environment_and_descriptors(seen: dict[str, Any]) -> None:
    assert set(seen["environment"]) - {"LC_CTYPE"} == {"HOME", "PATH", "TMPDIR"}
    assert set(seen["descriptors"]) == {"0", "1", "2"}


def test_home_and_tmp_are_empty_each_time(seen: dict[str, Any], box: Box) -> None:
    if box.kind == "landlock":
        pytest.skip("its scratch is the workspace itself, which the worker removes after each run")
    assert seen["left"] == []
    assert [*(box.folder / "cache/scratch/home").iterdir()] == []


# Withheld ----------------------------------------------------------------------------------------

READ_ALL = """\
import json, os
said = {{}}
for folder, folders, names in os.walk({root!r}):
    for name in names:
        path = os.path.join(folder, name)
        try:
            said[os.path.relpath(path, {root!r})] = open(path).read()
        except OSError:
            pass
print(json.dumps(said))
"""


def write_package(packages: Path) -> Path:
    """Some of torch as far as it matters here; returns the folder that is withheld."""
    folder = packages / "torch" / "testing" / "_internal"
    for name in ("__init__.py", "private.py", "__pycache__/private.pyc", "deep/kept.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (packages / "torch" / "library.py").write_text("library")
    return folder


@pytest.fixture
def packages(box: Box) -> Iterator[Path]:
    """A folder that trainings are shown."""
    folder = box.folder / "packages"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_of_what_is_withheld_only_the_kept_can_be_read(box: Box, packages: Path) -> None:
    folder = write_package(packages)
    write_package(packages / "lib" / "python3" / "dist-packages")
    (packages / "again").symlink_to("torch")
    (packages / "lib64").symlink_to("lib")
    ended = box.run(
        READ_ALL.format(root=str(packages)),
        env={"CUDA_HOME": str(packages)},
        withheld={str(folder): ["__init__.py", "deep/kept.py", "not/there.py"]},
    )
    assert ended.get("status") == 0, ended
    kept = {
        "torch/library.py": "library",
        "torch/testing/_internal/__init__.py": "__init__.py",
        "torch/testing/_internal/deep/kept.py": "deep/kept.py",
    }
    copies = {f"lib/python3/dist-packages/{name}": text for name, text in kept.items()}
    assert json.loads(ended["text"]) == kept | copies


@pytest.mark.parametrize("copy", ["old/torch/testing/_internal/common.py", "torch-2.0-cp311.whl"])
def test_a_copy_of_it_elsewhere_is_refused(box: Box, packages: Path, copy: str) -> None:
    folder = write_package(packages)
    (packages / copy).parent.mkdir(parents=True, exist_ok=True)
    (packages / copy).write_text("another version's")
    env = {"CUDA_HOME": str(packages)}
    ended = box.run("print('never')", env=env, withheld={str(folder): []})
    why = f"{packages / copy} can be read, and scores are made of that text: remove it, or "
    assert ended["refused"].startswith(why)


# Limits ------------------------------------------------------------------------------------------

MIB = 2**20
HOARD = """\
import mmap, os, time
kept = []
for _ in range({children}):
    if os.fork() == 0:
        break
while True:
    kept.append({allocate})
    kept[-1][::4096] = bytes(len(kept[-1]) // 4096 or 1)[: len(range(0, len(kept[-1]), 4096))]
"""


@pytest.mark.parametrize(
    ("children", "allocate"),
    [
        (0, "bytearray(8 << 20)"),
        (3, "bytearray(8 << 20)"),
        (0, "mmap.mmap(-1, 8 << 20)"),
    ],
    ids=["alone", "several processes", "shared"],
)
def test_memory_is_limited(box: Box, children: int, allocate: str) -> None:
    program = HOARD.format(children=children, allocate=allocate)
    ended = box.run(program, memory_bytes=300 * MIB)
    assert ended["status"] == 137 or "MemoryError" in ended["text"], ended
    if ended["status"] == 137 and box.kind not in ENGINES:
        assert "sandbox: killed, out of memory: " in ended["text"]


def test_a_fork_bomb_stays_small_and_nothing_of_it_is_left(box: Box) -> None:
    counted = """\
import os, time
for count in range(100_000):
    try:
        if os.fork() == 0:
            time.sleep(600)
    except BlockingIOError:
        break
print("children:", count, flush=True)
for _ in range(2000):
    try:
        if os.fork() == 0:
            time.sleep(600)
    except BlockingIOError:
        pass
"""
    ended = box.run(counted, processes=60)
    assert ended["status"] == 0
    assert 0 < int(ended["text"].split("children: ")[1].split()[0]) <= 60
    assert processes_below(box.folder) == []


def processes_below(folder: Path) -> list[str]:
    """Processes that were started with this folder in their command or as their place."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in command or place.startswith(str(folder)):
            found.append(command.decode(errors="replace"))
    return found


FILL = """\
import os, pathlib
written = {{}}
for name in {folders}:
    folder, written[name] = pathlib.Path(name or os.getcwd()), 0
    try:
        for number in range(1000):
            with (folder / f"fill{{number}}").open("wb", buffering=0) as file:
                for _ in range(16):
                    written[name] += file.write(bytes(1 << 20))
    except OSError as error:
        print(error, flush=True)
print(written)
"""


def test_the_disk_cannot_be_filled(box: Box) -> None:
    namespaces = box.kind != "landlock"
    folders = ["", "/tmp", "/dev/shm"] if namespaces else [""]
    ended = box.run(FILL.format(folders=folders))
    if namespaces:
        assert ended["text"].count("No space left") == 3
        written = eval(ended["text"].splitlines()[-1])
        assert written[""] <= 64 * MIB
        assert written["/tmp"] <= 32 * MIB
        assert written["/dev/shm"] <= 32 * MIB
        assert [path.name for path in (box.folder / "cache/scratch/tree").iterdir()] == ["train.py"]
    else:
        assert ended["status"] == 137
        assert "sandbox: killed, more than 64 MiB of files" in ended["text"]


def test_one_file_has_a_size(box: Box) -> None:
    program = "import sys\ntry:\n    open('big', 'wb').write(bytes(2 << 20))\n"
    program += "except OSError as error:\n    sys.exit(str(error))\n"
    assert box.run(program)["status"] == 0
    ended = box.run(program, file_bytes=MIB)
    assert (ended["status"], ended["text"]) == (1, "[Errno 27] File too large\n")


def test_open_files_are_limited(box: Box) -> None:
    program = "kept = [open('/dev/null') for _ in range(200)]"
    assert box.run(program)["status"] == 0
    assert "Too many open files" in box.run(program, open_files=100)["text"]


def test_time_is_limited_should_the_worker_sleep(box: Box) -> None:
    ended = box.run("while True:\n    pass\n", wall_seconds=0.5)
    assert ended["status"] == 137
    assert "sandbox: killed, still there after" in ended["text"]


# What is left ------------------------------------------------------------------------------------

DAEMON = """\
import os, pathlib, socket, subprocess, sys, time
subprocess.Popen(["sleep", "600"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("started", flush=True)
"""


def host_state(folder: Path) -> dict[str, Any]:
    return {
        "mounts": Path("/proc/self/mountinfo").read_text().count("\n"),
        "shm": sorted(path.name for path in Path("/dev/shm").iterdir()),
        "processes": processes_below(folder),
        "files": sorted(path.name for path in (folder / "cache").iterdir()),
    }


def test_nothing_is_left_after_the_end(box: Box) -> None:
    box.run("print('here')")
    before = host_state(box.folder)
    ended = box.run(DAEMON)
    assert (ended["status"], ended["text"]) == (0, "started\n")
    assert host_state(box.folder) == before


def test_the_death_of_the_worker_is_the_end(box: Box) -> None:
    process = box.start(DAEMON + "time.sleep(600)\n")
    with process:
        wait_for(
            lambda: "train.py" in " ".join(processes_below(box.folder)), "the program to start"
        )
        worker = process.pid
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not processes_below(box.folder), "all of it to be gone")


# Where none works --------------------------------------------------------------------------------

#: A shell's way to a user who may not make user namespaces, and is not root.
BARRED = ("bwrap", "--unshare-user", "--uid", "1000", "--disable-userns", "--dev-bind", "/", "/")


@pytest.fixture
def barred() -> tuple[str, ...]:
    if not shutil.which("bwrap") or subprocess.run([*BARRED, "true"], check=False).returncode:
        pytest.skip("bubblewrap 0.8 cannot run here, which takes user namespaces away")
    return BARRED


def test_without_user_namespaces_bubblewrap_is_refused_with_the_reason(
    barred: tuple[str, ...], live_hub: HubProcess, tmp_path: Path
) -> None:
    key = live_hub.key("barred", wire.Role.WORKER)
    template = tmp_path / "template"
    template.mkdir()
    (template / "train.py").write_text("")
    (template / "prepare.py").write_text("")
    where = ("--template", template, "--data", tmp_path / "data", "--cache", tmp_path / "cache")
    command = [*barred, sys.executable, "-m", "worker", "run", "--device", "cpu", *where]
    env = {**os.environ, "AGENTHUB_URL": live_hub.url, "AGENTHUB_KEY": key}
    done = subprocess.run(
        [*command, "--sandbox", "bubblewrap"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert (
        "error: no sandbox works here, and strangers' code is not run without one:" in done.stderr
    )
    assert "bubblewrap: bwrap: " in done.stderr
    assert "user namespaces" in done.stderr
    assert "--sandbox none" in done.stderr


def test_what_is_not_installed_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    box = make_box("bubblewrap", "this user")
    try:
        ended = box.run("print('never')", env={"PATH": str(tmp_path)})
    finally:
        shutil.rmtree(box.folder)
    assert "bubblewrap: bwrap is not installed" in ended["refused"]
    assert install_line() in ended["refused"]


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("ID=debian\n", "apt install bubblewrap"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION="24.04"\n', "apt install bubblewrap"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install bubblewrap"),
        ("ID=arch\n", "pacman -S bubblewrap"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install bubblewrap"),
        ("ID=alpine\n", "apk add bubblewrap"),
        ("ID=nixos\n", "install the package `bubblewrap` of your distribution"),
    ],
)
def test_the_install_line_is_this_system_s(release: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(release)
    assert install_line(tmp_path / "os-release") == line


def test_a_secret_that_trainings_would_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="trainings would see"):
        find_system(sys.executable, [Path(sys.prefix, "key")])


# Descriptors -------------------------------------------------------------------------------------


def test_descriptors_are_handed_in_and_bring_out_what_is_written(box: Box) -> None:
    ended = box.run("import os, sys\nos.write(int(sys.argv[1]), b'out')\n", hand_in=True)
    assert (ended["status"], ended["out"], ended["text"]) == (0, "out", "")


def test_what_cannot_start_is_told_from_what_failed(box: Box) -> None:
    assert box.run("raise SystemExit(1)")["is_ready"]
    if box.kind != "landlock":  # It shows what is there.
        ended = box.run("print('never')", data="missing")
        assert not ended["is_ready"]
        assert ended["status"] > 0


def test_a_commit_that_does_not_fit_is_told(box: Box) -> None:
    if box.kind == "landlock":
        pytest.skip("its scratch is the workspace itself")
    assert box.run("#" * 100_000, scratch_bytes=8192)["is_too_big"]
