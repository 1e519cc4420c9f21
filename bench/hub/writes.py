"""The calls that write: pushes, posts, heartbeats, claims, results. Each checks its answers."""

import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.hub import client
from bench.hub.directory import AGENT_KEY, CHANNELS, CLAIM, WORKERS, worker_key
from bench.hub.pack import Parent, make_bundle
from bench.hub.sample import Sample
from bench.hub.table import Figures, Target

Drive = Callable[[int, float], Figures]


@dataclass(frozen=True, slots=True)
class Write:
    name: str
    #: Runs it with so many connections for so many seconds.
    drive: Drive
    target: Target | None = None


def list_writes(url: str, sample: Sample, count: int) -> Iterator[Write]:
    yield Write("push of one commit", _pushes(url, sample), Target(rate=100))
    yield Write("create post", _posts(url), Target(rate=1500, connections=64))
    yield Write("have", _have(url, sample))
    yield Write("heartbeat", _heartbeats(url), Target(rate=1000))
    claim = Target(p99=20) if count >= 20_000 else None
    yield Write("claim", _claims(url), claim)
    yield Write("claim and result", _results(url))


def _pushes(url: str, sample: Sample) -> Drive:
    run = secrets.token_hex(4)
    parents = [Parent.of(sample.line, seq) for seq in range(601, 1000, 20)]
    numbers = itertools.count()

    def following(_: int, __: int, ___: bytes) -> bytes:
        number = next(numbers)
        bundle = make_bundle(parents[number % len(parents)], f"# push {number} of {run}")
        return client.request("POST", "/api/git/push", AGENT_KEY, bundle, "")

    return lambda connections, seconds: client.drive(url, connections, seconds, following)


def _posts(url: str) -> Drive:
    numbers = itertools.count()

    def following(_: int, __: int, ___: bytes) -> bytes:
        number = next(numbers)
        text = f"post {number}: " + "the loss is flat after the warm down, who tries more? " * 4
        body = json.dumps({"content": text}).encode()
        path = f"/api/channels/{CHANNELS[number % len(CHANNELS)]}/posts"
        return client.request("POST", path, AGENT_KEY, body)

    return lambda connections, seconds: client.drive(url, connections, seconds, following)


def _have(url: str, sample: Sample) -> Drive:
    """What `ah push` asks first: do you know these?"""
    bodies = [
        json.dumps({"hashes": sample.commits[at : at + 30]}).encode()
        for at in range(0, len(sample.commits) - 30, 30)
    ]
    numbers = itertools.count()

    def following(_: int, __: int, ___: bytes) -> bytes:
        body = bodies[next(numbers) % len(bodies)]
        return client.request("POST", "/api/git/have", AGENT_KEY, body)

    return lambda connections, seconds: client.drive(url, connections, seconds, following)


# Runs -------------------------------------------------------------------------------------------


_CLAIM = CLAIM.model_dump_json().encode()


def _claim_request(number: int) -> bytes:
    return client.request("POST", "/api/runs", worker_key(_worker(number)), _CLAIM)


def _worker(number: int) -> str:
    return WORKERS[number % len(WORKERS)]


def _claims(url: str) -> Drive:
    def following(number: int, status: int, body: bytes) -> bytes | None:
        # 204: nothing is queued any more.
        return None if status == 204 else _claim_request(number)

    return lambda connections, seconds: client.drive(url, connections, seconds, following)


def _heartbeats(url: str) -> Drive:
    def drive(connections: int, seconds: float) -> Figures:
        held: dict[int, tuple[int, int]] = {}

        def take(number: int, status: int, body: bytes) -> bytes | None:
            if status == 0:
                return _claim_request(number)
            if status == 201:
                run = json.loads(body)
                held[number] = run["id"], run["fence"]
            return None

        client.drive(url, connections, 60.0, take)
        numbers = itertools.count(1)

        def following(number: int, _: int, __: bytes) -> bytes | None:
            if number not in held:
                return None
            id, fence = held[number]
            step = next(numbers)
            told = {"fence": fence, "step": step, "progress": step % 1000 / 1000, "loss": 3.2}
            path, key = f"/api/runs/{id}/heartbeat", worker_key(_worker(number))
            return client.request("POST", path, key, json.dumps(told).encode())

        return client.drive(url, connections, seconds, following)

    return drive


def _results(url: str) -> Drive:
    """Both are counted."""

    def following(number: int, status: int, body: bytes) -> bytes | None:
        if status == 204:
            return None
        run = json.loads(body) if status == 201 else {}
        if "fence" not in run:
            return _claim_request(number)
        told = {"fence": run["fence"], "outcome": "ok", "val_bpb": 0.99 + run["id"] % 997 / 1e5}
        path, key = f"/api/runs/{run['id']}/result", worker_key(_worker(number))
        return client.request("PUT", path, key, json.dumps(told).encode())

    return lambda connections, seconds: client.drive(url, connections, seconds, following)
