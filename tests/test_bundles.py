"""The cache of bundles: repeated fetches, bounds, many readers, crashes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Hub, HubProcess, WorkTree

from server.bundles import Bundles
from server.repo import BareRepo, Plan


def files(data: Path) -> list[Path]:
    return sorted((data / "bundles").glob("*/*.bundle"))


@pytest.fixture
def tips(hub: Hub, work_tree: WorkTree) -> list[str]:
    """Commits of a line, pushed."""
    made = [work_tree.commit(f"step {number}") for number in range(8)]
    hub.agent().push(work_tree.bundle())
    return made


@pytest.fixture
def repo(hub: Hub, tips: list[str]) -> BareRepo:
    repo: BareRepo = hub.app.state.hub.repo
    return repo


async def read(bundles: Bundles, *tips: str) -> None:
    for tip in tips:
        bundles.release(await bundles.open(Plan(tip)))


# Over HTTP --------------------------------------------------------------------------------------


def test_repeated_fetches_are_served_from_one_file(hub: Hub, tips: list[str]) -> None:
    one, two, *_, tip = tips
    http, path = hub.http(), f"/api/git/fetch/{tip}"
    whole = [http.get(path) for _ in range(3)]
    assert len(files(hub.data)) == 1
    thin = [http.get(path, params={"have": have}) for have in (two, f"{two},{one}", f"{one},{two}")]
    assert len(files(hub.data)) == 2
    for answers in (whole, thin):
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.headers["ETag"] for answer in answers}) == 1
    assert whole[0].headers["ETag"] != thin[0].headers["ETag"]


def test_who_has_the_bundle_is_told_so_without_it(hub: Hub, tips: list[str]) -> None:
    http, path = hub.http(), f"/api/git/fetch/{tips[0]}"
    tag = http.get(path).headers["ETag"]
    for tags in (tag, f"W/{tag}", f'"x", {tag}'):
        answer = http.get(path, headers={"If-None-Match": tags})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] in tags
    other = f'"{"0" * 32}-{"0" * 40}"'
    assert http.get(path, headers={"If-None-Match": other}).status_code == 200


def test_a_range_is_of_the_bytes_that_were_begun(hub: Hub, tips: list[str]) -> None:
    http, path = hub.http(), f"/api/git/fetch/{tips[0]}"
    whole = http.get(path)
    tag = whole.headers["ETag"]
    rest = http.get(path, headers={"Range": "bytes=10-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, whole.content[10:])
    other = f'{tag.partition("-")[0]}-{"0" * 40}"'
    assert http.get(path, headers={"Range": "bytes=10-", "If-Range": other}).status_code == 200


def test_a_bundle_that_cannot_be_written_leaves_nothing_behind(
    hub: Hub, tips: list[str], work_tree: WorkTree
) -> None:
    blob = work_tree.git("rev-parse", "HEAD:train.py")
    (hub.data / "repo.git" / "objects" / blob[:2] / blob[2:]).unlink()
    answer = hub.http().get(f"/api/git/fetch/{tips[-1]}")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert files(hub.data) == []


# The files --------------------------------------------------------------------------------------


def test_the_least_recently_used_bundle_goes_first(
    repo: BareRepo, tips: list[str], tmp_path: Path
) -> None:
    async def use() -> None:
        bundles = Bundles(repo, tmp_path / "bundles", limit_files=3)
        await read(bundles, tips[0], tips[1], tips[2], tips[0], tips[3])
        before = set(files(tmp_path))
        assert len(before) == 3
        await read(bundles, tips[0], tips[2], tips[3])
        assert set(files(tmp_path)) == before
        await read(bundles, tips[1])
        assert len(before & set(files(tmp_path))) == 2

    asyncio.run(use())


def test_a_bundle_that_is_being_read_stays(repo: BareRepo, tips: list[str], tmp_path: Path) -> None:
    async def use() -> None:
        bundles = Bundles(repo, tmp_path / "bundles", limit_files=1)
        first = await bundles.open(Plan(tips[0]))
        await read(bundles, *tips[1:])
        assert first.path.stat().st_size == first.size
        again = await bundles.open(Plan(tips[0]))
        assert again.path != first.path
        bundles.release(first)
        assert not first.path.exists()
        bundles.release(again)
        assert files(tmp_path) == [again.path]

    asyncio.run(use())


def test_bytes_are_bounded_and_what_exceeds_the_bound_is_not_kept(
    repo: BareRepo, tips: list[str], tmp_path: Path
) -> None:
    async def use() -> None:
        size = (await Bundles(repo, tmp_path / "probe").open(Plan(tips[-1]))).size
        bundles = Bundles(repo, tmp_path / "cache", limit_bytes=size - 1)
        large = await bundles.open(Plan(tips[-1]))
        await read(bundles, *tips[:4])
        assert large.path.exists()
        bundles.release(large)
        sizes = [path.stat().st_size for path in (tmp_path / "cache").glob("*/*.bundle")]
        assert 0 < sum(sizes) < size

    asyncio.run(use())


def test_fifty_readers_of_one_bundle_get_it_written_once(
    repo: BareRepo, tips: list[str], tmp_path: Path
) -> None:
    async def use() -> None:
        bundles = Bundles(repo, tmp_path / "bundles")
        opened = await asyncio.gather(*(bundles.open(Plan(tips[-1])) for _ in range(50)))
        assert all(bundle is opened[0] for bundle in opened)
        assert opened[0].readers == 50

    asyncio.run(use())


def test_a_killed_hub_leaves_no_bundles_and_a_living_one_keeps_its_own(
    start_hub: Callable[..., HubProcess], work_tree: WorkTree, tmp_path: Path
) -> None:
    hub = start_hub()
    tip, out = work_tree.commit(), tmp_path / "x.bundle"
    key = hub.key("ada")
    with hub.client(key) as client:
        client.push(work_tree.bundle())
        client.fetch(tip, out)
        (left,) = files(hub.data)
        hub.kill()
        hub.start()
        assert not left.parent.exists()
        client.fetch(tip, out)
        (own,) = files(hub.data)
        second = HubProcess(hub.data, hub.flags)
        second.start()
        with second.client(key) as other:
            other.fetch(tip, out)
        assert len(files(hub.data)) == 2
        second.stop()
        assert files(hub.data) == [own]
        client.fetch(tip, out)
