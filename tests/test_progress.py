"""The picture of a track's progress: readable with few and many experiments, harmless, true."""

import random
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from xml.etree import ElementTree

import httpx
import pytest
from conftest import CLAIM, Clock, Hub, WorkTree, ok
from fastapi.testclient import TestClient

from server import errors, wire
from server.pages.progress import Area, Point, Series, Status, XAxis, draw_progress
from server.pages.progress.labels import fit, measure, tidy
from server.pages.progress.png import render_png
from server.pages.progress.svg import lay_out, render_svg
from server.pages.progress.theme import Theme

SVG = "{http://www.w3.org/2000/svg}"
START = datetime(2026, 3, 8, 20, tzinfo=UTC)
EVIL = "</text><script>alert(1)</script> \"'&]]> \x1b[31mred\x1b[0m \u202egnp.exe"
IDEAS = (
    "increase depth 8 to 9",
    "halve the batch size to 262144 tokens and double the number of steps",
    "QK gain 1.15 after QK-norm",
    "per-group Adam betas (0.8, 0.995) for the embeddings",
    "Größere Köpfe: 128er Dimension",
    "增加深度",
    "W" * 200,
    "x",
    "",
)
#: Experiments, of them kept and crashed, first and best score.
HISTORIES = {
    20: (7, 1, 0.9979, 0.9812),
    126: (23, 1, 0.9979, 0.969686),
    2000: (150, 60, 1.5963, 1.1008),
}


