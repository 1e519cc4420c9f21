"""The template as agents and workers meet it: real processes, real data, a few training steps."""

import dataclasses
import http.server
import importlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rustbpe")
pytest.importorskip("tiktoken")
np = pytest.importorskip("numpy")

TEMPLATE = Path(__file__).resolve().parent.parent / "train_template"
SUMMARY = (
    r"---\n"
    r"val_bpb:          \d+\.\d{6}\n"
    r"training_seconds: \d+\.\d\n"
    r"total_seconds:    \d+\.\d\n"
    r"peak_vram_mb:     0\.0\n"
    r"mfu_percent:      unknown\n"
    r"total_tokens_M:   \d+\.\d\n"
    r"num_steps:        (\d+)\n"
    r"num_params_M:     \d+\.\d\n"
    r"depth:            \d+\n"
)


def environ(data, **variables):
    """Our environment with nothing but the given TRAIN_* variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAIN_")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "TRAIN_PROFILE": "cpu"}
    return env | {"TRAIN_DATA": str(data), "TRAIN_CHECKPOINT": ""} | variables


def run(script, *args, data, cwd=TEMPLATE, largest_file=None, **variables):
    """Run a script of the template; it can write no file of more than `largest_file` bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, script, *args],
        cwd=cwd,
        env=environ(data, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit if largest_file else None,
    )


