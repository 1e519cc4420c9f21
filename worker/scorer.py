"""Scorer: trusted, owns the private rows; asks model servers for logits and computes bits itself.

Run by the worker with the interpreter that has numpy: `python scorer.py DESCRIPTOR JSON`. Each
line of JSON on the socket, with the descriptors of a model server's socket and of the checkpoint,
is one pass: `score` for bits per byte, `audit` for what a model knew that it should not. Whatever
a server writes is copied before it is read.
"""

import hashlib
import json
import mmap
import os
import secrets
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

NUMBER = 4  # bytes of a number on the socket
LINE_BYTES = 4096
#: First distance to the cut of each bucket, in tokens; a look-ahead shows next to the cut only.
BUCKETS = (1, 2, 9, 65, 513)
#: A log-probability that moves more than this, in nats, is looked at.
GAP = 0.1
#: Such moves count when they make up this much per position of their bucket, in nats.
GAP_PART = 1e-3
#: Mean gaps count from so many standard errors and nats on.
Z, MEAN_GAP = 4.0, 5e-4
#: Instead of a gap that is no number.
NO_NUMBER = 100.0
AUDIT_PART_MIN = 0.05


class ServerFailed(Exception):
    """The model server did not do its part."""

    def __init__(self, why: dict[str, Any]) -> None:
        self.why = why


@dataclass(frozen=True)
class Bucket:
    """How log-probabilities moved at one distance from the cut when the text behind it changed."""

    distance: int
    positions: int
    largest: float
    #: Of moves beyond GAP, per position.
    excess: float
    mean: float
    z: float

    @property
    def is_odd(self) -> bool:
        return self.excess >= GAP_PART or (self.z > Z and self.mean >= MEAN_GAP)


class Server:
    """One model server, and the memory shared with it."""

    def __init__(self, line: socket.socket, checkpoint: int, plan: dict[str, Any]) -> None:
        self.line = line
        T, V, rows = plan["sequence_length"], plan["vocab_size"], plan["batch"]
        tokens, self.tokens = share((rows, T), np.uint16)
        logits, self.logits = share((rows, T, V), np.float32)
        self.copy = np.empty((rows, T, V), np.float32)
        size = os.fstat(checkpoint).st_size
        head = {"do": "serve", "checkpoint_bytes": size, **plan}
        socket.send_fds(line, [json.dumps(head).encode() + b"\n"], [checkpoint, tokens, logits])
        for file in (tokens, logits):
            os.close(file)
        answer = read_line(line)
        if answer.get("stage") != "":
            raise ServerFailed(answer)

    def ask(self, rows: np.ndarray) -> None:
        self.tokens[: len(rows)] = rows
        self._send(len(rows))

    def take(self, count: int) -> np.ndarray:
        """A copy of the logits, which the server cannot change any more."""
        try:
            answer = self.line.recv(NUMBER, socket.MSG_WAITALL)
        except OSError:
            answer = b""
        if answer != count.to_bytes(NUMBER, "little"):
            raise ServerFailed({"stage": "scoring", "kind": "crash", "why": "it ended"})
        self.copy[:count] = self.logits[:count]
        return self.copy[:count]

    def _send(self, count: int) -> None:
        try:
            self.line.sendall(count.to_bytes(NUMBER, "little"))
        except OSError as error:
            raise ServerFailed({"stage": "scoring", "kind": "crash", "why": "it ended"}) from error


class Scorer:
    def __init__(self, plan: dict[str, Any]) -> None:
        T = plan["sequence_length"]
        self.plan = {name: plan[name] for name in ("sequence_length", "vocab_size", "batch")}
        self.rows = load(plan, "rows").astype(np.uint16)
        self.bytes = load(plan, "token_bytes").astype(np.int64)
        if self.rows.shape[1] != T + 1 or len(self.bytes) != plan["vocab_size"]:
            raise SystemExit("the private split does not have the shape it should")
        self.is_on_gpu = plan["is_on_gpu"]
        self.until = time.monotonic() + plan["seconds"]
        self.random = np.random.default_rng(secrets.randbits(128))
        self.log_p = np.empty((len(self.rows), T))
        self.seconds = 0.0

    def score(self, server: Server) -> dict[str, Any]:
        """Bits per byte over all rows, in secret order; remembers every log-probability."""
        started = time.monotonic()
        order = self.random.permutation(len(self.rows))
        for places, log_p in self._pass(server, order, self.rows):
            self.log_p[places] = log_p
        self.seconds = time.monotonic() - started
        counts = self.bytes[self.rows[:, 1:]]
        nats = -self.log_p[counts > 0].sum()
        bpb = float(nats / np.log(2) / counts.sum())
        return {"val_bpb": bpb if np.isfinite(bpb) else None, "rows": len(self.rows)}

    def audit(self, server: Server) -> dict[str, Any]:
        """The rows in another order, each with the text behind a random cut replaced."""
        count, T = len(self.rows), self.rows.shape[1] - 1
        left = max(0.0, self.until - time.monotonic())
        part = min(1.0, max(AUDIT_PART_MIN, left / 3 / max(self.seconds, 1e-3)))
        order = self.random.permutation(count)[: max(2, round(part * count))]
        cuts = self.random.integers(1, T, count)
        others = (np.arange(count) + self.random.integers(1, count, count)) % count
        behind = np.arange(T + 1) >= cuts[:, None]
        rows = np.where(behind, self.rows[others], self.rows)
        moved = np.zeros((count, T))
        for places, log_p in self._pass(server, order, rows, self.rows):
            moved[places] = np.nan_to_num(self.log_p[places] - log_p, True, NO_NUMBER, NO_NUMBER)
        distance = cuts[:, None] - np.arange(T)
        buckets = [
            bucket
            for first, end in zip(BUCKETS, (*BUCKETS[1:], T + 1), strict=True)
            if (bucket := measure(moved[order], distance[order], first, end)) is not None
        ]
        return {
            "rows": len(order),
            "is_suspicious": any(b.is_odd or b.largest > GAP for b in buckets),
            "odd": [b.distance for b in buckets if b.is_odd],
            "buckets": [asdict(b) for b in buckets],
        }

    def _pass(self, server: Server, order: Any, rows: Any, targets: Any = None) -> Any:
        """Places of rows and the log-probability of what follows each of their tokens."""
        targets = rows if targets is None else targets
        size = self.plan["batch"]
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        server.ask(rows[batches[0], :-1])
        for places, later in zip(batches, [*batches[1:], None], strict=True):
            logits = server.take(len(places))
            if later is not None:
                server.ask(rows[later, :-1])  # It computes while we do.
            yield places, log_probabilities(logits, targets[places, 1:], self.is_on_gpu)


