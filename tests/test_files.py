"""Trees and files of a commit over HTTP, with names and contents that agents may choose."""

import os
import subprocess
from urllib.parse import unquote

import pytest
from conftest import Hub, HubProcess, WorkTree

from ah_cli.client import ApiError

# Names that URLs, headers and terminals would take for something else.
NAMES = [
    b"a b.txt", b"100%.txt", b"%2e%2e", b"question?x=1", b"hash#x", b"quote\"'.txt", b"semi;colon",
    b"new\nline", b"caf\xc3\xa9", b"latin\xe9", b"\xff\xfe", b"...", b"-n", b"a+b&c",
    b"<script>.html", b"\n", b"back\\slash",
]  # fmt: skip


@pytest.fixture
def tip(hub: Hub, work_tree: WorkTree) -> str:
    """A pushed commit with a bit of everything."""
    (work_tree.path / "src" / "deep").mkdir(parents=True)
    for name in NAMES:
        (work_tree.path / "src" / os.fsdecode(name)).write_bytes(b"I am " + name)
    (work_tree.path / "src" / "deep" / "data.bin").write_bytes(bytes(range(256)))
    (work_tree.path / "page.html").write_text("<script>alert(1)</script>")
    (work_tree.path / "logo.svg").write_text("<svg onload='alert(1)'/>")
    (work_tree.path / "run.sh").write_text("#!/bin/sh\n")
    (work_tree.path / "run.sh").chmod(0o755)
    (work_tree.path / "link").symlink_to("src/deep")
    sha = work_tree.commit(train_py="LR = 1\n")
    hub.agent().push(work_tree.bundle())
    return sha


def listed(hub: Hub, sha: str, path: str = "") -> list[tuple[str, str, str, str]]:
    return [(e.mode, e.type, e.hash, unquote(e.path)) for e in hub.agent().tree(sha, path)]


def ls_tree(work_tree: WorkTree, *args: str) -> list[tuple[str, ...]]:
    lines = work_tree.git("ls-tree", *args).splitlines()
    rows = [(*line.partition("\t")[0].split(), line.partition("\t")[2]) for line in lines]
    return [(mode, "symlink" if mode == "120000" else kind, *rest) for mode, kind, *rest in rows]


def test_a_tree_is_listed_as_git_lists_it(hub: Hub, work_tree: WorkTree, tip: str) -> None:
    assert listed(hub, tip) == ls_tree(work_tree, tip)
    assert listed(hub, tip[:8], "src/deep") == ls_tree(work_tree, tip, "src/deep/")
    sizes = {entry.name: entry.size for entry in hub.agent().tree(tip)}
    assert (sizes["train.py"], sizes["link"], sizes["src"]) == (7, 8, None)


def test_every_name_leads_back_to_its_own_file(
    hub: Hub, live_hub: HubProcess, work_tree: WorkTree, tip: str
) -> None:
    with live_hub.client(live_hub.key("reader")) as live:
        live.push(work_tree.bundle())
        for client in (hub.agent(), live):
            entries = client.tree(tip, "src")
            names = [unquote(entry.path, errors="surrogateescape") for entry in entries]
            expected = [b"src/deep", *(b"src/" + name for name in NAMES)]
            assert sorted(map(os.fsencode, names)) == sorted(expected)
            for entry, name in zip(entries, names, strict=True):
                if entry.type == "blob":
                    assert client.blob(tip, name) == b"I am " + os.fsencode(name)[4:]


def test_no_content_is_served_as_anything_that_runs(hub: Hub, tip: str) -> None:
    kinds = {
        "page.html": "text/plain; charset=utf-8",
        "logo.svg": "text/plain; charset=utf-8",
        "src/%3Cscript%3E.html": "text/plain; charset=utf-8",
        "src/latin%E9": "application/octet-stream",
        "src/deep/data.bin": "application/octet-stream",
    }
    for path, kind in kinds.items():
        answer = hub.http().get(f"/api/git/blob/{tip}/{path}")
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        where = "inline" if kind.startswith("text") else "attachment"
        name = path.rpartition("/")[2]
        assert answer.headers["Content-Disposition"] == f"{where}; filename*=UTF-8''{name}"