def make_series(experiments: int) -> Series:
    """A history as those of autoresearch: some gains large, most small, more of them early."""
    kept, crashed, first, best = HISTORIES[experiments]
    dice = random.Random(experiments)
    early = dice.sample(range(2, min(3 * kept, experiments)), kept // 2)
    later = [number for number in range(2, experiments + 1) if number not in early]
    keeps = {1, *early, *dice.sample(later, kept - 1 - len(early))}
    crashes = set(dice.sample([number for number in later if number not in keeps], crashed))
    gains = [0.0, *(dice.paretovariate(1.2) for _ in range(kept - 1))]
    share = (first - best) / sum(gains)
    score, points = first, []
    for number in range(1, experiments + 1):
        label = "baseline" if number == 1 else dice.choice(IDEAS)
        at = START + timedelta(minutes=5.5 * number)
        if number in crashes:
            points.append(Point(number, at, None, Status.CRASH, label))
        elif number in keeps:
            score = round(score - share * gains.pop(0), 6)
            hash = f"{dice.getrandbits(160):040x}"
            points.append(Point(number, at, score, Status.KEEP, label, hash))
        else:
            worse = score + (first - best) * dice.expovariate(4)
            points.append(Point(number, at, round(worse, 6), Status.DISCARD, label))
    return Series("H100 · 300 s · climbmix", points, experiments, first)


def make_points(*scores: float | None, status: Status = Status.KEEP) -> list[Point]:
    return [
        Point(n, START + timedelta(hours=n), score, status, f"idea {n}")
        for n, score in enumerate(scores, 1)
    ]


def parse(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)


def texts(xml: str) -> list[str]:
    return [element.text or "" for element in parse(xml).iter(f"{SVG}text")]


# Labels -----------------------------------------------------------------------------------------


def crosses(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> bool:
    """Whether two polygons share a point: edges that cross, or one inside the other."""

    def turn(p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    def holds(box: Sequence[tuple[float, float]], p: tuple[float, float]) -> bool:
        turns = [turn(q, r, p) for q, r in zip(box, [*box[1:], box[0]], strict=True)]
        return all(t > 0 for t in turns) or all(t < 0 for t in turns)

    edges = [list(zip(box, [*box[1:], box[0]], strict=True)) for box in (a, b)]
    return (
        any(
            turn(p, q, r) * turn(p, q, s) < 0 and turn(r, s, p) * turn(r, s, q) < 0
            for p, q in edges[0]
            for r, s in edges[1]
        )
        or holds(a, b[0])
        or holds(b, a[0])
    )


@pytest.mark.parametrize("by", XAxis)
@pytest.mark.parametrize("size", [(1200, 675), (480, 270), (2400, 1600), (2400, 270)])
@pytest.mark.parametrize("experiments", HISTORIES)
def test_labels_overlap_neither_each_other_nor_a_keep_nor_the_edge(
    experiments: int, size: tuple[int, int], by: XAxis
) -> None:
    canvas = lay_out(make_series(experiments), *size, by)
    boxes = [label.box.corners for label in canvas.labels]
    assert len(boxes) >= 4
    assert not [pair for pair in combinations(boxes, 2) if crosses(*pair)]
    for box in boxes:
        assert all(0 <= x <= size[0] and 0 <= y <= canvas.picture.area.bottom for x, y in box)
        for mark in canvas.picture.keeps:
            dot = [(mark.x + a, mark.y + b) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            assert not crosses(box, dot)


def test_the_best_the_first_and_the_largest_gains_are_labelled() -> None:
    points = [replace(p, label=f"idea {p.number}") for p in make_series(2000).points]
    canvas = lay_out(Series("t", points, 2000))
    by_gain = sorted(canvas.picture.keeps, key=lambda mark: -mark.gain)
    shown = {label.text for label in canvas.labels}
    assert {by_gain[0].point.label, by_gain[1].point.label} <= shown
    assert min(canvas.picture.keeps, key=lambda mark: mark.score).point.label in shown
    assert by_gain[0].point.number == 1


def test_with_room_every_keep_is_labelled_in_full() -> None:
    points = make_points(1.0, 0.9, 0.8, 0.7)
    assert {label.text for label in lay_out(Series("t", points, 4)).labels} == {
        "idea 1", "idea 2", "idea 3", "idea 4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("two\nlines\tand  spaces", "two lines and spaces"),
        ("\u202ea\x07\x1b[1mb", "[U+202E]a[U+0007]b"),
        ("\ufffe\uffff\ud800", "���"),
        ("Z" + "\u0334" * 50 + "algo", "Z\u0334algo"),
        ("naïve نص 中文 😀", "naïve نص 中文 😀"),
        ("a title that is much too long", "a title that is…"),
        ("W" * 100, "W" * 19 + "…"),
    ],
)
def test_labels_are_one_short_line_that_hides_nothing(raw: str, seen: str) -> None:
    assert tidy(raw, 20) == seen


def test_words_whose_width_is_unknown_are_drawn_at_the_width_they_were_given() -> None:
    points = [replace(p, label="增加深度 ﷽ 😀") for p in make_points(1.0, 0.9)]
    canvas = lay_out(Series("t", points, 2))
    for element in parse(render_svg(canvas)).iter(f"{SVG}text"):
        if "增" in (element.text or ""):
            assert float(element.attrib["textLength"]) == canvas.labels[0].width > 0


def test_a_title_is_cut_to_its_room() -> None:
    assert fit("H100 · 300 s", 27, 500) == "H100 · 300 s"
    assert measure(fit("W" * 64, 27, 500), 27)[0] <= 500


# What is drawn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", XAxis)
@pytest.mark.parametrize("experiments", HISTORIES)
def test_the_line_is_the_running_minimum_of_the_keeps(experiments: int, by: XAxis) -> None:
    series = make_series(experiments)
    best, expected = float("inf"), []
    for point in series.points:
        if point.status is Status.KEEP and point.val_bpb is not None and point.val_bpb < best:
            best = point.val_bpb
            expected.append((point.number, best))
    area = Area(left=0, right=1e6, top=0, bottom=1e6, inset=0)
    steps = draw_progress(series, area, by).steps
    assert len(steps) == len(expected)
    (x0, y0), (x1, y1) = steps[0], steps[-1]
    (n0, s0), (n1, s1) = expected[0], expected[-1]
    for (x, y), (number, score) in zip(steps, expected, strict=True):
        assert (x - x0) / (x1 - x0) == pytest.approx((number - n0) / (n1 - n0), abs=1e-4)
        assert (y - y0) / (y1 - y0) == pytest.approx((score - s0) / (s1 - s0), abs=1e-4)


def test_the_line_goes_on_from_what_was_before() -> None:
    points = make_points(0.9, 0.95, 0.8)
    area = Area(left=10, right=110, top=0, bottom=100, inset=5)
    picture = draw_progress(Series("t", points, 900, baseline=1.0, earlier_best=0.85), area)
    assert len(picture.steps) == 2
    assert picture.steps[0][0] == 15
    assert picture.best == 0.8
    assert "last 3 of 900 experiments · 3 kept" in texts(
        render_svg(lay_out(Series("t", points, 900, 1.0, 0.85)))
    )[1]  # fmt: skip


def test_a_quarantined_score_is_marked_and_moves_nothing() -> None:
    points = make_points(1.0, 0.9, 0.8)
    points[1] = replace(points[1], status=Status.QUARANTINED)
    points.append(replace(points[0], number=4, status=Status.QUARANTINED, val_bpb=0.001))
    canvas = lay_out(Series("t", points, 4))
    assert len(canvas.picture.keeps) == len(canvas.picture.steps) == 2
    assert len(canvas.picture.quarantined) == 1
    assert canvas.picture.best == 0.8
    seen = texts(render_svg(canvas))
    assert "4 experiments · 2 kept · 0 discarded · 2 quarantined" in seen
    assert "quarantined" in seen


def test_confirmed_keeps_have_a_ring() -> None:
    points = make_points(1.0, 0.9)
    plain = render_svg(lay_out(Series("t", points, 2)))
    points[1] = replace(points[1], is_confirmed=True)
    ringed = render_svg(lay_out(Series("t", points, 2)))
    # The mark and its entry in the legend.
    assert ringed.count("<circle") == plain.count("<circle") + 3
    assert "confirmed" in texts(ringed)
    assert "confirmed" not in texts(plain)


def test_a_time_axis_has_round_times() -> None:
    picture = lay_out(make_series(126), by=XAxis.TIME).picture
    assert [tick.label for tick in picture.x_ticks][:3] == ["0 h", "2 h", "4 h"]
    picture = lay_out(make_series(2000), by=XAxis.TIME).picture
    assert [tick.label for tick in picture.x_ticks][:3] == ["0 d", "1 d", "2 d"]


@pytest.mark.parametrize("by", XAxis)
@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, 1.0), (None,), (5e-324, 99.0), (1.0, 1e-300)])
def test_odd_histories_have_a_picture(scores: Sequence[float], by: XAxis) -> None:
    points = [replace(p, at=START) for p in make_points(*scores)]
    xml = render_svg(lay_out(Series("t", points, len(points)), by=by))
    assert "nan" not in xml
    assert "inf" not in xml
    assert ("no score yet" in texts(xml)) == (not any(scores))


