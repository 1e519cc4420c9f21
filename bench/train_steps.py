"""Where does the time of a training step go? Run in a folder with train.py and prepare.py.

Prints one JSON object: milliseconds of each part (medians; on a GPU the device is waited for after
each, so the sum is a little more than a step takes), seconds until the first step.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

STARTED = time.perf_counter()
sys.path.insert(0, str(Path.cwd()))

import torch  # noqa: E402

STEPS = 30


def main() -> None:
    import prepare
    import train

    device = prepare.start_torch(train.env)
    trainer = train.Trainer(train.build_model().to(device), device)
    startup = time.perf_counter() - STARTED
    if trainer.compiled:
        trainer.compile()
    compilation = time.perf_counter() - STARTED - startup
    wait: Callable[[], None] = torch.cuda.synchronize if trainer.compiled else lambda: None
    parts: dict[str, list[float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        wait()
        parts.setdefault(name, []).append(1000 * (time.perf_counter() - started))

    rows = trainer.accumulation
    for _ in range(STEPS * rows):
        with timed("loader"):
            trainer.next_batch()
        with timed("forward"):
            loss = trainer.batch_loss(*trainer.batch)
        with timed("backward"):
            loss.backward()
        with timed("AdamW"):
            trainer.adamw.step()
        with timed("Muon"):
            trainer.muon.step()
        trainer.model.zero_grad(set_to_none=True)
    trainer.loader.close()
    times = {name: median(values) for name, values in parts.items()}
    times = {name: ms * (1 if name in ("AdamW", "Muon") else rows) for name, ms in times.items()}
    told = {f"{name} ms": round(ms, 2) for name, ms in times.items()}
    share = f"{100 * times['loader'] / sum(times.values()):.2f}"
    told |= {"loader %": float(share), "startup s": round(startup, 1)}
    print(json.dumps(told | {"compilation s": round(compilation, 1)}))


if __name__ == "__main__":
    main()
