"""Data, tokenizer and metric of an experiment. Frozen: agents edit train.py, never this file.

    python prepare.py                  prepare the data of this machine's profile, once
    python prepare.py --fingerprint    print which data, tokenizer and metric a score belongs to
    python prepare.py --dataset        print the short name of the data: climbmix, stdlib+torch
    python prepare.py --layout         print what a worker hands to whom, as JSON
    python prepare.py --withheld       print what trainings must not read here, as JSON

Two profiles: `gpu` reads web text (climbmix shards from the Hugging Face hub), `cpu` reads Python
that is there anyway, so it needs no network: the standard library, and the tests of torch's own
that come with it, of which both held-out splits are. Everything prepared lies in
TRAIN_DATA/<profile>/v<TEMPLATE_VERSION>; manifest.json is written last, so a folder that has one
is whole.

Three sides of the data: the training tokens, a public split that agents score their tries on, and
a private one that workers score with. A worker that scores itself keeps both splits out of the
training, and holds the training tokens back until its clock starts: TRAIN_GATE is the line to it.
"""

from __future__ import annotations

import argparse
import base64
import bisect
import ctypes
import errno
import functools
import hashlib
import http.client
import importlib.metadata
import importlib.util
import json
import math
import mmap
import os
import queue
import re
import socket
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import tiktoken
    import torch

# torch, tiktoken, rustbpe, pyarrow are imported where they are used: --fingerprint and --dataset
# must be quick.

# ---------------------------------------------------------------------------
# Constants: what makes two scores comparable
# ---------------------------------------------------------------------------

TEMPLATE_VERSION = 3


@dataclass(frozen=True)
class Profile:
    name: str
    dataset: str          # short name of the data
    vocab_size: int       # tokens, the special one included
    sequence_length: int  # tokens of context in training and evaluation
    eval_rows: int        # validation rows of sequence_length scored tokens, at most
    tokenizer_chars: int  # characters of training text the tokenizer is trained on
    default_budget: str


PROFILES = {
    "cpu": Profile("cpu", "stdlib+torch", 2048, 128, 10**9, 10**9, "60s"),
    "gpu": Profile("gpu", "climbmix", 8192, 2048, 2048, 250_000_000, "300s"),
}

BOS = "<|bos|>"  # opens every document; the only special token
# The split of GPT-4's tokenizer, but numbers are cut after two digits, which suits few tokens.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)

# cpu: the standard library, all of it trained on, and torch's tests, of which a part is
STDLIB_SKIPPED_FOLDERS = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "idle_test", "lib2to3", "site-packages",
    "test", "tests", "turtledemo",
    "encodings", "pydoc_data",  # generated tables: thousands of lines that say nothing new
}
TESTS = "testing/_internal"    # in torch's folder; training needs no more of it than this:
TESTS_IN_USE = {
    "__init__.py", "common_dtype.py", "composite_compliance.py", "distributed/__init__.py",
    "distributed/fake_pg.py", "logging_tensor.py",
}
TESTS_SKIPPED_FOLDERS = {"__pycache__", "generated"}  # a table of 0.5 MB, made by torch's build
TESTS_PERCENT = {"private": 35, "val": 25}  # of the files; the others are trained on
EVAL_BYTES = 2**18            # of the text of each split that is scored, at most
EVAL_FILE_CHARS = 2**14       # read from one file at most, so that many files are scored

# gpu: karpathy/climbmix-400b-shuffle
CLIMBMIX_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
CLIMBMIX_VAL_SHARD = 6542  # the last one: the public split
CLIMBMIX_PRIVATE_SHARD = 6541  # all before it may be trained on
CLIMBMIX_SHARDS = 12       # training shards by default, more than one run reads in 300 s
DOWNLOAD_ATTEMPTS = 5
PACK_POOL = 1000           # documents the packer chooses from
BATCHES_AHEAD = 4          # batches the loader keeps ready
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fail(message: str) -> SystemExit:
    """One line on stderr and exit status 1, once raised."""
    return SystemExit(f"error: {message}")


def run(main: Callable[[], None], after_interrupt: str) -> None:
    """Run a script's main function; Ctrl-C ends it with one line and exit status 130."""
    try:
        main()
    except KeyboardInterrupt:
        print(f"\ninterrupted; {after_interrupt}", file=sys.stderr)
        raise SystemExit(130) from None