def test_a_symlink_is_its_target_and_is_not_followed(hub: Hub, tip: str) -> None:
    assert hub.agent().blob(tip, "link") == b"src/deep"
    for call in (hub.agent().blob, hub.agent().tree):
        with pytest.raises(ApiError) as refusal:
            call(tip, "link/data.bin")
        assert refusal.value.status == 404


def test_a_known_file_is_not_sent_again(hub: Hub, work_tree: WorkTree, tip: str) -> None:
    http, url = hub.http(), f"/api/git/blob/{tip}/train.py"
    tag = http.get(url).headers["ETag"]
    assert tag == f'"{work_tree.git("rev-parse", f"{tip}:train.py")}"'
    for known in (tag, f'"x", W/{tag}', "*"):
        answer = http.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert http.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    head = http.head(url)
    assert (head.headers["Content-Length"], head.content) == ("7", b"")


def test_a_path_may_have_slashes_to_spare(hub: Hub, tip: str) -> None:
    http = hub.http()
    for path in (
        "src/deep/data.bin",
        "/src//deep/data.bin",
        "src%2Fdeep%2Fdata.bin",
        "src/deep/data.bin/",
    ):
        assert http.get(f"/api/git/blob/{tip}/{path}").status_code == 200, path
    for path in ("", "/", "//"):
        assert len(http.get(f"/api/git/tree/{tip}{path}").json()) == 6, path
    assert len(http.get(f"/api/git/tree/{tip}/src/deep/").json()) == 1


@pytest.mark.parametrize(
    ("call", "path", "status", "said"),
    [
        ("blob", "nothing", 404, "there is no 'nothing'"),
        ("blob", "src/nothing/more", 404, "'src' is as far as it goes"),
        ("blob", "src", 404, "is a tree"),
        ("blob", "", 404, "the root is a tree"),
        ("tree", "train.py", 404, "is a file"),
        ("tree", "train.py/x", 404, "'train.py' is as far as it goes"),
        ("blob", "%2e%2e/%2e%2e/admin.key", 400, "no . or .."),
        ("blob", "src/%2e/x", 400, "no . or .."),
        ("blob", "src/%00", 404, "there is no"),
        ("blob", "%ff", 404, "there is no"),
        ("tree", "a/" * 3000, 404, "there is no"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_words(
    hub: Hub, tip: str, call: str, path: str, status: int, said: str
) -> None:
    answer = hub.http().get(f"/api/git/{call}/{tip}/{path}")
    assert answer.status_code == status
    assert said in f"{answer.json()['error']} {answer.json().get('hint')}"


def test_files_need_a_key_and_a_commit(hub: Hub, tip: str) -> None:
    for call in ("tree", "blob"):
        assert hub.http(None).get(f"/api/git/{call}/{tip}/train.py").status_code == 401
        assert hub.http().get(f"/api/git/{call}/{'1' * 40}/train.py").status_code == 404
        assert hub.http().get(f"/api/git/{call}/xyz/train.py").status_code == 400


def test_large_files_and_trees_are_a_413(hub: Hub, work_tree: WorkTree) -> None:
    (work_tree.path / "large").write_bytes(bytes(10 * 2**20 + 1))
    (work_tree.path / "full").write_bytes(bytes(10 * 2**20))
    blob = work_tree.git("hash-object", "-w", "--stdin")
    wide = "".join(f"100644 blob {blob}\tf{number}\n" for number in range(10_001))
    tree = subprocess.run(
        ["git", "mktree"],
        cwd=work_tree.path,
        input=wide,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    work_tree.git("read-tree", "--prefix=wide/", tree)
    work_tree.git("add", "large", "full")
    work_tree.git("commit", "--quiet", "--message", "large")
    sha = work_tree.git("rev-parse", "HEAD")
    hub.agent().push(work_tree.bundle())
    for call, path in (("blob", "large"), ("tree", "wide")):
        answer = hub.http().get(f"/api/git/{call}/{sha}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "git clone" in answer.json()["hint"]
    assert len(hub.agent().blob(sha, "full")) == 10 * 2**20
    assert hub.agent().blob(sha, "wide/f7") == b""
