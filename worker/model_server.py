"""Model server: the commit's model, behind a socket; tokens come in and logits go out.

Run in a sandbox of its own, by the interpreter that has torch, in the commit's folder:
`python model_server.py DESCRIPTOR`. It imports nothing of the commit before it is told to begin.
What it prints once it has seen tokens of the private split reaches nobody.

A request is a line of JSON with descriptors. `serve` brings the checkpoint and two pieces of
memory, for tokens and for logits; then each number of rows that comes is answered with the
same number, when their logits are in the memory. `fresh` brings checkpoint, rows and byte counts,
and is answered with a score of this process's own.
"""

import importlib
import json
import mmap
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

NUMBER = 4  # bytes of a number on the socket


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = str(Path.cwd())
    import numpy as np
    import safetensors.torch  # noqa: F401 - so that it is there when the clock of scoring runs
    import torch

    prepare: Any = importlib.import_module("prepare")
    wanted, files = hear(line)
    stage = "importing train.py"
    try:
        env = prepare.read_environment()
        device = prepare.start_torch(env)
        train: Any = importlib.import_module("train")
        stage = "build_model()"
        model = train.build_model().to(device)
        stage = "loading the checkpoint"
        prepare.load_checkpoint(model, os.pread(files[0], wanted["checkpoint_bytes"], 0))
        model.eval()
        stage = "a forward pass on made-up tokens"
        rows, T, V = wanted["batch"], wanted["sequence_length"], wanted["vocab_size"]
        tokens = torch.randint(V, (rows, T), device=device)
        forward(torch, model, tokens, (rows, T, V))
        if wanted["do"] == "fresh":
            stage = "scoring"
            val, counts = (
                map_array(np, file, how) for file, how in zip(files[1:], "HI", strict=True)
            )
            score = prepare.score_rows(model, val.reshape(-1, T + 1), counts.astype("i4"), rows)
            say(line, {"val_bpb": score})
            return
    except BaseException as error:
        traceback.print_exc()
        kind = "oom" if is_out_of_memory(torch, error) else "crash"
        reason = (str(error).splitlines() or [""])[0][:300]
        say(line, {"stage": stage, "kind": kind, "why": f"{type(error).__name__}: {reason}"})
        return
    say(line, {"stage": ""})
    inputs = map_array(np, files[1], "H").reshape(rows, T)
    outputs = map_array(np, files[2], "f", writable=True).reshape(rows, T, V)
    while number := line.recv(NUMBER, socket.MSG_WAITALL):
        count = int.from_bytes(number, "little")
        batch = torch.from_numpy(inputs[:count].astype(np.int64)).to(device)
        logits = forward(torch, model, batch, (count, T, V))
        torch.from_numpy(outputs[:count]).copy_(logits)
        line.sendall(number)


def forward(torch: Any, model: Any, tokens: Any, wanted: tuple[int, ...]) -> Any:
    with torch.no_grad():
        logits = model(tokens)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits of shape {wanted}, not {found}")
    return logits


def is_out_of_memory(torch: Any, error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))


def map_array(np: Any, file: int, kind: str, writable: bool = False) -> Any:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    return np.frombuffer(mmap.mmap(file, 0, access=access), dtype=kind)


def say(line: socket.socket, what: dict[str, Any]) -> None:
    line.sendall(json.dumps(what).encode() + b"\n")


def hear(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    said, files = b"", list[int]()
    while not said.endswith(b"\n"):
        more, found, _, _ = socket.recv_fds(line, 4096, 4)
        if not more:
            sys.exit("the scorer has gone")
        said, files = said + more, files + found
    return json.loads(said), files


if __name__ == "__main__":
    main()
