"""Which settings and which parts of train.py a commit touched is read from its diff."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from server.changes import CHANGES_MAX, DIFF_CHARS, Change, classify, read_changes

# A train.py of its own: the template changes, and what its edits mean with it.
TEMPLATE = (Path(__file__).parent / "corpus" / "train_sample.txt").read_text()


def edit(*pairs: tuple[str, str], source: str = TEMPLATE) -> str:
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new, 1)
    return source


@pytest.fixture
def git_diff(tmp_path: Path):
    """The diff that git makes of two states of a folder."""

    def git(*words: str) -> str:
        told = subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, check=True)
        return told.stdout.decode(errors="replace")

    def tree(files: dict[str, str]) -> str:
        for path in tmp_path.glob("*.*"):
            if path.is_file():
                path.unlink()
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        git("add", "-A")
        return git("write-tree").strip()

    def diff(before: dict[str, str], after: dict[str, str], *flags: str) -> str:
        git("init", "-q")
        return git("diff", "--no-renames", *flags, tree(before), tree(after))

    return diff


@pytest.fixture
def of_template(git_diff):
    def changes(*pairs: tuple[str, str], flags: tuple[str, ...] = ()) -> list[Change]:
        return read_changes(git_diff({"train.py": TEMPLATE}, {"train.py": edit(*pairs)}, *flags))

    return changes


def test_a_setting_is_named_with_its_values(of_template):
    assert of_template(("DEPTH = 9 ", "DEPTH = 10")) == [Change("DEPTH", "9", "10")]


def test_settings_are_told_apart_and_in_order(of_template):
    assert of_template(
        ("ROPE_BASE = 200_000", "ROPE_BASE = 400_000"),
        ("ADAM_BETAS = (0.8, 0.95)", "ADAM_BETAS = (0.8, 0.99)  # longer memory"),
        ('WINDOW_PATTERN = "L" ', 'WINDOW_PATTERN = "S#L" # mixed'),
    ) == [
        Change("WINDOW_PATTERN", '"L"', '"S#L"'),
        Change("ROPE_BASE", "200_000", "400_000"),
        Change("ADAM_BETAS", "(0.8, 0.95)", "(0.8, 0.99)"),
    ]


def test_the_same_setting_in_two_profiles_is_two_changes(of_template):
    assert of_template(("DEPTH = 2 ", "DEPTH = 3 "), ("DEPTH = 9 ", "DEPTH = 8 ")) == [
        Change("DEPTH", "2", "3"),
        Change("DEPTH", "9", "8"),
    ]


def test_a_new_and_a_dropped_setting_have_one_value(of_template):
    assert of_template(
        ("INIT_SCALE = 0.68 ", "Z_LOSS: float = 1e-4\nINIT_SCALE = 0.68 "),
        ("UNTIMED_STEPS = 10 ", "# UNTIMED_STEPS = 10"),
    ) == [Change("UNTIMED_STEPS", "10", None), Change("Z_LOSS", None, "1e-4")]


def test_a_setting_that_only_moved_or_was_spaced_anew_is_no_change(of_template, git_diff):
    assert of_template(("DEPTH = 9               # layers", "DEPTH   =  9  # blocks")) == [
        Change("comments")
    ]
    filler = "".join(f"x{n} = {n}\n" for n in range(30))
    before, after = f"DEPTH = 8\n{filler}WIDTH = 2\n", f"{filler}WIDTH = 4\nDEPTH = 8\n"
    diff = git_diff({"train.py": before}, {"train.py": after})
    assert read_changes(diff) == [Change("WIDTH", "2", "4")]


def test_a_value_over_several_lines_is_known_by_its_name(git_diff):
    before = "".join(["LAYERS = [\n", *(f"    {n},\n" for n in range(9)), "]\nx = 1\n"])
    after = before.replace("    7,\n", "    8,\n").replace("    2,\n", "    3,\n")
    diff = git_diff({"train.py": before}, {"train.py": after})
    assert read_changes(diff) == [Change("LAYERS")]


@pytest.mark.parametrize("flags", [(), ("-U0",), ("-U40",)])
def test_code_is_named_by_the_outermost_class_or_function(of_template, flags):
    changes = of_template(
        ("return F.rms_norm(x, (x.size(-1),))", "return F.layer_norm(x, (x.size(-1),))"),
        ("q, k, v = heads(self.q(x))", "q, k, v = 2 * heads(self.q(x))"),
        flags=flags,
    )
    assert changes == [Change("def norm"), Change("class Attention")]


def test_settings_and_code_of_one_commit_are_both_told(of_template):
    changes = of_template(("DEPTH = 9 ", "DEPTH = 7 "), ("F.rms_norm(x,", "F.layer_norm(x,"))
    assert [change.kind for change in changes] == ["DEPTH", "def norm"]


def test_a_new_function_is_a_part_of_its_own(of_template):
    assert of_template(("def norm(x):", "def gate(x):\n    return x\n\n\ndef norm(x):")) == [
        Change("def gate")
    ]


def test_a_diff_without_headings_names_the_definition_in_sight():
    diff = """\
