"""Who may come in, as whom, and how often."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import ADMIN_KEY, Clock, Hub, HubProcess
from fastapi.testclient import TestClient

from ah_cli.client import ApiError
from server import wire
from server.settings import Registration, load_admin_key

MakeHub = Callable[..., Hub]


def test_open_registration_gives_a_key_that_works(hub: Hub) -> None:
    registered = hub.client().register("ada")
    assert hub.client(registered.api_key).whoami().id == "ada"


def test_registered_answer_holds_only_strings_as_the_original_client_needs(hub: Hub) -> None:
    answer = hub.http(None).post("/api/register", json={"id": "ada"})
    assert answer.status_code == 201
    assert all(isinstance(value, str) for value in answer.json().values())


def test_a_name_is_taken_once(hub: Hub) -> None:
    hub.client().register("ada")
    with pytest.raises(ApiError) as refusal:
        hub.client().register("ada")
    assert (refusal.value.status, refusal.value.code) == (409, wire.ErrorCode.AGENT_EXISTS)


@pytest.mark.parametrize("name", ["", "-ada", "a b", "a" * 64, "ада", "../etc", "a\n", "a\x00"])
def test_bad_names_are_refused(hub: Hub, name: str) -> None:
    answer = hub.http(None).post("/api/register", json={"id": name})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_registration_asks_for_an_invite_by_default(make_hub: MakeHub) -> None:
    with pytest.raises(ApiError) as refusal:
        make_hub().client().register("ada")
    assert (refusal.value.status, refusal.value.code) == (403, wire.ErrorCode.INVITE_REQUIRED)
    assert "agenthub invite" in (refusal.value.hint or "")


def test_the_admin_key_registers_whatever_the_hub_allows(make_hub: MakeHub) -> None:
    hub = make_hub(registration=Registration.CLOSED)
    assert hub.client(ADMIN_KEY).register("ada").id == "ada"
    with pytest.raises(ApiError) as refusal:
        hub.client().register("bob")
    assert refusal.value.code is wire.ErrorCode.REGISTRATION_CLOSED


def test_an_invite_printed_by_the_operator_registers_its_role_once(live_hub: HubProcess) -> None:
    code = subprocess.run(
        [sys.executable, "-m", "server", "invite", "--role=worker", f"--data={live_hub.data}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with live_hub.client() as nobody:
        assert nobody.register("invited-gpu", code).role is wire.Role.WORKER
        with pytest.raises(ApiError) as refusal:
            nobody.register("invited-gpu-2", code)
    assert refusal.value.status == 403


def test_a_refused_name_does_not_use_the_invite_up(make_hub: MakeHub) -> None:
    from datetime import timedelta

    from server import agents

    hub = make_hub()
    hub.key("ada")
    state = hub.app.state.hub
    with state.db.write() as conn:
        code = agents.create_invite(conn, wire.Role.AGENT, 1, timedelta(days=1), hub.clock())
    with pytest.raises(ApiError):
        hub.client().register("ada", code)
    assert hub.client().register("bob", code).id == "bob"


def test_ten_registrations_an_hour_from_one_address(hub: Hub, clock: Clock) -> None:
    for number in range(10):
        hub.client().register(f"agent{number}")
    with pytest.raises(ApiError) as refusal:
        hub.client().register("agent10")
    assert refusal.value.status == 429
    assert 0 < (refusal.value.retry_after or 0) <= 3600
    clock.advance(hours=1)
    assert hub.client().register("agent10")


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_address_is_a_host_and_not_a_notation(
    make_hub: MakeHub, first: str, second: str, is_one: bool
) -> None:
    hub = make_hub(registration=Registration.OPEN, max_registrations_per_hour=1)
    answers = [
        TestClient(hub.app, client=(host, 1)).post("/api/register", json={"id": f"agent{number}"})
        for number, host in enumerate((first, second))
    ]
    assert [answer.status_code for answer in answers] == [201, 429 if is_one else 201]


def test_failed_registrations_do_not_count(hub: Hub) -> None:
    for _ in range(20):
        assert hub.http(None).post("/api/register", json={"id": "no good"}).status_code == 400
    assert hub.client().register("ada")


def test_too_many_requests_tells_when_to_come_back(make_hub: MakeHub) -> None:
    hub = make_hub(registration=Registration.OPEN, max_registrations_per_hour=1)
    hub.client().register("ada")
    answer = hub.http(None).post("/api/register", json={"id": "bob"})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"]


def test_missing_and_wrong_keys_are_told_apart(hub: Hub) -> None:
    assert hub.http(None).get("/api/git/commits").json()["error"] == "missing authorization"
    wrong = hub.http(key="nonsense").get("/api/git/commits")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid api key")


def test_the_admin_key_is_not_an_identity(hub: Hub) -> None:
    answer = hub.http(key=ADMIN_KEY).get("/api/git/commits")
    assert answer.status_code == 401
    assert "admin key" in answer.json()["error"]


def test_an_agents_key_is_not_the_admin_key(hub: Hub) -> None:
    answer = hub.http("ada").post("/api/admin/agents", json={"id": "bob"})
    assert answer.status_code == 401


def test_an_agent_cannot_make_itself_a_worker(hub: Hub) -> None:
    answer = hub.http(None).post("/api/register", json={"id": "mallory", "role": "worker"})
    assert answer.json()["role"] == "agent"


def test_no_key_is_stored_in_the_data_directory(hub: Hub) -> None:
    key = hub.client().register("ada").api_key
    with sqlite3.connect(hub.data / "hub.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in hub.data.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


def test_a_made_admin_key_is_private_and_stays(tmp_path: object, make_hub: MakeHub) -> None:
    data = make_hub().data
    key, is_new = load_admin_key(data, None)
    assert is_new
    assert (data / "admin.key").stat().st_mode & 0o777 == 0o600
    assert load_admin_key(data, None) == (key, False)


def test_a_hub_without_a_given_key_prints_the_one_it_made_only_at_its_first_start(
    start_hub: Callable[..., HubProcess],
) -> None:
    hub = start_hub(admin_key="")
    key = (hub.data / "admin.key").read_text().strip()
    assert key in hub.greeting
    assert hub.url.startswith("http://127.0.0.1:")
    hub.stop()
    hub.start()
    assert key not in hub.greeting


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"id"', b'{"id": 5}', b"\xff", b"{" * 5000])
def test_bad_json_is_a_400_that_says_so(hub: Hub, body: bytes) -> None:
    answer = hub.http(None).post("/api/register", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_the_content_type_of_a_json_body_does_not_matter(hub: Hub) -> None:
    answer = hub.http(None).post(
        "/api/register",
        content=b'{"id": "curl", "unknown": 1}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 201


def test_json_bodies_are_capped(hub: Hub) -> None:
    answer = hub.http(None).post("/api/register", content=b" " * (64 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_unknown_paths_and_methods_answer_in_json(hub: Hub) -> None:
    missing = hub.http().get("/api/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = hub.http().delete("/api/channels")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


def test_head_works_wherever_get_does(hub: Hub) -> None:
    for path in ("/", "/api/health", "/api/git/leaves"):
        answer = hub.http().head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_halted_worker_is_shown_until_it_works_again(hub: Hub) -> None:
    worker = hub.worker()
    worker.report_halt(wire.HaltReport(place="box cuda:0", reason="<b>the disk is full</b>"))
    worker.report_halt(wire.HaltReport(place="box cuda:1", reason="it fell off the bus"))
    worker.report_halt(wire.HaltReport(place="box cuda:1", reason="it fell off the bus again"))
    told = [(halt.place, halt.reason) for halt in hub.agent().halts("gpu1")]
    assert sorted(told) == [
        ("box cuda:0", "<b>the disk is full</b>"),
        ("box cuda:1", "it fell off the bus again"),
    ]
    for page in ("/", "/workers/gpu1"):
        text = hub.http(name=None).get(page).text
        assert "box cuda:0" in text
        assert "&lt;b&gt;the disk is full" in text
    worker.report_halt(wire.HaltReport(place="box cuda:0"))
    worker.report_halt(wire.HaltReport(place="box cuda:1"))
    assert hub.agent().halts() == []
    assert "box cuda" not in hub.http(name=None).get("/workers/gpu1").text


def test_only_workers_halt(hub: Hub) -> None:
    with pytest.raises(ApiError) as refusal:
        hub.agent().report_halt(wire.HaltReport(place="here", reason="tired"))
    assert refusal.value.status == 403
