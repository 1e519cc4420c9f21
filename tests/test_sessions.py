"""Sessions of browsers: private hubs, logging in and out, forms that only the hub's pages send."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ADMIN_KEY, Clock, Hub, WorkTree
from fastapi.testclient import TestClient
from httpx import Response

from server import wire
from server.settings import Pages, Registration

HERE = {"Origin": "http://testserver"}
ELSEWHERE = {"Origin": "https://evil.example"}


@pytest.fixture
def private(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(registration=Registration.OPEN, pages=Pages.PRIVATE)


def browser(hub: Hub) -> TestClient:
    return TestClient(hub.app, follow_redirects=False, raise_server_exceptions=False)


def log_in(hub: Hub, name: str = "ada", next: str = "/") -> TestClient:
    http = browser(hub)
    answer = http.post("/login", data={"key": hub.key(name), "next": next}, headers=HERE)
    assert answer.status_code == 303, answer.text
    assert answer.headers["Location"] == next
    return http


def token_of(http: TestClient, path: str = "/login") -> str:
    found = re.search('name="token" value="([0-9a-f]+)"', http.get(path).text)
    assert found is not None
    return found[1]


def write(http: TestClient, path: str, content: str, **more: str) -> Response:
    data = {"content": content, "token": token_of(http), **more}
    return http.post(path, data=data, headers=HERE)


# Private hubs -----------------------------------------------------------------------------------


def test_a_private_hub_leads_everyone_to_the_login(private: Hub, work_tree: WorkTree) -> None:
    hash = work_tree.commit("secret", train_py="x\n")
    private.agent().push(work_tree.bundle())
    private.agent().create_channel("general", "secret")
    http = browser(private)
    shown = (
        *("/", "/commits", f"/commits/{hash}", f"/commits/{hash}/tree", "/channels", "/compare"),
        *(f"/commits/{hash}/blob/train.py", f"/compare/{hash}/{hash}", "/channels/general"),
        *("/posts/1", "/agents", "/agents/ada", "/workers", "/runs/1", "/tracks/1", "/search?q=a"),
    )
    for path in shown:
        answer = http.get(path)
        assert (answer.status_code, answer.headers["Location"][:12]) == (303, "/login?next="), path
        assert "secret" not in answer.text
    inside = log_in(private)
    assert [path for path in shown if inside.get(path).status_code == 303] == []


def test_every_page_has_the_door(private: Hub) -> None:
    http = browser(private)
    open_to_all = {"/login", "/logout", "/static/{name}", "/static/{version}/{name}"}
    api = set(private.app.openapi()["paths"]) | {"/docs", "/docs/oauth2-redirect", "/redoc"}
    paths = {getattr(route, "path", "") for route in _routes(private.app.router.routes)}
    assert "/posts/{id}" in paths
    for path in paths - open_to_all - api - {"/openapi.json", ""}:
        if not path.startswith(("/api", "/repo.git")):
            answer = http.get(re.sub(r"\{[^}]*\}", "1", path))
            assert answer.status_code in (303, 401), path


def _routes(routes: list[object]) -> list[object]:
    found: list[object] = []
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        found += _routes(inner) if inner else [route]
    return found


def test_the_login_leads_on_to_what_was_asked_for(private: Hub) -> None:
    http = browser(private)
    asked = http.get("/commits?before=abc").headers["Location"]
    assert asked == "/login?next=/commits%3Fbefore%3Dabc"
    assert 'name="next" value="/commits?before=abc"' in http.get(asked).text


@pytest.mark.parametrize(
    "next", ["//evil.example", "https://evil.example", "/\\evil", "x", "/login"]
)
def test_the_login_leads_nowhere_else(private: Hub, next: str) -> None:
    data = {"key": private.key("ada"), "next": next}
    answer = browser(private).post("/login", data=data, headers=HERE)
    assert answer.headers["Location"] == "/"


def test_a_wrong_key_is_refused_and_not_repeated(private: Hub) -> None:
    for key in ("0" * 64, "", ADMIN_KEY, "é"):
        answer = browser(private).post("/login", data={"key": key}, headers=HERE)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
        assert not key or key not in answer.text


def test_the_cookie_is_for_this_hub_alone_and_holds_no_key(private: Hub) -> None:
    data = {"key": private.key("ada")}
    cookie = browser(private).post("/login", data=data, headers=HERE).headers["Set-Cookie"]
    assert {"httponly", "samesite=lax", "path=/"} <= set(cookie.lower().split("; "))
    assert private.key("ada") not in cookie
    https = TestClient(private.app, base_url="https://testserver", follow_redirects=False)
    headers = {"Origin": "https://testserver"}
    assert "Secure" in https.post("/login", data=data, headers=headers).headers["Set-Cookie"]


def test_sessions_outlive_the_process_but_not_their_time(
    make_hub: Callable[..., Hub], clock: Clock
) -> None:
    http = log_in(make_hub(registration=Registration.OPEN, pages=Pages.PRIVATE))
    again = browser(make_hub(pages=Pages.PRIVATE))
    again.cookies = http.cookies
    clock.advance(days=29)
    assert again.get("/").status_code == 200
    clock.advance(days=2)
    assert again.get("/").status_code == 303


def test_a_disabled_agent_sees_nothing_more(private: Hub) -> None:
    http = log_in(private)
    assert http.get("/").status_code == 200
    with private.app.state.hub.db.write() as conn:
        conn.exec_driver_sql("UPDATE agents SET disabled_at = created_at WHERE id = 'ada'")
    assert http.get("/").status_code == 303


def test_a_new_key_ends_the_sessions_of_the_old_one(private: Hub) -> None:
    http = log_in(private)
    with private.app.state.hub.db.write() as conn:
        conn.exec_driver_sql("UPDATE agents SET key_hash = 'another' WHERE id = 'ada'")
    assert http.get("/").status_code == 303


def test_a_forged_cookie_opens_nothing(private: Hub) -> None:
    cookie = log_in(private).cookies["agenthub_session"]
    id, expires, signature = cookie.split(".")
    other = log_in(private, "bob").cookies["agenthub_session"].split(".")[0]
    forged = (
        *(
            f"{other}.{expires}.{signature}",
            f"{id}.{int(expires) + 1}.{signature}",
            f"{id}.{expires}.",
        ),
        *("", "a.b", "....", f"{id}.x.{signature}", "%ff.9999999999.0", f"{cookie}0", "é.1.2"),
    )
    for value in forged:
        http = browser(private)
        answer = http.get("/", headers={b"Cookie": f"agenthub_session={value}".encode("latin-1")})
        assert answer.status_code == 303, value


def test_logging_out_ends_the_session_in_this_browser(private: Hub) -> None:
    http = log_in(private)
    assert http.post("/logout", data={"token": "0" * 64}, headers=HERE).status_code == 403
    assert http.get("/").status_code == 200
    assert http.post("/logout", data={"token": token_of(http)}, headers=HERE).status_code == 303
    assert http.get("/").status_code == 303


def test_the_secret_is_only_for_the_hub(private: Hub) -> None:
    path: Path = private.data / "session.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().strip()) == 64


# Writing ----------------------------------------------------------------------------------------


@pytest.fixture
def general(hub: Hub) -> Hub:
    hub.agent().create_channel("general", "Talk")
    return hub


def test_who_is_logged_in_can_post_and_reply(general: Hub) -> None:
    http = log_in(general)
    posted = write(http, "/channels/general", "Hello\r\n**all**")
    assert posted.status_code == 303
    replied = write(http, posted.headers["Location"].partition("#")[0], "And so on")
    assert replied.status_code == 303
    reply, post = general.agent().posts("general")
    assert (post.agent_id, post.content, post.parent_id) == ("ada", "Hello\n**all**", None)
    assert (reply.content, reply.parent_id) == ("And so on", post.id)
    assert "<strong>all</strong>" in http.get(replied.headers["Location"]).text


def test_without_a_session_nothing_can_be_written(general: Hub) -> None:
    answer = browser(general).post("/channels/general", data={"content": "x"}, headers=HERE)
    assert answer.status_code == 401
    assert "textarea" not in browser(general).get("/channels/general").text
    assert general.agent().posts("general") == []


@pytest.mark.parametrize(
    "headers",
    [
        *({}, ELSEWHERE, {"Origin": "null"}, {"Origin": "http://testserver.evil.example"}),
        *({**HERE, "Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none")),
    ],
)
def test_a_form_of_another_site_changes_nothing(general: Hub, headers: dict[str, str]) -> None:
    http = log_in(general)
    data = {"content": "x", "token": token_of(http)}
    assert http.post("/channels/general", data=data, headers=headers).status_code == 403
    assert browser(general).post("/login", data=data, headers=headers).status_code == 403
    assert general.agent().posts("general") == []


def test_a_proxy_that_changes_the_host_is_no_hindrance_on_tls(general: Hub) -> None:
    http = log_in(general)
    data = {"content": "x", "token": token_of(http)}
    headers = {"Origin": "https://hub.example", "Sec-Fetch-Site": "same-origin"}
    assert http.post("/channels/general", data=data, headers=headers).status_code == 303


def test_a_form_of_another_session_is_refused(general: Hub) -> None:
    theirs = token_of(log_in(general, "bob"))
    for token in (theirs, "", "é"):
        answer = write(log_in(general), "/channels/general", "x", token=token)
        assert answer.status_code == 403
    assert general.agent().posts("general") == []


def test_a_refused_post_keeps_what_was_written(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(registration=Registration.OPEN, max_posts_per_hour=1)
    hub.agent().create_channel("general")
    http = log_in(hub)
    first = write(http, "/channels/general", "first").headers["Location"]
    for path in ("/channels/general", first.partition("#")[0]):
        answer = write(http, path, "the <second> one")
        assert answer.status_code == 429
        assert "post quota of 1 per hour exceeded" in answer.text
        assert ">\nthe &lt;second&gt; one</textarea>" in answer.text


@pytest.mark.parametrize(
    ("content", "status"), [("", 400), (" \n ", 400), ("x" * 32_769, 400), ("a\0b", 400)]
)
def test_what_cannot_be_a_post_is_refused(general: Hub, content: str, status: int) -> None:
    assert write(log_in(general), "/channels/general", content).status_code == status
    assert general.agent().posts("general") == []


def test_forms_are_bounded_and_read_strictly(general: Hub) -> None:
    http = log_in(general)
    assert http.post("/login", content=b"key=" + b"x" * 200_000, headers=HERE).status_code == 413
    for body in (b"\xff", b"key=%ff", b"&".join(b"a=1" for _ in range(50))):
        assert http.post("/login", content=body, headers=HERE).status_code == 400


def test_workers_may_look_too(private: Hub) -> None:
    private.key("gpu1", wire.Role.WORKER)
    assert log_in(private, "gpu1").get("/workers").status_code == 200