class ProgressBar:
    """A bar on a terminal, drawn over itself; elsewhere a line for every item that is done."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.terminal = sys.stdout.isatty()

    def draw(self, share: float) -> None:
        """Show `share` (0 to 1) of all the work as done."""
        if self.terminal:
            bar = "#" * round(30 * share)
            print(f"\r{self.label} [{bar:<30}] {share:4.0%} ", end="", flush=True)

    def leave(self) -> None:
        """Begin a new line: what comes is not about this work."""
        if self.terminal:
            print(flush=True)

    def item(self, text: str) -> None:
        """One more of the items is done."""
        self.done += 1
        self.draw(self.done / self.total)
        if not self.terminal:
            print(f"{self.label}: {text}, {self.done} of {self.total}", flush=True)
        elif self.done == self.total:
            print(text, flush=True)


# ---------------------------------------------------------------------------
# Environment: the only place that reads it
# ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """How long training may last: seconds or steps, exactly one of them is set."""

    seconds: float | None
    steps: int | None

    @classmethod
    def parse(cls, text: str) -> Budget:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|steps?)?", text.strip())
        if not match or float(match[1]) <= 0 or (match[2] or "s") != "s" and "." in match[1]:
            raise fail(f"TRAIN_BUDGET must look like 300, 300s or 200steps, not {text!r}")
        if (match[2] or "s") == "s":
            return cls(float(match[1]), None)
        return cls(None, int(match[1]))

    def progress(self, steps: int, seconds: float) -> float:
        """The part of the budget that is used up, 0 to 1."""
        return min(1.0, seconds / self.seconds if self.seconds else steps / self.steps)

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.seconds else f"{self.steps}steps"


@dataclass(frozen=True)
class Environment:
    profile: Profile
    device: str     # auto, cpu, cuda, cuda:N or mps
    budget: Budget
    seed: int
    data: Path
    mirror: str     # address of a folder with the climbmix shards
    checkpoint: Path | None  # where the trained weights go
    gate: int | None  # descriptor of the line to a worker that holds the training tokens

    @property
    def folder(self) -> Path:
        return self.data / self.profile.name / f"v{TEMPLATE_VERSION}"


def read_environment(profile: str | None = None, data: str | None = None) -> Environment:
    """Read the TRAIN_* variables; arguments win over them."""
    get = os.environ.get
    name = profile or get("TRAIN_PROFILE") or _read_project_profile()
    if name == "auto":
        name = "gpu" if _cuda_is_available() else "cpu"
    if name not in PROFILES:
        raise fail(f"TRAIN_PROFILE must be cpu or gpu, not {name!r}")
    device = get("TRAIN_DEVICE") or "auto"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise fail(f"TRAIN_DEVICE must be auto, cpu, cuda, cuda:N or mps, not {device!r}")
    seed = get("TRAIN_SEED") or "42"
    if not seed.isdecimal() or int(seed) >= 2**63:
        raise fail(f"TRAIN_SEED must be a whole number below 2^63, not {seed!r}")
    checkpoint = get("TRAIN_CHECKPOINT", "checkpoint.safetensors")
    return Environment(
        profile=PROFILES[name],
        device=device,
        budget=Budget.parse(get("TRAIN_BUDGET") or PROFILES[name].default_budget),
        seed=int(seed),
        data=Path(data or get("TRAIN_DATA") or "~/.cache/agenthub/data").expanduser(),
        mirror=(get("TRAIN_DATA_MIRROR") or CLIMBMIX_URL).rstrip("/"),
        checkpoint=Path(checkpoint).expanduser() if checkpoint else None,
        gate=int(get("TRAIN_GATE") or 0) or None,
    )


def _read_project_profile() -> str:
    project = Path(__file__).with_name("pyproject.toml")
    text = project.read_text(encoding="utf-8") if project.exists() else ""
    match = re.search(r'(?m)^profile = "(\w+)"', text)
    return match[1] if match else "auto"


def _cuda_is_available() -> bool:
    # Loading the driver's library is quick and fails where there is none; torch has the last word.
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def find_device(env: Environment) -> torch.device:
    """The device to train on; fails where the wanted one does not exist."""
    import torch

    name, count = env.device, torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto" and env.profile.name == "cpu":
        name = "cpu"
    elif name == "auto":
        name = "cuda" if count else "mps"
        if not count and not has_mps:
            raise fail(
                "the gpu profile needs a GPU and torch finds none here: use TRAIN_PROFILE=cpu "
                "(or insist with TRAIN_DEVICE=cpu; a step takes minutes)"
            )
    if name == "mps" and not has_mps:
        raise fail("TRAIN_DEVICE is mps, and torch finds no such device here")
    if not name.startswith("cuda"):
        return torch.device(name)
    index = int(name[5:] or torch.cuda.current_device()) if count else 0
    if index >= count:
        raise fail(f"TRAIN_DEVICE is {name}, and torch finds {count or 'no'} CUDA devices here")
    return torch.device("cuda", index)


def start_torch(env: Environment) -> torch.device:
    """Choose the device, seed every generator, and set threads and precision."""
    import torch

    device = find_device(env)
    if device.type == "cpu" and env.profile.name == "cpu":
        torch.set_num_threads(1)  # More threads are slower at this size, and not reproducible.
        _keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(env.seed)
    torch.set_float32_matmul_precision("high")
    return device


# Dense bf16 peak in FLOP/s by a part of the device's name; the first that fits counts.
PEAK_FLOPS = {
    "GB200": 2500e12, "B200": 2250e12, "H200": 989.5e12, "H100 PCIe": 756e12, "H100 NVL": 835e12,
    "H100": 989.5e12, "H800": 989.5e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12,
    "L40": 181e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12, "RTX 3090": 71e12,
    "MI355X": 2516e12, "MI325X": 1307.4e12, "MI300X": 1307.4e12,
    "MI250X": 191.5e12,  # of one of its two devices
}


def find_peak_flops(device: torch.device) -> float | None:
    """What a device could do at most, in FLOP/s; None where that is not known."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