def edited_template(folder, *edits):
    """A copy of the template whose train.py differs in the given (old, new) lines."""
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = (folder / "train.py").read_text()
    for old, new in edits:
        assert re.search(old, source), old
        source = re.sub(old, new, source, count=1)
    (folder / "train.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    result = run("prepare.py", data=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def template(data):
    """The two modules, imported as a worker's scorer would, on the cpu profile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TEMPLATE))
        patch.setattr(sys, "dont_write_bytecode", True)
        for name in (
            "PROFILE",
            "DATA",
            "DEVICE",
            "BUDGET",
            "SEED",
            "DATA_MIRROR",
            "CHECKPOINT",
            "GATE",
        ):
            patch.delenv(f"TRAIN_{name}", raising=False)
        patch.setenv("TRAIN_PROFILE", "cpu")
        patch.setenv("TRAIN_DATA", str(data))
        torch.set_num_threads(1)
        yield importlib.import_module("prepare"), importlib.import_module("train")
        for name in ("prepare", "train"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def environment(template):
    return template[0].read_environment()


@pytest.fixture
def model(template):
    """A model whose every part takes part: weights that start at zero would hide a leak."""
    torch.manual_seed(1)
    model = template[1].build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


# Preparing


def test_preparing_twice_does_nothing_and_says_the_same(data):
    folder = data / "cpu" / "v3"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = run("prepare.py", data=data)
    assert re.fullmatch(r"ready: cpu \d+ tokens fingerprint [0-9a-f]{64}\n", result.stdout)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_preparation_has_the_same_fingerprint(data, tmp_path):
    again = run("prepare.py", "--data", str(tmp_path), data=data).stdout.split()[-1]
    assert run("prepare.py", "--fingerprint", data=data).stdout == again + "\n"


def test_the_data_has_a_short_name(data):
    result = run("prepare.py", "--dataset", data=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, "stdlib+torch\n", "")


@pytest.mark.parametrize("option", ["--fingerprint", "--dataset"])
def test_what_is_prepared_is_told_without_torch(data, option):
    code = "import sys, prepare; prepare.main(); assert 'torch' not in sys.modules"
    result = run("-c", code, option, data=data)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("option", ["--fingerprint", "--dataset"])
def test_what_is_not_prepared_has_no_name(tmp_path, option):
    result = run("prepare.py", option, data=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: no cpu data .* run `python prepare\.py .*`\n", result.stderr)


def withheld(data):
    """The folder that trainings must not read, and what of it they may."""
    result = run("prepare.py", "--withheld", data=data)
    ((folder, kept),) = json.loads(result.stdout).items()
    return Path(folder), kept


def test_what_trainings_must_not_read_is_told(data):
    folder, kept = withheld(data)
    assert folder == Path(torch.__file__).resolve().parent / "testing" / "_internal"
    assert all((folder / name).is_file() for name in kept)
    result = run("prepare.py", "--withheld", data=data, TRAIN_PROFILE="gpu")
    assert (result.returncode, result.stdout) == (0, "{}\n")


@pytest.mark.stress
def test_training_needs_none_of_it(data):
    code = (
        "import json, sys, torch.distributed.fsdp, torch.utils.checkpoint, torch._inductor\n"
        "torch.compile(lambda x: x.sin() + 1)(torch.ones(9))\n"
        "print(json.dumps([getattr(m, '__file__', None) for m in [*sys.modules.values()]]))"
    )
    result = run("-c", code, data=data)
    assert result.returncode == 0, result.stderr
    folder, kept = withheld(data)
    files = [Path(name) for name in json.loads(result.stdout) if name]
    used = {str(f.relative_to(folder)) for f in files if f.is_relative_to(folder)}
    assert "common_dtype.py" in used
    assert used <= set(kept)


def test_a_torch_without_its_tests_is_told_in_one_line(tmp_path):
    (tmp_path / "path" / "torch" / "testing").mkdir(parents=True)
    (tmp_path / "path" / "torch" / "__init__.py").touch()
    result = run("prepare.py", data=tmp_path, PYTHONPATH=str(tmp_path / "path"))
    assert result.returncode == 1
    assert re.fullmatch(r"error: .* lacks the tests that come with torch: .*\n", result.stderr)


def test_a_full_disk_ends_preparing_in_one_line(tmp_path):
    result = run("prepare.py", data=tmp_path, largest_file=2**20)
    assert result.returncode == 1
    assert re.fullmatch(r"error: cannot write to .*: File too large \(free .*\)\n", result.stderr)
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("manifest.json"))


def test_a_missing_file_counts_as_not_prepared(data, tmp_path):
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cpu" / "v3" / "val.npy").unlink()
    assert run("prepare.py", "--fingerprint", data=tmp_path).returncode == 1


def test_a_failed_write_leaves_the_old_file(template, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), template[0].atomic_write(path) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "seconds", "steps"), [("300", 300, None), ("1.5s", 1.5, None), ("200steps", None, 200)]
)
def test_budget_is_seconds_or_steps(template, text, seconds, steps):
    assert template[0].Budget.parse(text) == template[0].Budget(seconds, steps)


@pytest.mark.parametrize("text", ["", "0", "-1", "5m", "1.5steps", "nan"])
def test_other_budgets_are_refused_in_one_line(template, text):
    with pytest.raises(SystemExit, match="error: TRAIN_BUDGET must look like"):
        template[0].Budget.parse(text)


# Bytes and bits


def test_token_byte_counts_add_up_to_the_bytes_of_any_text(template, environment, data):
    tokenizer = template[0].load_tokenizer(environment)
    counts = np.load(data / "cpu" / "v3" / "token_bytes.npy")
    dice = random.Random(0)
    for _ in range(200):
        ranges = dice.choices([(0, 128), (0, 0xD800), (0xE000, 0x110000)], k=50)
        text = "".join(chr(dice.randrange(*limits)) for limits in ranges)
        assert counts[tokenizer.encode_ordinary(text)].sum() == len(text.encode())


def test_the_special_token_has_no_bytes(template, environment, data):
    bos = template[0].load_tokenizer(environment).encode_single_token(template[0].BOS)
    assert np.load(data / "cpu" / "v3" / "token_bytes.npy")[bos] == 0
    assert bos == environment.profile.vocab_size - 1


def test_a_uniform_model_needs_log2_of_the_vocabulary_per_token(template, environment, data):
    V = environment.profile.vocab_size
    counts = np.load(data / "cpu" / "v3" / "token_bytes.npy")
    scored = counts[np.load(data / "cpu" / "v3" / "val.npy")[:, 1:]]
    expected = math.log2(V) * (scored > 0).sum() / scored.sum()
    bpb = template[0].evaluate_bpb(lambda tokens: torch.zeros(*tokens.shape, V), environment)
    assert bpb == pytest.approx(expected, abs=1e-6)


def test_bpb_agrees_with_a_float64_reference(template, model, data):
    counts = np.load(data / "cpu" / "v3" / "token_bytes.npy")
    rows = np.load(data / "cpu" / "v3" / "val.npy")[:21]
    tokens = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        log_p = torch.log_softmax(model(tokens[:, :-1]).double(), dim=-1)
    nats = -log_p.gather(2, tokens[:, 1:, None])[..., 0].numpy() * (counts[rows[:, 1:]] > 0)
    expected = nats.sum() / math.log(2) / counts[rows[:, 1:]].sum()
    # A batch size that does not divide the rows: the rows that fill it up must not count.
    assert template[0].score_rows(model, rows, counts, 8) == pytest.approx(expected, abs=1e-4)


def test_unnormalized_logits_gain_nothing(template, model, data):
    counts = np.load(data / "cpu" / "v3" / "token_bytes.npy")
    rows = np.load(data / "cpu" / "v3" / "val.npy")[:8]
    honest = template[0].score_rows(model, rows, counts, 8)
    shifted = template[0].score_rows(lambda tokens: model(tokens) + 50, rows, counts, 8)
    assert shifted == pytest.approx(honest, abs=1e-4)


def test_a_loss_instead_of_logits_is_refused(template, environment):
    with pytest.raises(ValueError, match="logits of shape"):
        template[0].evaluate_bpb(lambda tokens: torch.zeros(tokens.shape), environment)


def test_logits_that_are_not_finite_are_refused(template, data):
    counts = np.load(data / "cpu" / "v3" / "token_bytes.npy")
    rows = np.load(data / "cpu" / "v3" / "val.npy")[:2]
    with pytest.raises(ValueError, match="not finite"):
        template[0].score_rows(
            lambda tokens: torch.full((*tokens.shape, len(counts)), math.nan), rows, counts, 2
        )


def test_damaged_validation_data_is_refused(template, environment, data, tmp_path):
    shutil.copytree(data / "cpu", tmp_path / "cpu")
    path = tmp_path / "cpu" / "v3" / "val.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")  # Another last token, the same size.
    damaged = dataclasses.replace(environment, data=tmp_path)
    with pytest.raises(SystemExit, match="the validation data in .* is damaged"):
        template[0].evaluate_bpb(lambda tokens: torch.zeros(1), damaged)


@pytest.mark.parametrize("split", ["val", "private"])
def test_validation_text_is_not_trained_on(data, split):
    train = np.load(data / "cpu" / "v3" / "train.npy").tobytes()
    rows = np.load(data / "cpu" / "v3" / f"{split}.npy")
    known = sum(row[32:64].tobytes() in train for row in rows[::3])
    assert known < 0.05 * len(rows[::3])  # Licences and the like are in many files.


# Model


ATTENTIONS = ["plain", "flex"]  # flash exists on CUDA only: see the test with a GPU


@pytest.fixture
def attend(request, template):
    train, cpu = template[1], torch.device("cpu")
    return {"plain": train.attend_plain, "flex": train.make_flex(cpu)}[request.param]


def test_a_layer_is_windowed_and_another_is_not(model):
    windows = [block.attention.window for block in model.blocks]
    assert min(windows) < max(windows) == 128


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attend", ATTENTIONS, indirect=True)
@pytest.mark.parametrize("position", [1, 40, 127])
def test_a_changed_token_leaves_earlier_logits_bit_equal(model, attend, position):
    model.attend = attend
    tokens = torch.randint(2048, (3, 128), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, position] = (other[:, position] + 1) % 2048
    with torch.no_grad():
        a, b = model(tokens), model(other)
    assert torch.equal(a[:, :position], b[:, :position])
    assert not torch.equal(a[:, position], b[:, position])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attend", ATTENTIONS, indirect=True)
def test_attention_sees_its_window_and_no_further(template, attend):
    window = template[1].SHORT_WINDOW
    q, k, v = torch.randn(3, 1, 128, 2, 32, generator=torch.Generator().manual_seed(0))
    far = v.clone()
    far[:, 0] += 1
    a, b = attend(q, k, v, window), attend(q, k, far, window)
    assert not torch.equal(a[:, window], b[:, window])
    assert torch.equal(a[:, window + 1 :], b[:, window + 1 :])
    assert torch.allclose(a, template[1].attend_plain(q, k, v, window), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", ["make_flash", "make_flex"])
def test_attention_of_a_gpu_agrees_and_is_causal(template, make):
    train, device = template[1], torch.device("cuda", 0)
    q, k, v = torch.randn(3, 2, 128, 2, 32, device=device, dtype=torch.bfloat16)
    late = v.clone()
    late[:, 100:] += 1
    attend = getattr(train, make)(device)
    for window in (train.SHORT_WINDOW, 128):
        y = attend(q, k, v, window)
        assert torch.allclose(y, train.attend_plain(q, k, v, window), atol=0.05)
        assert torch.equal(y[:, :100], attend(q, k, late, window)[:, :100])


def test_the_model_of_the_gpu_profile_has_the_right_shapes(tmp_path):
    code = (
        "import torch, train\n"
        "with torch.device('meta'):\n"
        "    model = train.build_model()\n"
        "    print(tuple(model(torch.zeros(2, 2048, dtype=torch.int64)).shape))\n"
        "print(sorted({block.attention.window for block in model.blocks}))\n"
        "print(model.blocks[-1].attention.window)"
    )
    result = run("-c", code, data=tmp_path, TRAIN_PROFILE="gpu", TRAIN_DEVICE="cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["(2, 2048, 8192)", "[256, 2048]", "2048"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"TRAIN_PROFILE": "gpu"}, "error: the gpu profile needs a GPU .* TRAIN_PROFILE=cpu .*"),
        ({"TRAIN_DEVICE": "cuda:1"}, "error: TRAIN_DEVICE is cuda:1, and torch finds no CUDA .*"),
    ],
)
def test_no_gpu_ends_in_one_line(data, variables, complaint):
    result = run("train.py", data=data, TRAIN_BUDGET="1steps", **variables)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(complaint + r"\n", result.stderr)


def test_orthogonalized_matrices_have_singular_values_near_one(template):
    for shape in [(256, 64), (64, 256)]:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(template[1].orthogonalize(matrix))
        assert values.min() > 0.5 and values.max() < 1.5


def test_compiling_ahead_leaves_no_trace_and_is_done_once(template, monkeypatch):
    train, compile = template[1], torch.compile
    # Its tracing is what all devices share; making kernels of it is torch's affair.
    monkeypatch.setattr(torch, "compile", lambda f, **how: compile(f, backend="aot_eager", **how))
    trainer = train.Trainer(train.build_model(), torch.device("cpu"))
    trainer.batch_loss = torch.compile(trainer.plain_batch_loss, dynamic=False, fullgraph=True)
    trainer.adamw, trainer.muon = train.build_optimizers(trainer.model, compiled=True)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.compile()
    assert all(torch.equal(before[k], value) for k, value in trainer.model.state_dict().items())
    assert not trainer.adamw.state and not trainer.muon.state
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    trainer.next_batch()
    train.follow_schedule(trainer.adamw, trainer.muon, 0, 0.0)
    assert trainer.step() == pytest.approx(math.log(2048), abs=0.1)
    trainer.loader.close()


def test_importing_train_trains_nothing(data):
    assert run("-c", "import train", data=data).stdout == ""


# Training


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoint") / "weights.safetensors"


@pytest.fixture(scope="module")
def twelve_steps(data, checkpoint):
    return [
        run("train.py", data=data, TRAIN_BUDGET="12steps", TRAIN_CHECKPOINT=str(path or ""))
        for path in (checkpoint, None)
    ]


def val_bpb(result):
    return float(re.search(r"(?m)^val_bpb: +(\S+)$", result.stdout)[1])


def test_training_ends_with_the_summary_block(twelve_steps):
    for result in twelve_steps:
        assert result.returncode == 0, result.stderr
        match = re.search(SUMMARY + r"\Z", result.stdout)
        assert match and match[1] == "12"


def test_the_same_seed_and_steps_give_the_same_score(twelve_steps):
    first, second = (re.findall(r"(?m)^val_bpb:.*$", result.stdout) for result in twelve_steps)
    assert len(first) == 1 and first == second


def test_the_checkpoint_has_the_printed_score(template, environment, twelve_steps, checkpoint):
    model = template[1].build_model()
    template[0].load_checkpoint(model, checkpoint.read_bytes())
    score = template[0].evaluate_bpb(model.eval(), environment, template[1].DEVICE_BATCH_SIZE)
    assert f"{score:.6f}" == f"{val_bpb(twelve_steps[0]):.6f}"
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_tied_weights_are_saved_once_and_loaded_whole(template, environment, tmp_path):
    def tied():
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
        model[1].weight = model[0].weight
        return model

    path = tmp_path / "weights"
    saved, loaded = tied(), tied()
    template[0].save_checkpoint(saved, dataclasses.replace(environment, checkpoint=path))
    template[0].load_checkpoint(loaded, path.read_bytes())
    assert torch.equal(saved[1].weight, loaded[1].weight)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x04N.", "the checkpoint is no safetensors file"),
        ({"0.weight": (4, 4)}, "does not fit build_model\\(\\): it lacks 0.bias"),
        ({"0.weight": (4, 4), "0.bias": (4,), "x": (1,)}, "it has x too many"),
        ({"0.weight": (4, 5), "0.bias": (4,)}, "size mismatch for 0.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(template, content, complaint):
    import safetensors.torch

    if isinstance(content, dict):
        content = safetensors.torch.save({k: torch.zeros(size) for k, size in content.items()})
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match=f"(?s){complaint}"):
        template[0].load_checkpoint(model, content)


def test_twice_the_budget_gives_a_lower_score(data, twelve_steps):
    assert val_bpb(run("train.py", data=data, TRAIN_BUDGET="24steps")) < val_bpb(twelve_steps[0])


def test_a_sample_cannot_be_taken_for_the_summary(twelve_steps):
    sample = twelve_steps[0].stdout.split("document:\n")[1].split("seconds: ")[0].splitlines()
    assert sample and all(line.startswith("    |") and line.isprintable() for line in sample)


def test_progress_lines_read_as_the_worker_reads_them(twelve_steps):
    lines = [line for line in twelve_steps[0].stdout.splitlines() if line.startswith("step ")]
    pattern = (
        r"step \d{5} \(\d+\.\d%\) \| loss: \d+\.\d{4} \| lr: \d\.\d\d \| dt: \d+ms"
        r" \| tok/s: [\d,]+ \| remaining: \d+s"
    )
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert lines[-1].startswith("step 00012 (100.0%)")


def first_batch(template, env):
    loader = template[0].make_loader(env, 16, torch.device("cpu"))
    inputs, targets = next(loader)
    loader.close()
    return inputs, targets


def test_another_seed_gives_another_order(template, environment):
    other = dataclasses.replace(environment, seed=7)
    batches = [first_batch(template, env)[0] for env in (environment, environment, other)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_a_closed_loader_leaves_no_thread(template, environment):
    before = threading.active_count()
    first_batch(template, environment)
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_loader_is_raised(template):
    def items():
        yield 1
        raise SystemExit("error: damaged")

    loader = template[0]._work_ahead(items())
    assert next(loader) == 1
    with pytest.raises(SystemExit, match="damaged"):
        next(loader)


def test_data_too_short_for_a_row_are_refused(template, environment, data, tmp_path):
    shutil.copytree(data / "cpu", tmp_path / "cpu")
    manifest = tmp_path / "cpu" / "v3" / "manifest.json"
    manifest.write_text(re.sub(r'"train_tokens": \d+', '"train_tokens": 100', manifest.read_text()))
    with pytest.raises(SystemExit, match="holds only 100 tokens"):
        template[0].make_loader(dataclasses.replace(environment, data=tmp_path), 1, None)


def test_a_budget_in_seconds_counts_training_only(data):
    result = run("train.py", data=data, TRAIN_BUDGET="1s")
    seconds = float(re.search(r"(?m)^training_seconds: (.*)$", result.stdout)[1])
    assert 1.0 <= seconds < 3.0


def test_a_loss_that_is_not_a_number_ends_the_run(data, tmp_path):
    spoil = "self.steps == 3 and self.model.head.weight.data.fill_(math.nan)"
    folder = edited_template(tmp_path / "x", (r"        loss = 0\.0\n", rf"        {spoil}\n\g<0>"))
    result = run("train.py", data=data, cwd=folder, TRAIN_BUDGET="12steps")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "FAIL: loss is nan at step 3"
    assert "val_bpb" not in result.stdout


def test_a_full_disk_ends_training_in_one_line(data, tmp_path):
    path = tmp_path / "weights.safetensors"
    variables = {"TRAIN_BUDGET": "1steps", "TRAIN_CHECKPOINT": str(path)}
    result = run("train.py", data=data, largest_file=2**20, **variables)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: cannot save .*weights\.safetensors: File too large .*\n", result.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_training_ends_in_one_line(data):
    training = subprocess.Popen(
        [sys.executable, "train.py"],
        cwd=TEMPLATE,
        env=environ(data, TRAIN_BUDGET="1000steps", PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not training.stdout.readline().startswith("step "):
        pass
    training.send_signal(signal.SIGINT)
    assert training.communicate(timeout=60)[1] == "\ninterrupted; nothing was scored\n"
    assert training.returncode == 130


def test_training_without_data_says_what_to_run(tmp_path):
    result = run("train.py", data=tmp_path, TRAIN_BUDGET="12steps")
    assert result.returncode == 1
    assert re.search(r"error: no cpu data .* run `python prepare\.py", result.stderr)


# Web text: packing, and shards from a server of our own


def test_packed_rows_are_full_and_open_with_a_document(template):
    dice = random.Random(0)
    lengths = [dice.randrange(60) for _ in range(3000)]
    documents = [np.array([9, *dice.choices(range(8), k=length)]) for length in lengths]
    rows = list(template[0].pack_rows(documents, 33))
    assert len(rows) > 1000 and all(len(row) == 33 and row[0] == 9 for row in rows)
    # Best fit: little of the text is cut away.
    assert sum((row == 9).sum() for row in rows) > 0.95 * len(documents)


class ShardHandler(http.server.BaseHTTPRequestHandler):
    """Serves server.files from where a client asks; cuts the first server.cuts answers short."""

    def do_GET(self):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if self.server.cuts > 0 else len(content)
        self.server.cuts -= 1
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ShardHandler) as server:
        server.files, server.starts, server.cuts = {}, [], 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_that_was_cut_short_is_continued(template, server, tmp_path):
    server.files["/shard"] = bytes(range(256)) * 40
    server.cuts = 1
    told = []
    template[0].download(server.url + "/shard", tmp_path / "shard", threading.Event(), told.append)
    assert (tmp_path / "shard").read_bytes() == server.files["/shard"]
    assert told == [0.5, 1.0]
    assert server.starts == [0, 5120]
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def test_a_shard_the_server_lacks_fails_in_one_line(template, server, tmp_path):
    with pytest.raises(SystemExit, match="cannot download .*/shard: the server answered 404"):
        template[0].download(server.url + "/shard", tmp_path / "shard", threading.Event())
    assert list(tmp_path.iterdir()) == []


def test_a_dead_network_fails_in_one_line(template, tmp_path, monkeypatch):
    monkeypatch.setattr(template[0], "DOWNLOAD_ATTEMPTS", 1)
    with pytest.raises(SystemExit, match="error: cannot download .* no connection"):
        template[0].download("http://127.0.0.1:9/shard", tmp_path / "shard", threading.Event())


def test_a_damaged_shard_is_named(template, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "shard_00000.parquet"
    path.write_bytes(b"PAR1 and then nothing of the kind")
    with pytest.raises(SystemExit, match="error: .*shard_00000.parquet is damaged .* delete it"):
        list(template[0].read_shard(path))


def test_web_text_is_prepared_from_a_mirror(template, server, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    dice = random.Random(0)
    letters = "abcdefghijklmnop"
    words = ["".join(dice.choices(letters, k=dice.randrange(3, 9))) for _ in range(12000)]
    for name in ("shard_00000", "shard_00001", "shard_06541", "shard_06542"):
        texts = [" ".join(dice.choices(words, k=dice.randrange(50, 400))) for _ in range(300)]
        parquet.write_table(pyarrow.table({"text": texts}), tmp_path / name, row_group_size=100)
        server.files[f"/{name}.parquet"] = (tmp_path / name).read_bytes()
    variables = {"TRAIN_DATA_MIRROR": server.url, "TRAIN_PROFILE": "gpu"}
    result = run("prepare.py", "--shards", "2", data=tmp_path / "data", **variables)
    assert result.returncode == 0, result.stderr
    ready = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"ready: gpu \d+ tokens fingerprint [0-9a-f]{64}", ready)

    # A shard that its server has cut short is refused, whatever its Content-Length says.
    whole = server.files["/shard_00002.parquet"] = server.files["/shard_00001.parquet"]
    server.files["/shard_00002.parquet"] = whole[: len(whole) // 2]
    cut = run("prepare.py", "--shards", "3", data=tmp_path / "data", **variables)
    assert cut.returncode == 1
    assert re.fullmatch(r"error: .*shard_00002\.parquet is damaged .* delete it .*\n", cut.stderr)

    server.files.clear()  # The second time needs no server.
    assert run("prepare.py", data=tmp_path / "data", **variables).stdout == ready + "\n"

    prepare = template[0]
    env = prepare.read_environment("gpu", str(tmp_path / "data"))
    bos = prepare.load_tokenizer(env).encode_single_token(prepare.BOS)
    rows = np.load(env.folder / "val.npy")
    assert rows.shape[1] == 2049 and (rows[:, 0] == bos).all()
    inputs, targets = first_batch(template, env)
    assert inputs.shape == targets.shape == (16, 2048)
    assert (inputs[:, 0] == bos).all() and torch.equal(inputs[:, 1:], targets[:, :-1])
