"""The template as agents and workers meet it: real processes, real data, a few training steps."""

import dataclasses
import http.server
import importlib
import math
import os
import random
import re
import shutil
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


def run(script, *args, data, cwd=TEMPLATE, **variables):
    """Run a script of the template with nothing but the given TRAIN_* variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAIN_")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "TRAIN_PROFILE": "cpu"}
    env |= {"TRAIN_DATA": str(data)} | variables
    return subprocess.run(
        [sys.executable, script, *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
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
        for name in ("PROFILE", "DATA", "DEVICE", "BUDGET", "SEED", "DATA_MIRROR"):
            patch.delenv(f"TRAIN_{name}", raising=False)
        patch.setenv("TRAIN_PROFILE", "cpu")
        patch.setenv("TRAIN_DATA", str(data))
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
    folder = data / "cpu" / "v1"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = run("prepare.py", data=data)
    assert re.fullmatch(r"ready: cpu \d+ tokens fingerprint [0-9a-f]{64}\n", result.stdout)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_preparation_has_the_same_fingerprint(data, tmp_path):
    again = run("prepare.py", "--data", str(tmp_path), data=data).stdout.split()[-1]
    assert run("prepare.py", "--fingerprint", data=data).stdout == again + "\n"


def test_fingerprint_before_preparing_says_what_to_run(tmp_path):
    result = run("prepare.py", "--fingerprint", data=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: no cpu data .* run `python prepare\.py .*`\n", result.stderr)


def test_fingerprint_imports_no_torch(data):
    code = "import sys, prepare; prepare.main(); assert 'torch' not in sys.modules"
    result = run("-c", code, "--fingerprint", data=data)
    assert result.returncode == 0, result.stderr


def test_a_missing_file_counts_as_not_prepared(data, tmp_path):
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cpu" / "v1" / "val.npy").unlink()
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
    counts = np.load(data / "cpu" / "v1" / "token_bytes.npy")
    dice = random.Random(0)
    for _ in range(200):
        ranges = dice.choices([(0, 128), (0, 0xD800), (0xE000, 0x110000)], k=50)
        text = "".join(chr(dice.randrange(*limits)) for limits in ranges)
        assert counts[tokenizer.encode_ordinary(text)].sum() == len(text.encode())


def test_the_special_token_has_no_bytes(template, environment, data):
    bos = template[0].load_tokenizer(environment).encode_single_token(template[0].BOS)
    assert np.load(data / "cpu" / "v1" / "token_bytes.npy")[bos] == 0
    assert bos == environment.profile.vocab_size - 1


def test_a_uniform_model_needs_log2_of_the_vocabulary_per_token(template, environment, data):
    V = environment.profile.vocab_size
    counts = np.load(data / "cpu" / "v1" / "token_bytes.npy")
    scored = counts[np.load(data / "cpu" / "v1" / "val.npy")[:, 1:]]
    expected = math.log2(V) * (scored > 0).sum() / scored.sum()
    bpb = template[0].evaluate_bpb(lambda tokens: torch.zeros(*tokens.shape, V), environment)
    assert bpb == pytest.approx(expected, abs=1e-6)


def test_bpb_agrees_with_a_float64_reference(template, model, data):
    counts = np.load(data / "cpu" / "v1" / "token_bytes.npy")
    rows = np.load(data / "cpu" / "v1" / "val.npy")[:21]
    tokens = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        log_p = torch.log_softmax(model(tokens[:, :-1]).double(), dim=-1)
    nats = -log_p.gather(2, tokens[:, 1:, None])[..., 0].numpy() * (counts[rows[:, 1:]] > 0)
    expected = nats.sum() / math.log(2) / counts[rows[:, 1:]].sum()
    # A batch size that does not divide the rows: the rows that fill it up must not count.
    assert template[0].score_rows(model, rows, counts, 8) == pytest.approx(expected, abs=1e-4)


def test_unnormalized_logits_gain_nothing(template, model, data):
    counts = np.load(data / "cpu" / "v1" / "token_bytes.npy")
    rows = np.load(data / "cpu" / "v1" / "val.npy")[:8]
    honest = template[0].score_rows(model, rows, counts, 8)
    shifted = template[0].score_rows(lambda tokens: model(tokens) + 50, rows, counts, 8)
    assert shifted == pytest.approx(honest, abs=1e-4)


def test_a_loss_instead_of_logits_is_refused(template, environment):
    with pytest.raises(ValueError, match="logits of shape"):
        template[0].evaluate_bpb(lambda tokens: torch.zeros(tokens.shape), environment)


def test_logits_that_are_not_finite_are_refused(template, environment):
    V = environment.profile.vocab_size
    nan = torch.full((32, environment.profile.sequence_length, V), math.nan)
    with pytest.raises(ValueError, match="not finite"):
        template[0].evaluate_bpb(lambda tokens: nan, environment)


def test_validation_text_is_not_trained_on(template, environment, data):
    train = np.load(data / "cpu" / "v1" / "train.npy").tobytes()
    rows = np.load(data / "cpu" / "v1" / "val.npy")
    known = sum(row[32:64].tobytes() in train for row in rows[::3])
    assert known < 0.05 * len(rows[::3])  # Licences and the like are in many files.


# Model


def test_a_layer_is_windowed_and_another_is_not(model):
    windows = [block.attention.window for block in model.blocks]
    assert min(windows) < max(windows) == 128


@pytest.mark.parametrize("position", [1, 40, 127])
def test_a_changed_token_leaves_earlier_logits_bit_equal(model, position):
    tokens = torch.randint(2048, (3, 128), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, position] = (other[:, position] + 1) % 2048
    with torch.no_grad():
        a, b = model(tokens), model(other)
    assert torch.equal(a[:, :position], b[:, :position])
    assert not torch.equal(a[:, position], b[:, position])


def test_a_windowed_layer_does_not_see_past_its_window(template, model):
    attention = model.blocks[0].attention
    x = torch.randn(1, 128, template[1].N_EMBD)
    values = torch.zeros_like(x)
    far = x.clone()
    far[:, 0] += 1
    with torch.no_grad():
        a, b = attention(x, values, model.rotary), attention(far, values, model.rotary)
    assert not torch.equal(a[:, attention.window], b[:, attention.window])
    assert torch.equal(a[:, attention.window + 1 :], b[:, attention.window + 1 :])


def test_orthogonalized_matrices_have_singular_values_near_one(template):
    for shape in [(256, 64), (64, 256)]:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(template[1].orthogonalize(matrix))
        assert values.min() > 0.5 and values.max() < 1.5


def test_importing_train_trains_nothing(data):
    assert run("-c", "import train", data=data).stdout == ""


# Training


@pytest.fixture(scope="module")
def twelve_steps(data):
    return [run("train.py", data=data, TRAIN_BUDGET="12steps") for _ in range(2)]


def test_training_ends_with_the_summary_block(twelve_steps):
    for result in twelve_steps:
        assert result.returncode == 0, result.stderr
        match = re.search(SUMMARY + r"\Z", result.stdout)
        assert match and match[1] == "12"


def test_the_same_seed_and_steps_give_the_same_score(twelve_steps):
    first, second = (re.findall(r"(?m)^val_bpb:.*$", result.stdout) for result in twelve_steps)
    assert len(first) == 1 and first == second


def test_progress_lines_read_as_the_worker_reads_them(twelve_steps):
    lines = [line for line in twelve_steps[0].stdout.splitlines() if line.startswith("step ")]
    pattern = (
        r"step \d{5} \(\d+\.\d%\) \| loss: \d+\.\d{4} \| lr: \d\.\d\d \| dt: \d+ms"
        r" \| tok/s: [\d,]+ \| remaining: \d+s"
    )
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert lines[-1].startswith("step 00012 (100.0%)")


def test_another_seed_gives_another_order(template, environment):
    other = dataclasses.replace(environment, seed=7)
    batches = [
        next(template[0].make_loader(env, 16, torch.device("cpu")))[0]
        for env in (environment, environment, other)
    ]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_a_budget_in_seconds_counts_training_only(data):
    result = run("train.py", data=data, TRAIN_BUDGET="1s")
    seconds = float(re.search(r"(?m)^training_seconds: (.*)$", result.stdout)[1])
    assert 1.0 <= seconds < 3.0


def test_a_loss_that_is_not_a_number_ends_the_run(data, tmp_path):
    folder = edited_template(tmp_path / "x", (r"MATRIX_LR = [\d.]+", 'MATRIX_LR = float("nan")'))
    result = run("train.py", data=data, cwd=folder, TRAIN_BUDGET="12steps")
    assert result.returncode == 1
    assert re.search(r"(?m)^FAIL: loss is nan at step \d+\Z", result.stdout.rstrip("\n"))
    assert "val_bpb" not in result.stdout


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
    template[0].download(server.url + "/shard", tmp_path / "shard", threading.Event())
    assert (tmp_path / "shard").read_bytes() == server.files["/shard"]
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
    for name in ("shard_00000", "shard_00001", "shard_06542"):
        texts = [" ".join(dice.choices(words, k=dice.randrange(50, 400))) for _ in range(300)]
        parquet.write_table(pyarrow.table({"text": texts}), tmp_path / name, row_group_size=100)
        server.files[f"/{name}.parquet"] = (tmp_path / name).read_bytes()
    variables = {"TRAIN_DATA_MIRROR": server.url, "TRAIN_PROFILE": "gpu"}
    result = run("prepare.py", "--shards", "2", data=tmp_path / "data", **variables)
    assert result.returncode == 0, result.stderr
    ready = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"ready: gpu \d+ tokens fingerprint [0-9a-f]{64}", ready)

    server.files.clear()  # The second time needs no server.
    assert run("prepare.py", data=tmp_path / "data", **variables).stdout == ready + "\n"

    prepare = template[0]
    env = prepare.read_environment("gpu", str(tmp_path / "data"))
    bos = prepare.load_tokenizer(env).encode_single_token(prepare.BOS)
    rows = np.load(env.folder / "val.npy")
    assert rows.shape[1] == 2049 and (rows[:, 0] == bos).all()
    inputs, targets = next(prepare.make_loader(env, 4, torch.device("cpu")))
    assert inputs.shape == targets.shape == (4, 2048)
    assert (inputs[:, 0] == bos).all() and torch.equal(inputs[:, 1:], targets[:, :-1])