def _keep_freed_memory() -> None:
    # glibc hands every large block back to the kernel; fetching it anew takes a third of a step.
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-4, 0)      # M_MMAP_MAX: take large blocks from the heap, too
            mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, in bytes


# ---------------------------------------------------------------------------
# Files: written whole or not at all
# ---------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path` and rename on success, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_array(path: Path, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    with atomic_write(path) as file:
        # np.save hides the reason when a disk is full.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data.cast("B"))


def save_checkpoint(model: torch.nn.Module, env: Environment) -> None:
    """Store the weights, by name, where TRAIN_CHECKPOINT says, and hand them to the worker.

    May be called more than once: of a training that is cut off, the last one in time is scored.
    """
    import safetensors.torch

    if env.checkpoint is None and env.gate is None:
        return
    gate = _open_gate(env.gate) if env.gate else None
    if gate:
        gate.say_trained()
    tensors, storages = {}, set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if place not in storages:  # Tied weights are stored once.
            storages.add(place)
            tensors[name] = tensor.detach().cpu().contiguous()
    path = env.checkpoint or Path("checkpoint.safetensors")
    try:
        with atomic_write(path) as file:
            file.write(safetensors.torch.save(tensors))
    except OSError as error:
        raise fail(
            f"cannot save {path}: {error.strerror} (TRAIN_CHECKPOINT names another "
            "place; empty, it saves nothing)"
        ) from error
    if gate:
        gate.hand_in(path)