# Over HTTP --------------------------------------------------------------------------------------


def push_ideas(hub: Hub, work_tree: WorkTree, ideas: Sequence[str]) -> None:
    """A baseline, and each idea as a commit upon it."""
    work_tree.commit("baseline")
    work_tree.git("tag", "root")
    stream = bytearray()
    for number, idea in enumerate(ideas):
        data = idea.encode()
        stream += b"commit refs/heads/b%d\ncommitter A <a@b> %d +0000\n" % (number, 10**9 + number)
        code = b"# %d\n" % number
        stream += b"data %d\n%s\nfrom refs/tags/root^0\n" % (len(data), data)
        stream += b"M 100644 inline train.py\ndata %d\n%s\n" % (len(code), code)
    importing = ["git", "fast-import", "--quiet"]
    subprocess.run(importing, input=stream, cwd=work_tree.path, check=True)
    hub.agent().push(work_tree.bundle("--all"))


def train(hub: Hub, clock: Clock, score: float | None, claim: wire.Claim = CLAIM) -> None:
    worker = hub.worker()
    run = worker.claim(claim)
    assert run is not None
    result = wire.ResultCreate(fence=run.fence, outcome=wire.Outcome.CRASH)
    worker.finish(run.id, result if score is None else ok(run.fence, score))
    clock.advance(minutes=5)


@pytest.fixture
def http(hub: Hub) -> TestClient:
    """A browser of somebody the hub does not know."""
    return hub.http(None)


@pytest.fixture
def small(hub: Hub, work_tree: WorkTree, clock: Clock) -> Hub:
    """A hub with two keeps, a crash and a discard, one leaf untrained; every word is an attack."""
    push_ideas(hub, work_tree, [f"{EVIL} {number}" for number in range(5)])
    for score in (1.0, 0.98, None, 0.99):
        train(hub, clock, score)
    return hub


def see(http: TestClient, path: str) -> str:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/svg+xml"
    return answer.text


def test_a_history_of_126_experiments_is_drawn_as_it_was(
    hub: Hub, http: TestClient, work_tree: WorkTree, clock: Clock
) -> None:
    series = make_series(126)
    push_ideas(hub, work_tree, [f"idea {point.number}" for point in series.points])
    for point in series.points:
        train(hub, clock, point.val_bpb)
    xml = see(http, "/progress.svg")
    seen = texts(xml)
    assert "126 experiments · 23 kept · 102 discarded · 1 crashed" in seen
    assert "0.969686" in seen
    assert "best val_bpb, 0.028214 (2.83 %) under the baseline" in seen
    assert xml.count("<title>") == 1 + 23
    [line] = re.findall(r'd="(M[\d.]+ [\d.]+(?:H[\d.]+V[\d.]+)+H[\d.]+)"', xml)
    drawn = [float(y) for y in re.findall(r"V([\d.]+)", line)]
    scores = [p.val_bpb for p in series.points if p.status is Status.KEEP and p.val_bpb]
    low, high = drawn[0], drawn[-1]
    assert len(drawn) == 22
    for y, score in zip(drawn, scores[1:], strict=True):
        fallen = (scores[1] - score) / (scores[1] - scores[-1])
        assert (y - low) / (high - low) == pytest.approx(fallen, abs=0.001)