--- a/train.py
+++ b/train.py
@@ -10,3 +10,3 @@
     def forward(self, x):
-        x = self.up(x)
+        x = 2 * self.up(x)
         return self.down(x)
"""
    assert read_changes(diff) == [Change("def forward")]
    assert read_changes(diff.replace("def forward(self, x):", "x = x")) == [Change("other")]


def test_comments_alone_are_comments_and_loose_code_is_other(of_template):
    assert of_template(("# Every second layer", "# Each second layer")) == [Change("comments")]
    assert of_template(("import math\n", "import math\nimport os\n")) == [Change("other")]


def test_other_files_are_named_and_a_whole_train_py_is_one(git_diff):
    diff = git_diff(
        {
            "prepare.py": "DEPTH = 1\n",
            "old.py": "x\n",
            "train.py": "DEPTH = 8\n",
            "with space.txt": "x\n",
        },
        {
            "prepare.py": "DEPTH = 2\n",
            "new.bin": "\0",
            "train.py": "DEPTH = 9\n",
            "with space.txt": "y\n",
        },
    )
    assert classify(diff) == ["new.bin", "old.py", "prepare.py", "DEPTH", "with space.txt"]
    assert classify(diff.replace("prepare.py", "sub/train.py")).count("DEPTH") == 1


def test_an_added_train_py_is_no_list_of_all_its_settings(git_diff):
    assert classify(git_diff({"x.py": ""}, {"x.py": "", "train.py": TEMPLATE})) == ["train.py"]


def test_a_removed_line_that_looks_like_a_header_is_a_line(git_diff):
    before = "DEPTH = 8\n-- a/evil.py\n++ b/evil.py\n"
    diff = git_diff({"train.py": before}, {"train.py": "DEPTH = 9\n"})
    assert "\n--- a/evil.py" in diff
    assert classify(diff) == ["DEPTH"]


def test_an_empty_diff_and_no_diff_at_all_are_no_changes():
    for text in ("", "\n", "hello", "@@ -1 +1 @@\n-A = 1\n+A = 2\n", "+++ b/train.py\n"):
        assert read_changes(text) == []


def test_what_comes_out_is_bounded():
    lines = "".join(f"-A{n} = {'1' * 300}\n+A{n} = {'2' * 300}\n" for n in range(2_000))
    changes = read_changes(f"--- a/train.py\n+++ b/train.py\n@@ -1,2000 +1,2000 @@\n{lines}")
    assert len(changes) == CHANGES_MAX
    assert all(change.before == "1" * 80 and change.after == "2" * 80 for change in changes)
    paths = "".join(f"diff --git a/{'p' * 999}{n} b/{'p' * 999}{n}\n" for n in range(99))
    assert [len(kind) for kind in classify(paths)] == [200]


PIECES = [
    "diff --git a/train.py b/train.py\n", "diff --git ", "--- a/train.py\n", "+++ b/train.py\n",
    "--- /dev/null\n", "+++ /dev/null\n", "--- ", "+++ ", "@@ -1,99 +1,99 @@ class A:\n",
    "@@ -1,999999999 +1,999999999 @@\n", "@@ -1 +1 @@", "@@ ", "+DEPTH = 8\n", "-DEPTH = 8\n",
    "+DEPTH = 9\n", "+A = [\n", "-A = (\n", "+]\n", " )\n", "+A", "=", "-A = '", "\\'", '"', "#",
    "+def f():\n", "-class B:\n", "     def g():\n", "+    x\n", "-x\n", " \n", "\n", "+", "-", " ",
    "x", ":", "\\ No newline at end of file\n", "\x00", "\r", "\u2028", "é",
]  # fmt: skip
HEAD = "--- a/train.py\n+++ b/train.py\n@@ -1,9999999 +1,9999999 @@\n"


@pytest.mark.parametrize("head", ["", HEAD, f"{HEAD}-A = '", f"{HEAD}+A = ["])
def test_the_time_to_read_a_diff_grows_with_its_length_whatever_it_holds(head: str):
    def cost(diff: str) -> float:
        start = time.process_time()
        read_changes(diff)
        return time.process_time() - start

    for piece in PIECES:
        full, eighth = (head + piece * (size // len(piece)) for size in (160_000, 20_000))
        # Quadratic time would be 64 times; what is too quick to compare is lifted to a floor.
        assert any(cost(full) < 24 * max(cost(eighth), 0.002) for _ in range(3)), piece
    assert DIFF_CHARS > 160_000


def test_no_mixture_of_pieces_breaks_the_reader_or_its_bounds():
    dice = random.Random(20261124)
    found = 0
    for _ in range(3_000):
        diff = dice.choice(["", HEAD]) + "".join(dice.choices(PIECES, k=dice.randrange(40)))
        changes = read_changes(diff)
        found += len(changes)
        assert len(changes) == len(set(changes)) <= CHANGES_MAX
        assert all(change.kind and len(change.kind) <= 400 for change in changes)
        assert all(
            change == Change(change.kind) or change.before != change.after for change in changes
        )
    assert found > 1_000