def load_checkpoint(model: torch.nn.Module, content: bytes) -> None:
    """Give a model the weights of a checkpoint; raise ValueError when they do not fit."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:
        raise ValueError(f"the checkpoint is no safetensors file: {error}") from error
    try:
        missing, unknown = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit build_model(): {error}") from error
    own = model.state_dict()
    stored = {own[name].data_ptr() for name in tensors if name in own}
    missing = [name for name in missing if own[name].data_ptr() not in stored and own[name].numel()]
    if missing or unknown:
        said = [f"lacks {', '.join(missing[:3])}"] * bool(missing)
        said += [f"has {', '.join(unknown[:3])} too many"] * bool(unknown)
        raise ValueError(f"the checkpoint does not fit build_model(): it {' and '.join(said)}")


# ---------------------------------------------------------------------------
# Gate and clock: when training begins, and what it is given
# ---------------------------------------------------------------------------


class Gate:
    """The line to a worker. It hands the tokens over once, and its clock runs from then on.

    We say `r` (ready), `t` (trained) and `s` (saved, with the checkpoint's descriptor); it answers
    the first and the last with a line of JSON.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._tokens: list[np.ndarray] | None = None

    def tokens(self) -> list[np.ndarray]:
        with self._lock:
            if self._tokens is None:
                self._socket.sendall(b"r")
                counts, files = self._hear()
                memory = mmap.mmap(files[0], 0, access=mmap.ACCESS_READ)
                stream = np.frombuffer(memory, dtype="<u2")
                self._tokens = np.split(stream, np.cumsum(counts["tokens"])[:-1])
            return self._tokens

    def say_trained(self) -> None:
        self._socket.sendall(b"t")

    def hand_in(self, path: Path) -> None:
        with open(path, "rb") as file:
            socket.send_fds(self._socket, [b"s"], [file.fileno()])
            refused = self._hear()[0]["refused"]
        if refused:
            raise fail(f"the checkpoint was refused: {refused}")

    def _hear(self) -> tuple[dict[str, Any], list[int]]:
        said, files = b"", []
        while not said.endswith(b"\n"):
            more, found, _, _ = socket.recv_fds(self._socket, 2**16, 1)
            if not more:
                raise fail("the worker has gone")
            said, files = said + more, files + found
        return json.loads(said), files


@functools.cache
def _open_gate(descriptor: int) -> Gate:
    return Gate(descriptor)


class Clock:
    """Runs from its making on, which is when a worker hands over the training tokens."""

    def __init__(self, env: Environment) -> None:
        self.budget = env.budget
        self.started = time.perf_counter()
        if env.gate:
            _open_gate(env.gate).tokens()

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def progress(self, steps: int) -> float:
        """The part of the budget that is used up, 0 to 1."""
        return self.budget.progress(steps, self.seconds())


@contextmanager
def preparing_alone(env: Environment) -> Iterator[None]:
    """Wait for other processes that prepare the same; the system frees the lock of a dead one."""
    env.data.mkdir(parents=True, exist_ok=True)
    with open(env.data / f".{env.profile.name}.lock", "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------
# Tokenizer
# ---------------------------------------------------------------------------


def train_tokenizer(texts: Iterable[str], profile: Profile, path: Path) -> None:
    """Train byte-pair merges and store them as lines of base64 and rank, tiktoken's own format."""
    import rustbpe

    def limited() -> Iterator[str]:
        left = profile.tokenizer_chars
        for text in texts:
            yield text[:left]
            left -= len(text)
            if left <= 0:
                return

    start = time.monotonic()
    bpe = rustbpe.Tokenizer()
    bpe.train_from_iterator(limited(), profile.vocab_size - 1, pattern=SPLIT_PATTERN)
    ranks = sorted((rank, bytes(token)) for token, rank in bpe.get_mergeable_ranks())
    if len(ranks) != profile.vocab_size - 1:
        raise fail(f"too little text for {profile.vocab_size} tokens: found only {len(ranks) + 1}")
    with atomic_write(path) as file:
        for rank, token in ranks:
            file.write(base64.b64encode(token) + b" %d\n" % rank)
    print(f"tokenizer: {profile.vocab_size} tokens in {time.monotonic() - start:.1f}s", flush=True)


def read_ranks(path: Path) -> dict[bytes, int]:
    pairs = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def load_tokenizer(env: Environment) -> tiktoken.Encoding:
    return _tokenizer(env.folder / "tokenizer.tiktoken")


def _tokenizer(path: Path) -> tiktoken.Encoding:
    import tiktoken

    ranks = read_ranks(path)
    return tiktoken.Encoding(
        "experiment", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={BOS: len(ranks)}
    )


def count_token_bytes(ranks: dict[bytes, int]) -> np.ndarray:
    """Bytes per token id; 0 for the special token.

    Counted on the token's bytes, never on its text: half a character decodes to a replacement
    character of three bytes, which would flatter the score.
    """
    counts = np.zeros(len(ranks) + 1, dtype=np.int32)
    for token, rank in ranks.items():
        counts[rank] = len(token)
    return counts


def encode_documents(
    tokenizer: tiktoken.Encoding, texts: list[str], threads: int = 8
) -> list[np.ndarray]:
    """Token ids of each text, BOS first."""
    bos = tokenizer.encode_single_token(BOS)
    rows = tokenizer.encode_ordinary_batch(texts, num_threads=threads)
    return [np.array([bos, *row], dtype=np.uint16) for row in rows]


# ---------------------------------------------------------------------------
# cpu profile: the standard library and torch's tests
# ---------------------------------------------------------------------------


def read_sources(root: Path, skipped: set[str]) -> Iterator[tuple[str, bytes]]:
    """Path below `root` and content of each Python file outside of the skipped folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py"):
                yield path.relative_to(root).as_posix(), path.read_bytes()


def read_stdlib() -> list[tuple[str, bytes]]:
    """Name and content of the interpreter's modules, in the order of names, no content twice."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files: list[tuple[str, bytes]] = []
    seen: set[bytes] = set()
    for name, content in read_sources(root, STDLIB_SKIPPED_FOLDERS):
        # _sysconfigdata records how this very interpreter was built: paths, not prose.
        if name.rpartition("/")[2].startswith("_sysconfigdata"):
            continue
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if content and content not in seen:
            seen.add(content)
            files.append((name, content))
    if sum(len(content) for _, content in files) < 2**22:
        raise fail(f"found too little source text of the standard library in {root}")
    return sorted(files)


def find_tests() -> Path:
    """The folder of torch's tests, links resolved; torch itself is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        raise fail("torch is not installed: `pip install .` here brings it")
    return Path(spec.origin).parent.resolve() / TESTS


def read_tests() -> list[tuple[str, bytes]]:
    """Name and content of torch's tests, in the order of names."""
    root = find_tests()
    found = read_sources(root, TESTS_SKIPPED_FOLDERS)
    files = [(f"torch/{TESTS}/{n}", c) for n, c in found if c and n not in TESTS_IN_USE]
    if sum(len(content) for _, content in files) < 2**22:
        raise fail(f"{root} lacks the tests that come with torch: install torch by pip, which "
                   "brings them (some distributions leave them out)")
    return sorted(files)


def side_of(name: str) -> str:
    """train, val or private; by the name alone, so a file stays there in every version."""
    if not name.startswith(f"torch/{TESTS}/"):
        return "train"
    place = int(sha256(name.encode())[:8], 16) % 100
    for side, percent in TESTS_PERCENT.items():
        if place < percent:
            return side
        place -= percent
    return "train"


def withheld(env: Environment) -> dict[str, list[str]]:
    """Folders of this machine that no training may read, and which files in them it needs."""
    return {str(find_tests()): sorted(TESTS_IN_USE)} if env.profile.name == "cpu" else {}


def prepare_cpu(env: Environment) -> None:
    library, tests = read_stdlib(), read_tests()
    files = [*library, *tests]
    train = [content.decode() for name, content in files if side_of(name) == "train"]
    print(f"data: {len(library)} files of the standard library, {len(tests)} of torch", flush=True)
    tokenizer_path = env.folder / "tokenizer.tiktoken"
    train_tokenizer(train, env.profile, tokenizer_path)
    tokenizer = _tokenizer(tokenizer_path)
    stream = np.concatenate(encode_documents(tokenizer, train))
    save_array(env.folder / "train.npy", stream)
    T = env.profile.sequence_length

    def held_out(side: str) -> np.ndarray:
        texts: list[str] = []
        left = EVAL_BYTES
        # In the order of a hash: the names' order would score one corner of the tests only.
        for _, content in sorted((sha256(n.encode()), c) for n, c in files if side_of(n) == side):
            text = content.decode()[: min(EVAL_FILE_CHARS, left)]
            texts.append(text)
            left -= len(text.encode())
            if left <= 0:
                break
        tokens = np.concatenate(encode_documents(tokenizer, texts))
        # Neighbouring rows share one token: the last target of one is the first input of the next.
        return np.stack([tokens[r * T : r * T + T + 1] for r in range((len(tokens) - 1) // T)])

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    torch_version = importlib.metadata.version("torch").partition("+")[0]  # +cpu, +cu130: one text
    dataset = f"python-stdlib-{python}-torch-{torch_version}"
    hashes = [[name, sha256(content)] for name, content in files]
    splits = {"val": held_out("val"), "private": held_out("private")}
    write_manifest(env, dataset, hashes, ["train.npy"], len(stream), splits)


# ---------------------------------------------------------------------------
# gpu profile: climbmix shards
# ---------------------------------------------------------------------------


class DownloadError(Exception):
    """A download that another attempt may save."""


class _LinkedHeaders(urllib.request.HTTPRedirectHandler):
    """Keeps what the hub says of a file (size, SHA-256) before it redirects to the storage."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.digest: str | None = None

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if (headers.get("X-Linked-Size") or "").isdecimal():
            self.size = int(headers["X-Linked-Size"])
        etag = (headers.get("X-Linked-ETag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            self.digest = etag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, path: Path, stop: threading.Event, tell: Callable[[float], None] = lambda share: None
) -> None:
    """Fetch `url` into `path`, going on where an earlier attempt stopped; size and hash agree.

    `tell` is called with the share of the file that is there, 0 to 1.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    for attempt in range(DOWNLOAD_ATTEMPTS):
        if attempt:
            seconds = min(30, 2**attempt)
            print(f"{path.name}: {reason}; again in {seconds}s", file=sys.stderr, flush=True)
            stop.wait(seconds)
        if stop.is_set():
            return
        try:
            return _download_once(url, path, stop, tell)
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code in (401, 403, 404, 410):
                break
        except urllib.error.URLError as error:
            reason = f"no connection: {error.reason}"
        except (DownloadError, OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in DISK_IS_FULL:
                raise
            reason = str(error) or type(error).__name__
    raise fail(f"cannot download {url}: {reason} (TRAIN_DATA_MIRROR can name another address)")


def _download_once(
    url: str, path: Path, stop: threading.Event, tell: Callable[[float], None]
) -> None:
    partial = path.with_name(path.name + ".part")  # Kept after a failure: the next attempt resumes.
    have = partial.stat().st_size if partial.exists() else 0
    linked = _LinkedHeaders()
    request = urllib.request.Request(url, headers={"User-Agent": "agenthub-experiment"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.build_opener(linked).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # More bytes here than there, or a whole file never renamed.
            partial.unlink()
            raise DownloadError("the partial file did not fit and was dropped") from error
        raise
    with response:
        resumed = getattr(response, "status", None) == 206
        length = response.headers.get("Content-Length")
        size = linked.size or (int(length) + (have if resumed else 0) if length else None)
        with open(partial, "ab" if resumed else "wb") as file:
            while not stop.is_set() and (block := response.read(2**20)):
                file.write(block)
                if size:
                    tell(file.tell() / size)
    if stop.is_set():
        return
    got = partial.stat().st_size
    if size is not None and got != size:
        if got > size:
            partial.unlink()
        raise DownloadError(f"{path.name} is cut short: {got} of {size} bytes")
    if linked.digest and sha256_file(partial) != linked.digest:
        partial.unlink()
        raise DownloadError(f"{path.name} is damaged: its SHA-256 differs from the hub's")
    os.replace(partial, path)


def shard_name(index: int) -> str:
    return f"shard_{index:05d}.parquet"


def require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise fail("the gpu profile reads parquet: pip install pyarrow") from None


def read_shard(path: Path) -> Iterator[list[str]]:
    """The documents of a shard, one row group at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=["text"]).column("text").to_pylist()
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise fail(f"{path} is damaged ({reason}): delete it and run prepare.py again") from error


def pack_rows(documents: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Rows of `length` tokens that begin with BOS and hold no padding.

    Best fit: the longest waiting document that still fits goes in; when none does, the shortest is
    cut to fill the row and its rest is dropped.
    """
    documents = iter(documents)
    waiting: list[tuple[int, int]] = []  # (length, serial number), sorted
    texts: dict[int, np.ndarray] = {}
    serial = 0
    while True:
        row, filled = np.empty(length, dtype=np.uint16), 0
        while filled < length:
            while len(waiting) < PACK_POOL and (document := next(documents, None)) is not None:
                bisect.insort(waiting, (len(document), serial))
                texts[serial] = document
                serial += 1
            if not waiting:
                return
            best = bisect.bisect_right(waiting, (length - filled, serial)) - 1
            document = texts.pop(waiting.pop(max(best, 0))[1])[: length - filled]
            row[filled : filled + len(document)] = document
            filled += len(document)
        yield row


def download_all(urls: list[str], paths: list[Path]) -> None:
    """Fetch several at a time; a failure or Ctrl-C stops the others, which may be resumed."""
    stop = threading.Event()
    shares = dict.fromkeys(paths, 0.0)
    bar = ProgressBar("data", len(paths))
    with ThreadPoolExecutor(4) as pool:

        def fetch(url: str, path: Path) -> Path:
            download(url, path, stop, lambda share: shares.update({path: share}))
            return path

        jobs = {pool.submit(fetch, url, path) for url, path in zip(urls, paths, strict=True)}
        try:
            while jobs:
                done, jobs = wait(jobs, timeout=0.2, return_when=FIRST_COMPLETED)
                for job in done:
                    path = job.result()
                    shares[path] = 1.0
                    bar.item(f"{path.name} {path.stat().st_size / 1e6:.0f} MB")
                if jobs:
                    bar.draw(sum(shares.values()) / len(paths))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            bar.leave()
            raise


def prepare_gpu(env: Environment, shards: int) -> None:
    require_pyarrow()  # Better now than after a gigabyte of downloads.
    raw = env.data / "gpu" / "shards"
    indexes = [*range(shards), CLIMBMIX_PRIVATE_SHARD, CLIMBMIX_VAL_SHARD]
    paths = [raw / shard_name(index) for index in indexes]
    missing = [path for path in paths if not path.exists()]
    print(f"data: {len(paths) - len(missing)} of {len(paths)} shards in {raw}", flush=True)
    download_all([f"{env.mirror}/{path.name}" for path in missing], missing)
    hashes = [[path.name, sha256_file(path)] for path in paths]

    tokenizer_path = env.folder / "tokenizer.tiktoken"
    if not tokenizer_path.exists():
        print("tokenizer: learning its merges from the first shards", flush=True)
        texts = (text for path in paths[:-2] for group in read_shard(path) for text in group)
        train_tokenizer(texts, env.profile, tokenizer_path)
    tokenizer = _tokenizer(tokenizer_path)

    def documents(path: Path) -> Iterator[np.ndarray]:
        for group in read_shard(path):
            yield from encode_documents(tokenizer, group, threads=os.cpu_count() or 1)

    train_files, train_tokens = [], 0
    bar = ProgressBar("tokens", shards)
    bar.draw(0)
    for path, (_, digest) in zip(paths[:-2], hashes, strict=False):
        tokens_path = env.folder / f"{path.stem}-{digest[:8]}.npy"
        if not tokens_path.exists():
            found = list(documents(path))
            if not found:
                raise fail(f"{path} holds no documents: delete it and run prepare.py again")
            save_array(tokens_path, np.concatenate(found))
        train_files.append(tokens_path.name)
        train_tokens += len(np.load(tokens_path, mmap_mode="r"))
        bar.item(f"{train_tokens:,} of {path.name} and before")

    def held_out(path: Path) -> np.ndarray:
        rows: list[np.ndarray] = []
        for row in pack_rows(documents(path), env.profile.sequence_length + 1):
            rows.append(row)
            if len(rows) == env.profile.eval_rows:
                break
        if not rows:
            raise fail(f"{path} holds less than one row of validation text")
        return np.stack(rows)

    splits = {"val": held_out(paths[-1]), "private": held_out(paths[-2])}
    write_manifest(env, "climbmix-400b-shuffle", hashes, train_files, train_tokens, splits)


# ---------------------------------------------------------------------------
# Manifest and fingerprint
# ---------------------------------------------------------------------------


# What a training may read before its clock starts, beside the manifest.
HANDED_OUT = ["tokenizer.tiktoken", "token_bytes.npy"]


def write_manifest(
    env: Environment,
    dataset: str,
    files: list[list[str]],
    train_files: list[str],
    train_tokens: int,
    splits: dict[str, np.ndarray],
) -> None:
    """Store the validation rows and the byte counts, then say what the whole is made of."""
    tokenizer_path = env.folder / "tokenizer.tiktoken"
    token_bytes = count_token_bytes(read_ranks(tokenizer_path))
    splits = {name: rows.astype("<u2") for name, rows in splits.items()}
    for name, rows in splits.items():
        save_array(env.folder / f"{name}.npy", rows)
    save_array(env.folder / "token_bytes.npy", token_bytes)
    names = [*train_files, "val.npy", "private.npy", "token_bytes.npy", "tokenizer.tiktoken"]
    manifest = {
        "identity": {
            "dataset": dataset,
            "files": files,
            "tokenizer": sha256(tokenizer_path.read_bytes()),
            "token_bytes": sha256(token_bytes.astype("<i4").tobytes()),
            "sequence_length": env.profile.sequence_length,
            "eval_tokens": sha256(splits["val"].tobytes()),
            "private_tokens": sha256(splits["private"].tobytes()),
            "template_version": TEMPLATE_VERSION,
        },
        "train_files": train_files,
        "train_tokens": train_tokens,
        "sizes": {name: (env.folder / name).stat().st_size for name in names},
    }
    with atomic_write(env.folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())


def find_manifest(env: Environment) -> dict[str, Any] | None:
    """The manifest, if there is one and every file it names has the size it says."""
    try:
        manifest = json.loads((env.folder / "manifest.json").read_bytes())
        wanted = manifest["sizes"]
        if env.gate:  # The worker has the rest.
            wanted = {name: wanted[name] for name in HANDED_OUT}
        sizes = {name: (env.folder / name).stat().st_size for name in wanted}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if sizes == wanted else None


def get_manifest(env: Environment) -> dict[str, Any]:
    manifest = find_manifest(env)
    if manifest is None:
        name = env.profile.name
        command = f"python prepare.py --profile {name} --data {env.data}"
        raise fail(f"no {name} data in {env.data}: run `{command}`")
    return manifest


def fingerprint(manifest: dict[str, Any]) -> str:
    """64 hex digits; scores are comparable only where these agree."""
    return sha256(json.dumps(manifest["identity"], sort_keys=True, separators=(",", ":")).encode())


def layout(env: Environment) -> dict[str, Any]:
    """For a worker that scores itself: its files, and the shape of what a model takes and gives."""
    manifest = get_manifest(env)
    return {
        "folder": str(env.folder),
        "below": f"{env.profile.name}/v{TEMPLATE_VERSION}",
        "handed_out": ["manifest.json", *HANDED_OUT],
        "train": manifest["train_files"],
        "rows": {"file": "private.npy", "sha256": manifest["identity"]["private_tokens"]},
        "token_bytes": {"file": "token_bytes.npy", "sha256": manifest["identity"]["token_bytes"]},
        "sequence_length": env.profile.sequence_length,
        "vocab_size": env.profile.vocab_size,
    }


# ---------------------------------------------------------------------------
# Loader
# ---------------------------------------------------------------------------


def make_loader(
    env: Environment, batch_size: int, device: torch.device, sequence_length: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless training batches: inputs and targets (batch_size, T); the order follows the seed.

    A thread packs them and sends them to the device ahead of their use; `close()` ends it.
    """
    T = sequence_length or env.profile.sequence_length
    manifest = get_manifest(env)
    if manifest["train_tokens"] < 2 * (T + 1):
        raise fail(f"{env.folder} holds only {manifest['train_tokens']} tokens to train on")
    random = np.random.default_rng(env.seed)
    cpu = env.profile.name == "cpu"
    rows = (_stream_rows if cpu else _packed_rows)(env, manifest, T, random)
    return _work_ahead(_make_batches(rows, batch_size, device))


def _make_batches(
    rows: Iterator[np.ndarray], batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)  # Each thread has its own.
    while True:
        batch = torch.from_numpy(np.stack([next(rows) for _ in range(batch_size)]).astype(np.int64))
        if device.type == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        else:
            batch = batch.to(device)
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def _work_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Iterate in a thread, BATCHES_AHEAD items ahead; what goes wrong there is raised here."""
    ready: queue.Queue[Any] = queue.Queue(BATCHES_AHEAD)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                ready.put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), BaseException):
            yield item
        raise item
    finally:
        stop.set()
        with suppress(queue.Empty):
            while True:  # Make room, in case it waits for that.
                ready.get_nowait()
        thread.join()


def _open_tokens(env: Environment, manifest: dict[str, Any]) -> list[np.ndarray]:
    if env.gate:
        return _open_gate(env.gate).tokens()
    return [np.load(env.folder / name, mmap_mode="r") for name in manifest["train_files"]]


def _stream_rows(
    env: Environment, manifest: dict[str, Any], T: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    # Every epoch cuts the stream at another offset and visits each row once.
    tokens = np.array(_open_tokens(env, manifest)[0])
    while True:
        offset = int(random.integers(T))
        for row in random.permutation((len(tokens) - 1 - offset) // T):
            start = offset + int(row) * T
            yield tokens[start : start + T + 1]


def _packed_rows(
    env: Environment, manifest: dict[str, Any], T: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    def documents() -> Iterator[np.ndarray]:
        shards = _open_tokens(env, manifest)
        while True:
            for index in random.permutation(len(shards)):
                tokens = shards[index]
                starts = np.flatnonzero(tokens == tokens[0])  # Every shard opens with BOS.
                for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
                    yield tokens[start:end]

    return pack_rows(documents(), T + 1)


# ---------------------------------------------------------------------------
# Metric
# ---------------------------------------------------------------------------


def evaluate_bpb(
    model: Callable[[torch.Tensor], torch.Tensor], env: Environment, batch_size: int = 32
) -> float | None:
    """Bits the model needs per byte of the public split: val_bpb, lower is better.

    None under a worker that scores itself: it does so on the private split, after the training.

    The model is given tokens (B, T) and answers with logits (B, T, vocabulary); it never sees a
    target. Special tokens have no bytes and are left out of both sums. The logits at a position may
    depend only on that row up to that position.
    """
    if env.gate:
        return None
    identity = get_manifest(env)["identity"]
    rows = np.load(env.folder / "val.npy")
    token_bytes = np.load(env.folder / "token_bytes.npy")
    found = sha256(rows.tobytes()), sha256(token_bytes.astype("<i4").tobytes())
    if found != (identity["eval_tokens"], identity["token_bytes"]):
        raise fail(f"the validation data in {env.folder} is damaged: delete it and prepare again")
    return score_rows(model, rows, token_bytes, batch_size)


def score_rows(
    model: Callable[[torch.Tensor], torch.Tensor],
    rows: np.ndarray,
    token_bytes: np.ndarray,
    batch_size: int,
) -> float:
    """Bits per byte of the rows: each row's first token is context only, the others are scored."""
    import torch

    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    device = next((p.device for p in parameters), torch.device("cpu"))
    byte_counts = torch.from_numpy(token_bytes).to(device)
    batch_size = min(batch_size, len(rows))
    nats = torch.zeros((), dtype=torch.float64)
    scored_bytes = 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            count = len(batch)
            # The last batch is filled up with rows that are not scored: all have one shape.
            batch = np.concatenate([batch, rows[: batch_size - count]]).astype(np.int64)
            tokens = torch.from_numpy(batch).to(device)
            logits = model(tokens[:, :-1].clone())
            shape, wanted = tuple(logits.shape), (batch_size, rows.shape[1] - 1, len(token_bytes))
            if shape != wanted:
                raise ValueError(f"the model must return logits of shape {wanted}, not {shape}")
            targets = tokens[:count, 1:]
            # Row by row: a whole batch in float32 may not fit.
            for row_logits, row_targets in zip(logits[:count], targets, strict=True):
                row_logits = row_logits.float()
                chosen = row_logits.gather(1, row_targets[:, None])[:, 0]
                row_nats = torch.logsumexp(row_logits, dim=-1) - chosen
                row_bytes = byte_counts[row_targets]
                nats += (row_nats * (row_bytes > 0)).cpu().double().sum()
                scored_bytes += int(row_bytes.sum())
    bits = float(nats) / math.log(2)
    if not math.isfinite(bits):
        raise ValueError("the model's logits are not finite")
    return bits / scored_bytes


# ---------------------------------------------------------------------------
# Main
# ---------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare data and tokenizer of an experiment.")
    option = parser.add_argument
    option("--profile", choices=sorted(PROFILES), help="default: TRAIN_PROFILE, pyproject.toml")
    option("--data", metavar="DIR", help="default: TRAIN_DATA or ~/.cache/agenthub/data")
    option("--shards", type=int, metavar="N", help=f"gpu: to train on (default {CLIMBMIX_SHARDS})")
    option("--fingerprint", action="store_true", help="print the fingerprint of what is prepared")
    option("--dataset", action="store_true", help="print the short name of what is prepared")
    option("--layout", action="store_true", help="print what a worker hands to whom, as JSON")
    option("--withheld", action="store_true", help="print what trainings must not read, as JSON")
    args = parser.parse_args()
    if args.shards is not None and not 1 <= args.shards <= CLIMBMIX_PRIVATE_SHARD:
        raise fail(f"--shards must be 1 to {CLIMBMIX_PRIVATE_SHARD}")
    env = read_environment(args.profile, args.data)
    if args.withheld:
        print(json.dumps(withheld(env)))
        return
    if args.fingerprint or args.dataset or args.layout:
        manifest = get_manifest(env)
        if args.fingerprint:
            print(fingerprint(manifest))
        if args.dataset:
            print(env.profile.dataset)
        if args.layout:
            print(json.dumps(layout(env)))
        return

    def is_ready() -> bool:
        manifest = find_manifest(env)
        wanted = args.shards if env.profile.name == "gpu" else None
        return manifest is not None and wanted in (None, len(manifest["train_files"]))

    if not is_ready():
        print(f"preparing {env.profile.name} data in {env.data}", flush=True)
        try:
            with preparing_alone(env):
                if is_ready():
                    pass  # Another process did it in the meantime.
                elif env.profile.name == "cpu":
                    prepare_cpu(env)
                else:
                    prepare_gpu(env, args.shards or CLIMBMIX_SHARDS)
        except OSError as error:
            advice = "free some space, or name another folder with --data"
            hint = f" ({advice})" if error.errno in DISK_IS_FULL else ""
            raise fail(f"cannot write to {env.data}: {error.strerror or error}{hint}") from error
        except ImportError as error:
            raise fail(f"{error}: `pip install .` here brings what is missing") from error
    manifest = get_manifest(env)
    tokens = manifest["train_tokens"]
    print(f"ready: {env.profile.name} {tokens} tokens fingerprint {fingerprint(manifest)}")


if __name__ == "__main__":
    run(main, "run it again to go on")
