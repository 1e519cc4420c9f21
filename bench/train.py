"""What does a change of train.py give? Train it beside others, seed by seed, and compare.

    python -m bench.train                                the template beside autoresearch's settings
    python -m bench.train --try DEPTH=3 --try "MATRIX_LR=0.03, WEIGHT_DECAY=0.2"
    python -m bench.train --try other/train.py --breakdown
    python -m bench.train --profile gpu --stand-in       300 s runs on a GPU, on text found here

All variants train on a seed before any trains on the next, so that a busy hour hits all alike; what
counts is the difference within a seed. On the cpu profile a budget in steps makes each score
reproducible to its last digit; a budget in seconds also pays for speed, on an idle machine only.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from bench.train_data import SHARDS, write_shards

TEMPLATE = Path(__file__).parent.parent / "train_template"
STEPS = Path(__file__).with_name("train_steps.py")
BUDGETS = {"cpu": "1000steps", "gpu": "300s"}

#: What autoresearch's baseline sets, in the words of our train.py; its model scales the learning
#: rates of AdamW with (width / 768) ** -0.5.
ARCHITECTURE = {
    "SOFTCAP": "15",
    "INIT_SCALE": "1.0",
    "RESID_INIT": "(1.0, 1.0)",
    "X0_INIT": "(0.1, 0.1)",
    "BACKOUT_INIT": "0",  # Nothing is mixed in or taken out, and it stays so:
    "MIXING_LR": "0.0",
    "QK_GAIN": "1.0",
    "GATE_CHANNELS": "32",
    "GATE_SCALE": "2",
    "ROPE_BASE": "10_000",
}
SETTINGS = {
    "MATRIX_LR": "0.04",
    "SCALAR_LR": "0.5",
    "WEIGHT_DECAY": "0.2",
    "EMBEDDING_DECAY": "0.0",
    "VALUE_DECAY": "0.0",
    "HEAD_DECAY": "0.0",
    "ADAM_BETAS": "(0.8, 0.95)",
    "EMBEDDING_BETAS": "(0.8, 0.95)",
    "MUON_MOMENTUM": "(0.85, 0.95, 0.95)",
    "MUON_WARMUP": "300",
    "MUON_BETA2": "0.95",
    "WARMDOWN_RATIO": "0.5",
    "FINAL_LR_FRAC": "0.0",
}
SHAPE = {
    "cpu": {"SHORT_WINDOW": "64"},
    "gpu": {
        "DEPTH": "8",
        "N_EMBD": "512",
        "WINDOW_PATTERN": '"SSSL"',
        "SHORT_WINDOW": "1024",
        "BATCH_SIZE": "256",
        "EMBEDDING_LR": "0.735",
        "UNEMBEDDING_LR": "0.0049",
    },
}
SHAPE["cpu"] |= {"EMBEDDING_LR": "2.08", "UNEMBEDDING_LR": "0.0139"}


@dataclass(frozen=True)
class Variant:
    """A folder with a train.py, and its scores so far."""

    name: str
    folder: Path
    runs: list[dict[str, float]] = field(default_factory=list)

    def mean(self, key: str) -> float:
        return fmean(run.get(key, float("nan")) for run in self.runs)


def main() -> None:
    given = _parse()
    _require_gpu(given.profile)
    env = _environment(given)
    _prepare(given, env)
    with tempfile.TemporaryDirectory() as name:
        variants = _make_variants(Path(name), given)
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for variant in variants:
                run = _train(variant, {**env, "TRAIN_SEED": str(seed)})
                variant.runs.append(run)
                print(f"seed {seed}: {run['val_bpb']:.4f}  {variant.name}", file=sys.stderr)
        _report(variants, given.budget)
        for variant in variants[:2] if given.breakdown or not given.tries else ():
            _report_steps(variant, env)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--profile", choices=BUDGETS, default="cpu")
    add("--budget", help="as TRAIN_BUDGET (default: 1000steps on cpu, 300s on gpu)")
    add("--seeds", type=int, default=3, metavar="N")
    add("--first-seed", type=int, default=1, metavar="N")
    add("--data", type=Path, default=Path("~/.cache/agenthub/data"), metavar="DIR")
    add("--stand-in", action="store_true", help="gpu: train on text found here, not climbmix")
    add("--try", dest="tries", action="append", default=[], metavar="NAME=VALUE,...|FILE")
    add("--breakdown", action="store_true", help="also time the parts of a step")
    given = parser.parse_args()
    given.budget = given.budget or BUDGETS[given.profile]
    given.data = given.data.expanduser() / ("stand-in" if given.stand_in else "")
    return given


def _require_gpu(profile: str) -> None:
    import torch

    if profile == "gpu" and not torch.cuda.is_available():
        raise SystemExit(
            "no GPU here, so nothing was measured; where there is one,\n"
            "    make bench-train PROFILE=gpu               on climbmix, downloaded\n"
            "    make bench-train PROFILE=gpu STAND_IN=1    on text found on that machine\n"
            "train the template and autoresearch's settings in turn, 300 s each, 3 seeds: 35 min"
        )


def _prepare(given: argparse.Namespace, env: dict[str, str]) -> None:
    command = [sys.executable, str(TEMPLATE / "prepare.py")]
    if given.stand_in:
        shards = given.data / "found"
        if not shards.exists():
            print(f"stand-in text: {write_shards(shards) / 1e6:.0f} MB", file=sys.stderr)
        command += ["--shards", str(SHARDS)]
        env["TRAIN_DATA_MIRROR"] = shards.resolve().as_uri()
    if subprocess.run(command, env=env, stdout=sys.stderr).returncode:
        raise SystemExit(1)


def _make_variants(root: Path, given: argparse.Namespace) -> list[Variant]:
    variants = [_make(root, "template", {})]
    for text in given.tries:
        if (path := Path(text).expanduser()).is_file():
            variants.append(_make(root, text, {}, path))
        else:
            pairs = re.findall(r"\s*([A-Z0-9_]+)\s*=\s*((?:\([^)]*\)|[^,(])+),?", text)
            variants.append(_make(root, text, dict(pairs)))
    if not given.tries:
        both = {**ARCHITECTURE, **SETTINGS, **SHAPE[given.profile]}
        variants.append(_make(root, "autoresearch's baseline", both))
        if given.profile == "cpu":
            variants.append(_make(root, "its architecture, our settings", ARCHITECTURE))
    return variants


def _make(
    root: Path, name: str, edits: Mapping[str, str], path: Path = TEMPLATE / "train.py"
) -> Variant:
    folder = root / str(len(list(root.iterdir())))
    folder.mkdir()
    shutil.copy(TEMPLATE / "prepare.py", folder)
    source = path.read_text()
    for constant, value in edits.items():
        source, count = re.subn(rf"(?m)^( *{constant} += ).*$", rf"\g<1>{value}", source)
        if not count:
            raise SystemExit(f"error: {path} has no constant {constant}")
    (folder / "train.py").write_text(source)
    return Variant(name, folder)


def _environment(given: argparse.Namespace) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAIN_")}
    env |= {"TRAIN_PROFILE": given.profile, "TRAIN_BUDGET": given.budget}
    env |= {"TRAIN_DATA": str(given.data), "PYTHONDONTWRITEBYTECODE": "1"}
    env["TRAIN_CHECKPOINT"] = ""
    if given.profile == "cpu":
        env["OMP_NUM_THREADS"] = "1"
    return env


def _train(variant: Variant, env: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=variant.folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        print(f"{variant.name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        return {"val_bpb": float("nan")}
    pairs = re.findall(r"(?m)^(\w+): +([\d.]+)$", done.stdout.split("---\n")[-1])
    return {key: float(value) for key, value in pairs}


def _report(variants: list[Variant], budget: str) -> None:
    base = variants[0]
    print(f"{budget}, {len(base.runs)} seeds; differences are to the first row, within a seed\n")
    print("val_bpb   difference          steps   tok/s  MFU %  GPU MB  s in all  variant")
    for variant in variants:
        deltas = [
            run["val_bpb"] - of_base["val_bpb"]
            for run, of_base in zip(variant.runs, base.runs, strict=True)
        ]
        spread = stdev(deltas) if len(deltas) > 1 else 0.0
        difference = f"{fmean(deltas):+.4f} ± {spread:.4f}" if variant is not base else ""
        mfu = f"{variant.mean('mfu_percent'):.1f}".replace("nan", "-")
        tokens = 1e6 * variant.mean("total_tokens_M") / variant.mean("training_seconds")
        print(
            f"{variant.mean('val_bpb'):.4f}    {difference:<18}{variant.mean('num_steps'):>6.0f}"
            f"{tokens:>8,.0f}{mfu:>7}"
            f"{variant.mean('peak_vram_mb'):>8.0f}{variant.mean('total_seconds'):>10.1f}"
            f"  {variant.name}"
        )


def _report_steps(variant: Variant, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, STEPS], cwd=variant.folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1])
        return
    times = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{variant.name}: " + ", ".join(f"{name} {value}" for name, value in times.items()))


if __name__ == "__main__":
    main()
