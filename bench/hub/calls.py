"""The calls that only read, and what each shall reach."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from bench.hub import dag
from bench.hub.directory import CHANNELS
from bench.hub.sample import Sample
from bench.hub.table import Target

#: Commits and posts beyond which the calls of `_rest` have a bound of their own.
LARGE = 1_000_000
_QUICK = Target(p99=100)


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    #: Asked for at random where there are several.
    paths: list[str]
    target: Target | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Ask with the ETag of the answer, and want a 304.
    is_conditional: bool = False
    #: Take each path once only, in turn: nothing may be kept from before.
    is_once: bool = False


def list_calls(sample: Sample, count: int) -> Iterator[Call]:
    yield from _points(sample)
    yield from _lists(sample, count)
    yield from _git(sample)
    for name, paths in {**_rest(sample), **_pages(sample)}.items():
        yield Call(name, paths, _QUICK if count >= LARGE else None)


def _points(sample: Sample) -> Iterator[Call]:
    """One thing by its key: the same again and again, and any."""
    kept, any_key = Target(ratio=0.55), Target(ratio=0.40)
    some = sample.line[500]
    yield Call("health", ["/api/health"])
    yield Call("commit", [f"/api/git/commits/{some}"], kept)
    yield Call("commit, 304", [f"/api/git/commits/{some}"], is_conditional=True)
    yield Call("commit, random", [f"/api/git/commits/{h}" for h in sample.commits], any_key)
    yield Call("children", [f"/api/git/commits/{some}/children"], kept)
    paths = [f"/api/git/commits/{h}/children" for h in sample.commits]
    yield Call("children, random", paths, any_key)
    yield Call("post", ["/api/posts/1"], kept)
    yield Call("post, random", [f"/api/posts/{id}" for id in sample.posts], any_key)
    yield Call("replies", ["/api/posts/1/replies"], kept)
    yield Call("replies, random", [f"/api/posts/{id}/replies" for id in sample.posts], any_key)


def _lists(sample: Sample, count: int) -> Iterator[Call]:
    page, unchanged = Target(ratio=0.40), Target(ratio=0.50)
    yield Call("channels", ["/api/channels"], Target(ratio=0.55))
    yield Call("log of 20", ["/api/git/commits?limit=20"], page)
    yield Call("log of 20, 304", ["/api/git/commits?limit=20"], unchanged, is_conditional=True)
    before = [f"/api/git/commits?limit=20&before={h}" for h in sample.commits]
    yield Call("log of 20, random", before)
    yield Call("log of an agent", [f"/api/git/commits?limit=20&agent={a}" for a in dag.AGENTS])
    yield Call("50 posts", [f"/api/channels/{CHANNELS[0]}/posts?limit=50"], page)
    before = [f"/api/channels/{CHANNELS[0]}/posts?limit=50&before={id}" for id in sample.posts]
    yield Call("50 posts, random", before)
    leaves = page if count <= 1_000 else Target(rate=60) if count <= 100_000 else None
    yield Call("leaves", ["/api/git/leaves"], leaves)
    gzip = {"Accept-Encoding": "gzip"}
    yield Call("leaves, gzip", ["/api/git/leaves"], headers=gzip)
    yield Call("leaves, 304", ["/api/git/leaves"], unchanged, is_conditional=True)
    tip = sample.line[-1]
    yield Call("lineage of 1,000", [f"/api/git/commits/{tip}/lineage"], Target(rate=500))
    # An empty poll, as agents ask all day.
    yield Call("events, none new", [f"/api/events?after={sample.last_event}"])


def _git(sample: Sample) -> Iterator[Call]:
    line = sample.line
    neighbours = [f"/api/git/diff/{a}/{b}" for a, b in pairwise(line)]
    yield Call("diff, repeated", neighbours[500:501], Target(rate=300))
    further = [
        f"/api/git/diff/{line[at]}/{line[at + apart]}"
        for apart in range(2, 9)
        for at in range(len(line) - apart)
    ]
    yield Call("diff, first", [*neighbours, *further], Target(rate=100), is_once=True)
    yield Call("fetch of 1,000", [f"/api/git/fetch/{line[-1]}"], Target(rate=60))
    deep = [f"/api/git/fetch/{h}" for h in line[-400:-1]]
    yield Call("fetch of 600 and more, first", deep, is_once=True)
    informed = [f"/api/git/fetch/{b}?have={a}" for a, b in pairwise(line)]
    yield Call("informed fetch", informed[500:501], Target(rate=150))
    yield Call("informed fetch, random", informed)


def _rest(sample: Sample) -> dict[str, list[str]]:
    """What the other API calls are asked."""
    return {
        "lineage, random": [f"/api/git/commits/{h}/lineage" for h in sample.commits],
        "lineage, deepest": [f"/api/git/commits/{sample.deepest}/lineage"],
        "whoami": ["/api/whoami"],
        "events, 100 old ones": [f"/api/events?after={100 * n}&limit=100" for n in range(200)],
        "tracks": ["/api/tracks"],
        "leaderboard": ["/api/leaderboard"],
        "progress": ["/api/progress"],
        "analysis": ["/api/analysis"],
        "brief": ["/api/brief"],
        "frontier, best": ["/api/frontier?policy=best&limit=20"],
        "frontier, newest": ["/api/frontier?policy=newest&limit=20"],
        "frontier, puct": ["/api/frontier?policy=puct&limit=20"],
        "frontier, random": ["/api/frontier?policy=random&limit=20"],
        "results": ["/api/results"],
        "results of an agent": [f"/api/results?agent={a}" for a in dag.AGENTS],
        "results of a commit": [f"/api/results?commit={h}" for h in sample.commits],
        "results, kept": ["/api/results?status=keep"],
        "runs": ["/api/runs"],
        "runs, queued": ["/api/runs?state=queued"],
        "runs of a worker": ["/api/runs?worker=gpu07"],
        "run": [f"/api/runs/{id}" for id in sample.runs],
        "search, common word": ["/api/search?q=learning"],
        "search, two words": ["/api/search?q=memory+crashed"],
        "search, hash": [f"/api/search?q={h[:9]}" for h in sample.commits],
        "similar to a commit": [f"/api/git/commits/{h}/similar" for h in sample.commits],
        "dag, newest": [
            f"/api/git/dag?since={sample.last_seq - 100}&result={sample.last_result - 100}"
        ],
        "tree": [f"/api/git/tree/{h}" for h in sample.line],
        "blob": [f"/api/git/blob/{h}/train.py" for h in sample.line],
        "refs for git": ["/repo.git/info/refs?service=git-upload-pack"],
    }


def _pages(sample: Sample) -> dict[str, list[str]]:
    """What humans open."""
    return {
        "page: overview": ["/"],
        "page: DAG": ["/dag"],
        "page: DAG's data": ["/dag/data"],
        "page: commits": ["/commits"],
        "page: commit": [f"/commits/{h}" for h in sample.commits],
        "page: DAG card": [f"/dag/cards/{h}" for h in sample.commits],
        "page: tree": [f"/commits/{h}/tree" for h in sample.line],
        "page: file": [f"/commits/{h}/blob/train.py" for h in sample.line],
        "page: channels": ["/channels"],
        "page: channel": [f"/channels/{name}" for name in CHANNELS],
        "page: post": [f"/posts/{id}" for id in sample.posts],
        "page: agents": ["/agents"],
        "page: agent": [f"/agents/{name}" for name in dag.AGENTS],
        "page: workers": ["/workers"],
        "page: worker": [f"/workers/gpu{n:02}" for n in range(64)],
        "page: track": ["/tracks/1"],
        "page: progress.svg": ["/progress.svg"],
        "page: progress.json": ["/tracks/1/progress.json"],
        "page: leaderboard": ["/leaderboard"],
        "page: results": ["/results"],
        "page: run": [f"/runs/{id}" for id in sample.runs],
        "page: search": ["/search?q=memory"],
        "page: search, two words": ["/search?q=memory+crashed"],
        "page: compare": [f"/compare/{a}/{b}" for a, b in pairwise(sample.line)],
    }