def test_hostile_labels_are_text(small: Hub, http: TestClient) -> None:
    xml = see(http, "/progress.svg")
    assert "script" in xml
    kinds = {element.tag.removeprefix(SVG) for element in parse(xml).iter()}
    assert kinds <= {"svg", "title", "rect", "g", "path", "circle", "text"}
    names = {name for element in parse(xml).iter() for name in element.attrib}
    assert not {n for n in names if n.startswith("on") or n in ("style", "href", "class", "id")}
    assert "[U+202E]" in xml
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", xml)


def test_pictures_may_do_nothing_but_be_seen(small: Hub, http: TestClient) -> None:
    for path in ("/progress.svg", "/progress.png"):
        headers = http.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "sandbox" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("size", [(1200, 675), (480, 270), (2400, 1600)])
def test_the_png_has_the_size_asked_for(
    small: Hub, http: TestClient, size: tuple[int, int]
) -> None:
    answer = http.get("/progress.png", params={"width": size[0], "height": size[1]})
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert answer.content[-8:-4] == b"IEND"
    assert struct.unpack(">II", answer.content[16:24]) == size


def test_a_picture_that_cannot_be_rendered_is_refused_with_a_hint() -> None:
    with pytest.raises(errors.Unavailable) as refusal:
        render_png("no picture")
    assert "/progress.svg" in str(refusal.value.hint)


def test_the_png_has_words_and_the_theme(small: Hub, http: TestClient) -> None:
    light, dark = (http.get(f"/progress.png?theme={theme}").content for theme in Theme)
    assert light != dark
    # An empty sheet of this size takes a tenth of that.
    assert min(len(light), len(dark)) > 20_000


@pytest.mark.parametrize("path", ["/progress.svg", "/progress.png"])
def test_who_has_the_picture_is_not_sent_it_again(
    small: Hub, http: TestClient, clock: Clock, path: str
) -> None:
    def ask(tag: str) -> httpx.Response:
        return http.get(path, headers={"If-None-Match": tag})

    tag = http.get(path).headers["ETag"]
    assert ask(tag).status_code == 304
    assert ask(tag).headers["ETag"] == tag
    assert http.get(f"{path}?theme=dark").headers["ETag"] != tag
    train(small, clock, 0.97)
    assert ask(tag).status_code == 200


def test_the_busiest_track_is_drawn_unless_another_is_named(
    small: Hub, http: TestClient, clock: Clock
) -> None:
    gpu = CLAIM.model_copy(update={"platform": "H100", "budget_seconds": 300})
    train(small, clock, 0.9, gpu)
    assert texts(see(http, "/progress.svg"))[0].startswith("cpu · 20 s")
    tracks = {track.platform: track for track in small.agent().tracks()}
    for name in (str(tracks["H100"].id), tracks["H100"].name, "H100"):
        assert texts(see(http, f"/progress.svg?track={name}"))[0].startswith("H100 · 300 s")


def test_wrong_questions_are_refused(small: Hub, http: TestClient) -> None:
    sizes = ("width=wide", "width=10", "width=100000", "height=0", "height=1e3")
    for kind in ("svg", "png"):
        for query in (*sizes, "theme=pink", "by=colour"):
            answer = http.get(f"/progress.{kind}?{query}")
            assert answer.status_code == 400, query
            assert query.partition("=")[0] in answer.json()["error"]
        for track in ("none", "99", "%00", "'"):
            answer = http.get(f"/progress.{kind}?track={track}")
            assert answer.status_code == 404, track
            assert answer.json()["hint"].startswith("tracks: cpu/")


def test_a_hub_without_results_has_no_picture(http: TestClient) -> None:
    answer = http.get("/progress.svg")
    assert answer.status_code == 404
    assert answer.json()["hint"] == "a picture is drawn once a worker has reported"


def test_pages_link_the_picture(small: Hub, http: TestClient) -> None:
    links = re.findall(r'href="(/progress[^"]+)"', http.get("/").text)
    assert links == ["/progress.png?track=1", "/progress.svg?track=1"]
    assert [http.get(link).status_code for link in links] == [200, 200]
