"""Many who write at once: threads, coroutines and processes on one database file."""

import asyncio
import resource
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from conftest import CLAIM, Clock, Hub, HubProcess
from sqlalchemy import text

from ah_cli.client import ApiError, HubClient, HubUnreachable
from server import errors, wire
from server.db import Connection, Database, IntegrityError, sqlite_url
from server.group_commit import GROUP_MAX, INLINE_MAX, GroupCommit

#: Increments a number that is there once, by all of them: a lost update would show.
WRITER = """
import sys
from pathlib import Path
from sqlalchemy import text
from server.db import Database, sqlite_url

db = Database(sqlite_url(Path(sys.argv[1])))
for _ in range(int(sys.argv[2])):
    with db.write() as conn:
        n = conn.execute(text("SELECT n FROM counter")).scalar_one()
        conn.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
        conn.execute(text("INSERT INTO log (who) VALUES (:who)"), {"who": sys.argv[3]})
"""


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(sqlite_url(tmp_path / "some.db"))
    with db.write() as conn:
        conn.execute(text("CREATE TABLE counter (n INTEGER)"))
        poison = "CHECK (who != 'poison')"
        conn.execute(text(f"CREATE TABLE log (id INTEGER PRIMARY KEY, who TEXT {poison})"))
        conn.execute(text("INSERT INTO counter VALUES (0)"))
    yield db
    db.close()


@pytest.fixture
def group(db: Database) -> Iterator[GroupCommit]:
    group = GroupCommit(db)
    yield group
    group.close()


def note(who: str) -> Callable[[Connection], str]:
    def work(conn: Connection) -> str:
        conn.execute(text("INSERT INTO log (who) VALUES (:who)"), {"who": who})
        return who

    return work


def noted(db: Database) -> list[str]:
    with db.read() as conn:
        return list(conn.execute(text("SELECT who FROM log ORDER BY id")).scalars())


def test_processes_take_turns_and_none_is_refused(db: Database, tmp_path: Path) -> None:
    count, writers = 150, [f"writer{number}" for number in range(4)]
    command = [sys.executable, "-c", WRITER, str(tmp_path / "some.db"), str(count)]
    processes = [
        subprocess.Popen([*command, who], stderr=subprocess.PIPE, text=True) for who in writers
    ]
    for process in processes:
        _, problems = process.communicate()
        assert (process.returncode, problems) == (0, "")
    with db.read() as conn:
        assert conn.execute(text("SELECT n FROM counter")).scalar_one() == 4 * count
    assert Counter(noted(db)) == dict.fromkeys(writers, count)


def test_threads_are_served_in_the_order_in_which_they_came(db: Database) -> None:
    arrived = []

    def write(number: int) -> None:
        with db.write() as conn:
            note(str(number))(conn)

    with db.turn(0):
        for number in range(8):
            thread = threading.Thread(target=write, args=(number,))
            thread.start()
            arrived.append(thread)
            while len(db._turns._queue._waiting) <= number:
                pass
    for thread in arrived:
        thread.join()
    assert noted(db) == [str(number) for number in range(8)]


def test_one_that_fails_undoes_itself_and_nothing_else(db: Database, group: GroupCommit) -> None:
    def half(conn: Connection) -> None:
        note("half")(conn)
        raise errors.NotFound("gone")

    async def all_at_once() -> list[object]:
        works = [note("a"), half, note("b"), note("poison"), note("c")]
        return await asyncio.gather(*map(group.write, works), return_exceptions=True)

    told = asyncio.run(all_at_once())
    assert [told[0], told[2], told[4]] == ["a", "b", "c"]
    assert isinstance(told[1], errors.NotFound)
    assert isinstance(told[3], IntegrityError)
    assert noted(db) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [1, INLINE_MAX, 2 * GROUP_MAX + 5])
def test_coroutines_and_threads_write_together(
    db: Database, group: GroupCommit, count: int
) -> None:
    async def coroutines() -> list[str]:
        return await asyncio.gather(*(group.write(note(f"c{n}")) for n in range(count)))

    with ThreadPoolExecutor(16) as pool:
        threads = [pool.submit(group.write_now, note(f"t{n}")) for n in range(count)]
        assert asyncio.run(coroutines()) == [f"c{n}" for n in range(count)]
        assert [job.result() for job in threads] == [f"t{n}" for n in range(count)]
    assert Counter(noted(db)) == Counter(f"{kind}{n}" for kind in "ct" for n in range(count))


