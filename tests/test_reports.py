"""What agents tell of their own trainings, in posts and in files, is read as they meant it."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server import reports, wire
from server.reports import Problem, Report, format_tsv, parse_post, parse_tsv
from server.runs.lease import result_line

RESULTS_126 = Path(__file__).parent / "results_126.tsv"
LINE = "commit:a1b2c3d platform:H100 val_bpb:0.9932 vram_gb:44.2 | raise the matrix LR to 0.04"
REPORT = Report("a1b2c3d", "H100", 0.9932, "0.9932", 44.2, "keep", "raise the matrix LR to 0.04")


def only(content: str) -> Report:
    found = parse_post(content)
    assert len(found) == 1, found
    return found[0]


# Posts -----------------------------------------------------------------------------------------


def test_a_kept_a_discarded_and_a_crashed_training_are_told_apart():
    post = """\
commit:a1b2c3d platform:H100 val_bpb:0.9932 vram_gb:44.2 | raise the matrix LR to 0.04
commit:b2c3d4e platform:M4-Max val_bpb:1.0050 vram_gb:44.0 | GeLU in the MLP (DISCARD)
commit:c3d4e5f platform:A100 val_bpb:--- vram_gb:--- | twice the width (CRASH: OOM)
"""
    assert parse_post(post) == [
        REPORT,
        Report("b2c3d4e", "M4-Max", 1.005, "1.0050", 44.0, "discard", "GeLU in the MLP"),
        Report("c3d4e5f", "A100", None, "---", None, "crash", "twice the width (OOM)"),
    ]


@pytest.mark.parametrize(
    "post",
    [
        f"- {LINE}",
        f"* **{LINE}**",
        f"1. {LINE}",
        f"> {LINE}",
        f"> > - {LINE}",
        f"`{LINE}`",
        f"```\n{LINE}\n```",
        f"## Result\n\n```text\n{LINE}\n```\n\nNext I try a longer warmdown.",
        f"{LINE}\r\n",
        f"\ufeff{LINE}",
        f"🎉 New best! {LINE}",
        f"Result: {LINE}",
        f"Nothing to see\n\n\n{LINE}\nval_bpb: 0.98 must be in reach, says commit: b2c3d4e.",
        "**commit:** a1b2c3d **platform:** H100 **val_bpb:** 0.9932 **vram_gb:** 44.2 | "
        "raise the matrix LR to 0.04",
        "**commit**: `a1b2c3d`, **platform**: `H100`, **val\\_bpb**: `0.9932`, "
        "**vram\\_gb**: `44.2` | raise the matrix LR to 0.04",
        "| commit:a1b2c3d | platform:H100 | val_bpb:0.9932 | vram_gb:44.2 | "
        "raise the matrix LR to 0.04 |",
        "COMMIT: A1B2C3D  Platform:  H100  Val_BPB:  0.9932  VRAM_GB: 44.2GB | "
        "raise the matrix LR to 0.04",
        "val_bpb:0.9932 vram_gb:44.2 commit:a1b2c3d platform:H100 | raise the matrix LR to 0.04",
        "platform:H100 commit:a1b2c3d (depth 9) steps:953 val_bpb:0.9932, mfu=39.8 vram_gb:44.2 | "
        "raise the matrix LR to 0.04",
        "commit:[a1b2c3d](http://hub/commits/a1b2c3d) platform:H100 val_bpb:0.9932 vram_gb:44.2"
        " - raise the matrix LR to 0.04",
        "commit:a1b2c3d platform:H100 val_bpb:0.9979 -> 0.9932 vram_gb:44.2 (-0.0047) | "
        "raise the matrix LR to 0.04",
        "parent commit:b2c3d4e, commit:a1b2c3d platform:H100 val_bpb:0.9932 vram_gb:44.2 | "
        "raise the matrix LR to 0.04",
        "- commit: a1b2c3d\n- platform: H100\n- val_bpb: 0.9932\n- steps: 953\n- vram_gb: 44.2\n"
        "- status: keep\n- description: raise the matrix LR to 0.04",
        "Done:\n**Commit:** `a1b2c3d`\n**Platform:** H100\n**val_bpb:** **0.9932**\n"
        "**vram_gb:** 44.2\n\nraise",
    ],
)
def test_markdown_order_and_rubbish_around_do_not_matter(post: str):
    report = only(post)
    assert replace(report, description="") == replace(REPORT, description="")
    assert report.description in {REPORT.description, ""}


def test_a_description_keeps_its_own_markdown_and_bars():
    assert only(f"**{LINE}: 2**16, `lr` | twice**").description.endswith("2**16, `lr` | twice")


def test_a_platform_of_several_words_ends_where_the_next_field_or_the_text_begins():
    assert only("commit:a1b2c3d platform:NVIDIA H100 80GB HBM3 val_bpb:1").platform == (
        "NVIDIA H100 80GB HBM3"
    )
    assert only("val_bpb:1 commit:a1b2c3d platform:RTX 4090 | deeper").platform == "RTX 4090"
    assert only("val_bpb:1 commit:a1b2c3d platform:M4 Max - deeper").platform == "M4 Max"
    report = only("val_bpb:1 commit:a1b2c3d platform:H100 deeper (discarded)")
    assert (report.platform, report.description, report.status) == ("H100", "deeper", "discard")
    assert only("commit:a1b2c3d platform:--- val_bpb:1").platform is None
    assert only("commit:a1b2c3d val_bpb:1").platform is None


@pytest.mark.parametrize(
    ("text", "status", "description"),
    [
        ("| GeLU (DISCARD)", "discard", "GeLU"),
        ("| GeLU (discard)", "discard", "GeLU"),
        ("| GeLU [Discarded: +0.01]", "discard", "GeLU (+0.01)"),
        ("| GeLU **(DISCARD)**", "discard", "GeLU"),
        ("| (DISCARD) GeLU", "discard", "GeLU"),
        ("| DISCARD: GeLU", "discard", "GeLU"),
        ("| discard - GeLU", "discard", "GeLU"),
        ("| GeLU — discarded", "discard", "GeLU"),
        ("| GeLU DISCARD worse by 0.01", "discard", "GeLU DISCARD worse by 0.01"),
        ("GeLU DISCARD", "discard", "GeLU DISCARD"),
        ("status:discard | GeLU", "discard", "GeLU"),
        ("| GeLU (Crash: out of memory)", "crash", "GeLU (out of memory)"),
        ("| GeLU CRASHED at step 12", "crash", "GeLU CRASHED at step 12"),
        ("| CRASH", "crash", ""),
        ("| GeLU (KEEP)", "keep", "GeLU (KEEP)"),
        ("| fix the crash at start, discard the first token", "keep", None),
        ("| no CRASH any more", "keep", None),
        ("| crash-free (crash-proof) init", "keep", None),
        ("| uses DISCARD_TOKENS", "keep", None),
        ("| (discard half of the tokens) in the loss", "keep", None),
    ],
)
def test_marks_are_found_where_people_put_them(text: str, status: str, description: str | None):
    report = only(f"commit:a1b2c3d platform:H100 val_bpb:1.005 vram_gb:44 {text}")
    assert report.status == status
    expected = text.removeprefix("| ") if description is None else description
    assert report.description == expected
    assert report.val_bpb == (None if status == "crash" else 1.005)


@pytest.mark.parametrize(
    "post",
    [
        "DISCARD: " + LINE,
        "❌ discarded — " + LINE,
        "(DISCARD) " + LINE,
        LINE.replace(" val_bpb", " DISCARD val_bpb"),
        LINE.replace(" |", " (DISCARD) |"),
        LINE + "\n**DISCARD**",
        LINE + "\n\nStatus: discard",
        "## Discarded: " + "no gain\n\n" + LINE,
        f"(DISCARD)\n```\n{LINE}\n```",
    ],
)
def test_marks_before_between_and_beside_count(post: str):
    assert only(post).status == "discard"


def test_the_mark_of_one_report_is_not_its_neighbours():
    post = f"{LINE}\n{LINE.replace('a1b2c3d', 'b2c3d4e')} (DISCARD)\n{LINE.replace('a1', 'c1')}"
    assert [report.status for report in parse_post(post)] == ["keep", "discard", "keep"]


def test_several_reports_on_one_line_are_several():
    post = f"{LINE}; {LINE.replace('a1b2c3d', 'b2c3d4e')} (DISCARD)"
    assert parse_post(post) == [
        REPORT,
        replace(REPORT, commit="b2c3d4e", status="discard"),
    ]
    short = "commit:a1b2c3d val_bpb:0.99; commit:b2c3d4e val_bpb:0.98"
    assert [report.val_bpb for report in parse_post(short)] == [0.99, 0.98]


def test_what_a_report_says_of_other_commits_is_talk():
    report = only(f"{LINE}, beats commit:b2c3d4e val_bpb:0.9950")
    assert (report.commit, report.val_bpb) == ("a1b2c3d", 0.9932)


def test_a_post_holds_up_to_twenty_reports_each_once():
    lines = [LINE.replace("a1b2c3d", f"{n:07x}") for n in range(30)]
    assert [report.commit for report in parse_post("\n".join(lines))] == [
        f"{n:07x}" for n in range(reports.REPORTS_MAX)
    ]
    assert parse_post(f"{LINE}\n\nAgain, to copy:\n\n```\n{LINE}\n```") == [REPORT]


def test_a_whole_hash_and_a_prefix_are_taken_as_given():
    for commit in ("a1b2c3d", "a1b2c3d4e5f6", "0123456789" * 4):
        report = only(f"commit:{commit} val_bpb:1")
        assert (report.commit, report.has_hash) == (commit, True)


@pytest.mark.parametrize(
    "post",
    [
        "",
        "I think val_bpb: 0.98 is in reach",
        "val_bpb:0.98 platform:H100 vram_gb:44.0 | no commit",
        "commit:a1b2c3d platform:H100 vram_gb:44.0 | no score",
        "commit:a1b2c3 platform:H100 val_bpb:0.98 | six digits",
        "commit:a1b2c3g platform:H100 val_bpb:0.98 | not hex",
        f"commit:{'a' * 41} platform:H100 val_bpb:0.98 | 41 digits",
        "commit:a1b2c3d-dirty platform:H100 val_bpb:0.98 | not that commit",
        "commit:a1b2c3d platform:H100 val_bpb: | still running",
        "commit:a1b2c3d platform:H100 val_bpb:pending vram_gb:? | still running",
        "commit:<7-char-hash> platform:<gpu> val_bpb:<value> vram_gb:<value> | <description>",
        "commit a1b2c3d reached 0.98 on an H100",
        "commit:a1b2c3d should reach val_bpb:0.98 soon",
        "parent commit:a1b2c3d platform:H100 val_bpb:0.98",
        "commit:a1b2c3d platform:H100 best_val_bpb:0.98",
        "commit:a1b2c3d platform:H100 expected val_bpb:0.98",
        "recommit:a1b2c3d val_bpb:0.98",
        "I begin with commit: a1b2c3d\nval_bpb: 0.98 is my aim",
        "commit: a1b2c3d\n\nval_bpb: 0.98",
        "commit,a1b2c3d,val_bpb,0.98",
    ],
)
def test_near_misses_stay_talk(post: str):
    assert parse_post(post) == []


@pytest.mark.parametrize("raw", ["---", "-", "—", "n/a", "None", "CRASH", "OOM", "failed"])
def test_no_score_and_no_mark_is_a_crash(raw: str):
    assert only(f"commit:a1b2c3d platform:H100 val_bpb:{raw} vram_gb:--- | wider") == Report(
        "a1b2c3d", "H100", None, raw, None, "crash", "wider"
    )


def test_no_score_but_a_mark_is_what_the_mark_says():
    report = only("commit:a1b2c3d platform:H100 val_bpb:--- | stopped at 10 minutes (DISCARD)")
    assert (report.status, report.val_bpb, report.flaw) == ("discard", None, None)


@pytest.mark.parametrize(
    ("raw", "flaw"),
    [
        ("NaN", "not finite"),
        ("inf", "not finite"),
        ("-Infinity", "not finite"),
        ("1e999", "not finite"),
        ("9" * 60 + "e9999", "not a number"),
        ("0", "not above 0"),
        ("0.000000", "not above 0"),
        ("-0.98", "not above 0"),
        ("\u22120.98", "not above 0"),
        ("1e-999", "not above 0"),
        ("0,98", "not a number"),
        ("0.98.1", "not a number"),
        ("0x1f", "not a number"),
        ("1_0", "not a number"),
        ("9" * 200, "not a number"),
    ],
)
def test_a_score_that_is_no_usable_number_is_kept_as_written_with_the_reason(raw: str, flaw: str):
    report = only(f"commit:a1b2c3d platform:H100 val_bpb:{raw} vram_gb:44.2 | odd")
    assert (report.val_bpb, report.flaw, report.status) == (None, flaw, "keep")
    assert report.raw_val_bpb == raw[:64]
    crashed = only(f"commit:a1b2c3d platform:H100 val_bpb:{raw} vram_gb:44.2 | odd (CRASH)")
    assert (crashed.val_bpb, crashed.flaw, crashed.status) == (None, None, "crash")


@pytest.mark.parametrize(
    ("raw", "value"),
    [("0.9932", 0.9932), ("+.99", 0.99), ("1.", 1.0), ("9.9e-1", 0.99), ("0.99bpb", 0.99),
     ("~0.99", 0.99), ("**0.99**", 0.99), ("`0.99`,", 0.99), ("0.99±0.01", 0.99), ("0.99.", 0.99)],
)  # fmt: skip
def test_numbers_are_read_in_the_ways_people_write_them(raw: str, value: float):
    report = only(f"commit:a1b2c3d platform:H100 val_bpb:{raw} vram_gb:{raw} | x")
    assert (report.val_bpb, report.vram_gb, report.flaw) == (value, value, None)


@pytest.mark.parametrize(
    ("status", "outcome", "val_bpb"),
    [("keep", "ok", 0.9932), ("discard", "ok", 1.1), ("crash", "oom", None)],
)
def test_what_the_hub_itself_posts_reads_back(status: str, outcome: str, val_bpb: float | None):
    result = wire.Result(
        id=1, commit="a1b2c3d4e5" * 4, run_id=1, agent_id="a", worker_id="w",
        source=wire.Source.MEASURED, track="H100/300s/3f9a1c2e/inline",
        outcome=wire.Outcome(outcome), status=wire.Status(status), verdict=None, val_bpb=val_bpb,
        metrics={"peak_vram_mb": 45060.2}, description="CUDA (out of memory)",
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
    )  # fmt: skip
    report = only(result_line(result, "deeper: depth 8 -> 9"))
    assert (report.commit, report.platform) == ("a1b2c3d4e5a1", "H100")
    assert (report.status, report.val_bpb) == (status, val_bpb)
    assert report.description.startswith("deeper: depth 8 -> 9")


# Hostile posts ---------------------------------------------------------------------------------

PIECES = [
    "commit:", "commit:a1b2c3d", "platform:", "platform:H100 ", "val_bpb:", "val_bpb:0.99",
    "vram_gb:", "val\\_bpb:---", "val_bpb:0.9->", "(", ")", "[", "(CRASH", "(CRASH:",
    "DISCARD", "DISCARD!", "status:", "status: discard", "*", "**", "_", "`", "|", "| ", "\n",
    "\n\n", ">", " ", "\t", "\xa0", "-", "- ", "—", ":", "=", "x", "x:", "x=", "a:b ", "0",
    "9", "e", ".", ",", "parent ", "1. ", "\\", "é", "🎉", "\x00", "\u202e", "\r", "\x85",
    "\u2028", "description:", "→", " -> 0", "_x", "x_", "-x",
]  # fmt: skip


def cost(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    read(text)
    return time.process_time() - start


def grows_evenly(read: Callable[[str], object], text: str, eighth: str) -> bool:
    """Reading in quadratic time would take the text 64 times as long as its eighth."""
    # What is too quick to compare is lifted to a floor; a busy machine gets three tries.
    return any(cost(read, text) < 24 * max(cost(read, eighth), 0.002) for _ in range(3))


@pytest.mark.parametrize(
    "frame", ["{}", f"{LINE} {{}}x", f"{{}}{LINE}", "commit:a1b2c3d {} val_bpb:1"]
)
def test_the_time_to_read_a_post_grows_with_its_length_whatever_it_holds(frame: str):
    def post(piece: str, size: int) -> str:
        return frame.format(piece * (size // len(piece)))

    for piece in PIECES:
        full, eighth = post(piece, wire.POST_BYTES), post(piece, wire.POST_BYTES // 8)
        assert grows_evenly(parse_post, full, eighth), piece


def test_no_mixture_of_pieces_breaks_the_reader_or_what_it_promises():
    dice = random.Random(20261124)
    found = 0
    for _ in range(3_000):
        pieces = [dice.choice([*PIECES, LINE, LINE + "\n"]) for _ in range(dice.randrange(40))]
        content = "".join(pieces)
        for report in parse_post(content):
            found += 1
            assert report.has_hash
            assert report.val_bpb is None or 0 < report.val_bpb < float("inf")
            assert report.val_bpb is None or report.flaw is None
            assert report.raw_val_bpb.isprintable()
            assert report.status in {"keep", "discard", "crash"}
            assert report.description.isprintable()
            assert report.platform is None or report.platform.isprintable()
    assert found > 300


# Files -----------------------------------------------------------------------------------------

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
ROW = "a1b2c3d\t0.993200\t44.2\tkeep\traise the matrix LR to 0.04\n"
TSV_REPORT = replace(REPORT, platform=None, raw_val_bpb="0.993200")


def test_a_session_of_126_trainings_reads_as_it_went():
    rows, problems = parse_tsv(RESULTS_126.read_text())
    assert problems == []
    counts = {status: sum(row.status == status for row in rows) for status in ("keep", "discard")}
    assert (len(rows), counts) == (126, {"keep": 23, "discard": 102})
    kept = [row.val_bpb for row in rows if row.status == "keep"]
    assert (kept[0], kept[-1]) == (0.9979, 0.969686)
    assert kept == sorted(kept, reverse=True)
    assert [row.has_hash for row in rows].count(False) == 1
    assert rows[0].commit == "baseline"


def test_what_is_written_is_what_was_read():
    text = RESULTS_126.read_text()
    rows, _ = parse_tsv(text)
    assert format_tsv(rows) == text
    assert parse_tsv(format_tsv(rows)) == (rows, [])


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROW,
        ROW,
        ROW.rstrip(),
        "\ufeff" + HEADER + ROW,
        (HEADER + ROW).replace("\n", "\r\n"),
        (HEADER + ROW).replace("\n", "\r"),
        HEADER + "\n\n" + ROW + "\n  \n",
        HEADER.upper() + ROW.replace("a1b2c3d", "A1B2C3D").replace("keep", "KEEP"),
        "status\tcommit\tdescription\tmemory_gb\tval_bpb\n"
        "keep\ta1b2c3d\traise the matrix LR to 0.04\t44.2\t0.993200\n",
        "commit\tval_bpb\tmemory_gb\tsteps\tstatus\tdescription\twho\n"
        "a1b2c3d\t0.993200\t44.2\t953\tkeep\traise the matrix LR to 0.04\tme\n",
        ROW.replace(" LR ", "\tLR "),
        HEADER + '"a1b2c3d"\t0.993200\t44.2\tkeep\t"raise the matrix LR to 0.04"\n',
    ],
)
def test_a_file_is_read_with_or_without_its_decorations(text: str):
    assert parse_tsv(text) == ([TSV_REPORT], [])


def test_files_laid_end_to_end_are_one():
    assert parse_tsv((HEADER + ROW) * 3) == ([TSV_REPORT] * 3, [])


def test_a_column_of_platforms_is_read():
    rows, _ = parse_tsv("commit\tplatform\tval_bpb\tstatus\na1b2c3d\tRTX 4090\t1.1\tdiscard\n")
    assert rows == [Report("a1b2c3d", "RTX 4090", 1.1, "1.1", None, "discard", "")]


def test_crashes_have_neither_score_nor_memory():
    rows, problems = parse_tsv("d4e5f6a\t0.000000\t0.0\tcrash\ttwice the width (OOM)\n")
    assert (rows, problems) == (
        [Report("d4e5f6a", None, None, "0.000000", None, "crash", "twice the width (OOM)")],
        [],
    )
    assert (
        format_tsv(rows).splitlines()[1] == "d4e5f6a\t0.000000\t0.0\tcrash\ttwice the width (OOM)"
    )


def test_rows_whose_commit_is_no_hash_are_kept():
    rows, problems = parse_tsv("baseline\t0.9979\t44.0\tkeep\tx\nd4e5f6g\t1.2\t44\tdiscard\ty\n")
    assert [(row.commit, row.has_hash) for row in rows] == [("baseline", False), ("d4e5f6g", False)]
    assert problems == []


def test_every_bad_line_is_told_with_its_number():
    text = (
        HEADER
        + "a1b2c3d 0.99 44.2 keep blanks for tabs\n"
        + ROW
        + "\n"
        + "a1b2c3d\t0.99\t44.2\tmaybe\tx\n"
        + "\t0.99\t44.2\tkeep\tx\n"
        + "a1b2c3d\tpending\t44.2\tkeep\tx\n"
        + f"{'long' * 20}\t0.99\t44.2\tkeep\tx\n"
        + "a1b2c3d\tnan\t44.2\tkeep\tquarantine is for the hub to decide\n"
    )
    rows, problems = parse_tsv(text)
    assert [row.flaw for row in rows] == [None, "not finite"]
    assert problems == [
        Problem(2, "1 of at least 4 columns; they are separated by tabs"),
        Problem(5, "status 'maybe' is not keep, discard or crash"),
        Problem(6, "no commit"),
        Problem(7, "val_bpb 'pending' is not a number"),
        Problem(8, "commit longer than 64 characters"),
    ]


def test_a_file_of_something_else_is_one_problem():
    rows, problems = parse_tsv("commit\tval_rmse\tstatus\tdescription\na1b2c3d\t343.88\tkeep\tx\n")
    assert (rows, problems) == ([], [Problem(1, "no column val_bpb, so nothing below can be read")])


def test_at_most_ten_thousand_lines_are_read():
    text = HEADER + ROW * 6_000 + "bad\n" * 6_000
    rows, problems = parse_tsv(text)
    assert (len(rows), len(problems)) == (6_000, 4_001)
    assert problems[-1] == Problem(10_002, "only 10,000 rows are read at once; split the file here")
    assert len(parse_tsv(HEADER + ROW * 10_000)[0]) == reports.ROWS_MAX


def test_a_written_row_is_one_line_of_five_cells():
    odd = replace(
        TSV_REPORT, description='"quoted\tand\nbroken\r\x85\u2028up', val_bpb=1e-9, vram_gb=None
    )
    nan = replace(TSV_REPORT, val_bpb=None, raw_val_bpb="nan", flaw="not finite")
    stopped = replace(TSV_REPORT, val_bpb=None, raw_val_bpb="---", status="discard")
    lines = format_tsv([odd, nan, stopped]).splitlines()
    assert [line.split("\t")[1:4] for line in lines[1:]] == [
        ["1e-09", "0.0", "keep"],
        ["nan", "44.2", "keep"],
        ["0.000000", "44.2", "discard"],
    ]
    assert lines[1].endswith("keep\t'quoted and broken up")
    rows, problems = parse_tsv(format_tsv([odd, nan, stopped]))
    assert [(row.val_bpb, row.flaw) for row in rows] == [
        (1e-9, None), (None, "not finite"), (None, None),
    ]  # fmt: skip
    assert problems == []


def test_no_mixture_of_cells_is_lost_and_what_was_written_once_stays_the_same():
    dice = random.Random(126)
    cells = [
        "", " ", "a1b2c3d", "baseline", "0.99", "0.000000", "nan", "-1", "1e999", "---",
        "44.2", "keep", "discard", "CRASH", "crash", "maybe", '"', '"x"', 'a"b', "commit",
        "val_bpb", "status", "x y", "\x00", "\x85", "é", "\u202e",
    ]  # fmt: skip
    for _ in range(3_000):
        lines = [
            dice.choice(["\t", "\t", "\t\t", " "]).join(dice.choices(cells, k=dice.randrange(8)))
            for _ in range(dice.randrange(6))
        ]
        rows, problems = parse_tsv("\n".join(lines))
        headers = sum("commit" in line for line in lines)
        spoken = sum(bool(line.strip()) for line in lines)
        cut = any("nothing below" in problem.reason for problem in problems)
        assert cut or spoken - headers <= len(rows) + len(problems) <= spoken
        again = parse_tsv(format_tsv(rows))
        assert (len(again[0]), again[1]) == (len(rows), [])
        assert format_tsv(again[0]) == format_tsv(rows)


def test_the_time_to_read_a_file_grows_with_its_length_whatever_it_holds():
    for piece in ('"', "-", "9", "0", "\t", "a", "\u00a0", "keep\t", "\n", "x\n"):
        for frame in ("{0}", "a1b2c3d\t{0}\t1\tkeep\t{0}", "a1b2c3d\t1\t{0}\tkeep\t{0}"):
            full, eighth = (
                frame.format(piece * (size // len(piece))) for size in (400_000, 50_000)
            )
            assert grows_evenly(parse_tsv, full, eighth), (piece, frame)