def measure(moved: Any, distance: Any, first: int, end: int) -> Bucket | None:
    inside = (distance >= first) & (distance < end)
    found = moved[inside]
    if not len(found):
        return None
    size = np.abs(found)
    # Positions of one row move together: rows are the sample.
    sums, counts = (moved * inside).sum(axis=1), inside.sum(axis=1)
    mean = found.mean()
    spread = np.sqrt(np.square(sums - mean * counts).sum()) / counts.sum()
    return Bucket(
        distance=first,
        positions=len(found),
        largest=float(size.max()),
        excess=float(size[size > GAP].sum() / len(size)),
        mean=float(mean),
        z=float(mean / spread) if spread else 0.0,
    )


def log_probabilities(logits: Any, targets: Any, is_on_gpu: bool) -> Any:
    """Of the targets, normalized over the whole vocabulary here; alters `logits`."""
    found = np.empty(targets.shape)
    places = np.arange(targets.shape[1])
    if is_on_gpu:
        import torch

        for i, row in enumerate(logits):
            log_p = torch.log_softmax(torch.from_numpy(row).cuda(), dim=-1)
            chosen = torch.from_numpy(targets[i].astype(np.int64)).cuda()
            found[i] = log_p.gather(1, chosen[:, None])[:, 0].double().cpu().numpy()
        return found
    with np.errstate(all="ignore"):  # What is no number is told by the sum.
        for i, row in enumerate(logits):
            row -= row.max(axis=1, keepdims=True)
            chosen = row[places, targets[i]].astype(float)
            found[i] = chosen - np.log(np.exp(row, out=row).sum(axis=1, dtype=float))
    return found


def share(shape: tuple[int, ...], kind: Any) -> tuple[int, Any]:
    """Memory that two processes can have, as a descriptor and as an array."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    file = os.memfd_create("agenthub", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    import fcntl

    # A server that made it shorter would kill whoever reads it.
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file, np.frombuffer(mmap.mmap(file, size), dtype=kind).reshape(shape)


def load(plan: dict[str, Any], name: str) -> Any:
    content = np.load(Path(plan["folder"], plan[name]["file"]))
    kind = "<u2" if name == "rows" else "<i4"
    if hashlib.sha256(content.astype(kind).tobytes()).hexdigest() != plan[name]["sha256"]:
        raise SystemExit(f"{plan[name]['file']} is damaged: delete the data and prepare it again")
    return content


def read_line(line: socket.socket) -> dict[str, Any]:
    """A server's word; whatever else comes is a failure of it."""
    said = b""
    while not said.endswith(b"\n") and len(said) < LINE_BYTES:
        try:
            more = line.recv(1)
        except OSError:
            more = b""
        if not more:
            return {"stage": "starting", "kind": "crash", "why": "it ended"}
        said += more
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("stage"), str):
        return {"stage": "starting", "kind": "crash", "why": "it answered nonsense"}
    return answer


def main() -> None:
    worker = socket.socket(fileno=int(sys.argv[1]))
    scorer = Scorer(json.loads(sys.argv[2]))
    while True:
        said, files, _, _ = socket.recv_fds(worker, LINE_BYTES, 2)
        if not said:
            return
        act = {"score": scorer.score, "audit": scorer.audit}[json.loads(said)["do"]]
        started = time.monotonic()
        line = socket.socket(fileno=files[0])
        try:
            server = Server(line, files[1], scorer.plan)
            served = time.monotonic()
            answer = act(server)
            answer |= {"load_seconds": served - started, "seconds": time.monotonic() - served}
        except ServerFailed as error:
            answer = {"failed": error.why}
        line.close()
        os.close(files[1])
        worker.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