def test_what_is_acknowledged_is_committed(db: Database, group: GroupCommit) -> None:
    async def write() -> None:
        for number in range(5):
            await group.write(note(str(number)))
            assert noted(db)[-1] == str(number)

    asyncio.run(write())


def test_the_end_writes_what_waits(db: Database) -> None:
    group = GroupCommit(db)
    with ThreadPoolExecutor(8) as pool:
        with db.turn(0):
            jobs = [pool.submit(group.write_now, note(str(n))) for n in range(8)]
            closing_thread = threading.Thread(target=group.close)
            while not group._is_led:
                pass
            closing_thread.start()
        assert {job.result() for job in jobs} == {str(n) for n in range(8)}
    closing_thread.join()
    assert len(noted(db)) == 8


def test_a_request_that_was_given_up_keeps_nobody_waiting(db: Database, group: GroupCommit) -> None:
    async def write() -> str:
        given_up = asyncio.create_task(group.write(note("given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        return await group.write(note("kept"))

    assert asyncio.run(write()) == "kept"
    assert "kept" in noted(db)


def test_a_database_that_another_program_locks_is_a_503(hub: Hub) -> None:
    agent = hub.agent()
    agent.create_channel("general")
    with closing(sqlite3.connect(hub.data / "hub.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = hub.http().post("/api/channels/general/posts", json={"content": "hi"})
        other.execute("ROLLBACK")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert agent.posts("general") == []
    agent.create_post("general", "now")


def test_a_full_disk_is_a_503_and_nothing_is_acknowledged(
    start_hub: Callable[..., HubProcess],
) -> None:
    hub = start_hub()
    with hub.client(hub.key("ada")) as agent:
        agent.create_channel("general")
        agent.create_post("general", "before")
        assert hub.process is not None
        limits = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
        # No file may grow: to the hub it is as if the disk were full.
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (4096, limits[1]))
        for _ in range(3):
            with pytest.raises(ApiError) as refusal:
                agent.create_post("general", "x" * 30_000)
            assert (refusal.value.status, refusal.value.code) == (503, "unavailable")
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, limits)
        agent.create_post("general", "after")
        assert [post.content for post in agent.posts("general")] == ["after", "before"]


def test_quotas_are_exact_under_concurrency(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(max_posts_per_hour=20)
    hub.agent("bob").create_channel("general")
    clients = [hub.agent("ada") for _ in range(8)]

    def post(client: HubClient) -> list[int]:
        statuses = []
        for number in range(5):
            try:
                client.create_post("general", str(number))
                statuses.append(201)
            except ApiError as error:
                statuses.append(error.status)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        told = Counter(status for found in pool.map(post, clients) for status in found)
    assert told == {201: 20, 429: 20}
    assert len(hub.agent("bob").posts("general")) == 20


def test_posts_acknowledged_in_a_burst_survive_kill_dash_nine(
    start_hub: Callable[..., HubProcess],
) -> None:
    hub = start_hub()
    with hub.client(hub.key("ada")) as agent:
        agent.create_channel("general")
    keys = [hub.key(f"agent{number}") for number in range(8)]
    acknowledged: dict[int, str] = {}

    def post(key: str, stop: threading.Event) -> None:
        with hub.client(key) as client:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    made = client.create_post("general", f"{key} {number}")
                except HubUnreachable:
                    return
                acknowledged[made.id] = made.content
                enough.set() if len(acknowledged) > wanted else None

    for round in range(2):
        stop, enough, wanted = threading.Event(), threading.Event(), 60 * (round + 1)
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(post, key, stop) for key in keys]
            assert enough.wait(60)
            hub.kill()
            stop.set()
            for job in jobs:
                job.result()
        with closing(sqlite3.connect(hub.data / "hub.db")) as file:
            kept = dict(file.execute("SELECT id, content FROM posts").fetchall())
            events = file.execute("SELECT count(*) FROM events WHERE kind = 'post'").fetchone()
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert acknowledged.items() <= kept.items()
        assert events == (len(kept),)
        hub.start()


def test_heartbeats_of_one_group_renew_their_own_leases(hub: Hub, clock: Clock) -> None:
    worker = hub.worker()
    with pytest.raises(ApiError) as refusal:
        worker.heartbeat(1, wire.Heartbeat(fence=1))
    assert refusal.value.status == 404
    assert hub.http().post("/api/runs/x/heartbeat", json={"fence": 1}).status_code in (400, 403)
    assert worker.claim(CLAIM) is None
