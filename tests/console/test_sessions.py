"""Who is logged in: by what, for how long, and what else could have sent it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Site, application
from gateway.console.sessions import COOKIE, ENDED, LASTS, TICKET_LASTS, Sessions, Tickets, secret_of
from gateway.core.errors import Forbidden, RateLimited
from gateway.pages.wrong_keys import MANY, WITHIN, WrongKeys
from gateway.settings import settings_from
from tests.console.door import OWN_PAGE, SESSION, bringing, from_page, log_in, session, token_of
from tests.keys.gate import ADMIN, CHAT, OWN, Gate, calling, configured, container, gate, hello, listening
from tests.serve.house import settings as without_keys

UPSTREAMS = "/admin/upstreams"
TALK = "/v1/chat/completions"


@asynccontextmanager
async def site(folder: Path, config: dict[str, Any] | None = None, **how: Any) -> AsyncIterator[Gate]:
    """A gateway at a site of this sort; by default with keys and without an admin key."""
    async with container(hello) as behind:
        top = {**configured(behind.port), "admin": {"key": ""}} if config is None else config
        models = configured(behind.port)["models"]
        app = application(settings_from({**top, "models": models}, {}), Site(folder, **how))
        async with listening(app) as port, calling(port) as client:
            yield Gate(port, behind, client, folder)


# --- in ---


async def test_the_admin_key_begins_a_session_that_opens_the_admin_api_and_the_models(
    tmp_path: Path,
) -> None:
    async with gate(tmp_path) as here:
        assert (await here.client.get(SESSION)).json() == {
            "object": "console.session",
            "expires": None,
            "open": False,
        }
        answer = await log_in(here)
        token = token_of(answer)
        told = answer.json()
        assert told["object"] == "console.session" and told["keeps"] == {"keys": True, "ledger": True}
        assert told["workers"] == 1
        assert abs(told["expires"] - time.time() - LASTS) < 60 and told["open"] is False
        assert (await here.client.get(SESSION, headers=bringing(token))).json() == told
        for path in (UPSTREAMS, "/admin/keys", "/v1/models", "/metrics", "/docs"):
            assert (await here.client.get(path, headers=bringing(token))).status_code == 200, path
        answer = await here.client.post(TALK, json=CHAT, headers=from_page(token))
        assert answer.json()["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(("origin", "secure"), [(None, False), ("https://{host}", True)])
async def test_the_cookie_is_for_this_site_alone_and_out_of_reach_of_scripts(
    tmp_path: Path, origin: str | None, secure: bool
) -> None:
    async with gate(tmp_path) as here:
        host = f"127.0.0.1:{here.port}"
        headers = {"origin": origin.format(host=host)} if origin else {}
        answer = await here.client.post(SESSION, json={"key": ADMIN}, headers=headers)
        _, *flags = answer.headers["set-cookie"].split("; ")
        wanted = ["HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LASTS}", *["Secure"] * secure]
        assert flags == wanted
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "wrong"}, 401),
        ({"key": OWN}, 401),
        ({"key": ADMIN + "x"}, 401),
        ({"ticket": "wrong"}, 401),
        ({}, 401),
        ({"key": ""}, 400),
        ({"key": 1}, 400),
        ({"key": ADMIN, "ticket": "x"}, 400),
        ({"keys": ADMIN}, 400),
        ([], 400),
        ("\ud800", 400),
    ],
)
async def test_nothing_else_begins_one(tmp_path: Path, body: Any, status: int) -> None:
    async with gate(tmp_path) as here:
        sent = {"content": b'"\\ud800"'} if isinstance(body, str) else {"json": body}
        answer = await here.client.post(SESSION, headers={"content-type": "application/json"}, **sent)
        assert answer.status_code == status, answer.text
        assert "set-cookie" not in answer.headers


async def test_too_many_wrong_keys_are_told_to_wait_wherever_they_are_tried_and_the_right_one_never_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gate(tmp_path) as here:
        token = await session(here)
        for turn in range(MANY):
            wrong = log_in(here, key="wrong") if turn % 2 else here.admin("GET", key="wrong")
            assert (await wrong).status_code == 401
        for wrong in (log_in(here, key="wrong"), here.admin("GET", key="wrong"), here.admin("POST", key=OWN)):
            answer = await wrong
            assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= WITHIN + 1
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert [line for line in caplog.messages if "wrong keys of the admin API" in line] == [
            "more than 10 wrong keys of the admin API within a minute"
        ]
        token_of(await log_in(here))
        assert (await here.admin("GET")).status_code == 200
        assert (await here.client.get(UPSTREAMS, headers=bringing(token))).status_code == 200
        assert (await here.client.get(UPSTREAMS)).status_code == 401  # that is no key
        assert (await here.ask(OWN)).status_code == 200


def test_wrong_keys_are_forgotten_in_time() -> None:
    now = 0.0
    wrong = WrongKeys(lambda: now)
    for _ in range(2 * MANY):
        now += WITHIN / MANY  # as many a minute as are well
        wrong.count()
    now += WITHIN
    for _ in range(MANY):
        wrong.count()
    with pytest.raises(RateLimited):
        wrong.count()
    now += WITHIN
    wrong.count()


async def test_where_no_key_is_needed_none_is_asked_for(tmp_path: Path) -> None:
    open_house = without_keys(1)
    async with site(tmp_path, open_house, loopback=True) as here:
        assert (await here.client.get(SESSION)).json()["open"] is True
        token = token_of(await here.client.post(SESSION, json={}))
        assert (await here.client.get(SESSION, headers=bringing(token))).json()["expires"]
        foreign = await here.client.post(SESSION, json={}, headers={"host": "evil.example"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "host_not_allowed")
        used = token_of(await here.client.post(SESSION, json={"ticket": "used"}))
        assert (await here.client.get(SESSION, headers=bringing(used))).json()["expires"]
        foreign = await here.client.post(SESSION, json={"ticket": "used"}, headers={"host": "evil.example"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "host_not_allowed")
    async with site(tmp_path, open_house, loopback=False) as here:
        assert (await here.client.get(SESSION)).json()["open"] is False
        refused = await here.client.post(SESSION, json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_disabled")


async def test_a_wrong_key_is_called_that(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        for key in ("wrong", OWN):
            assert "This key is wrong" in (await log_in(here, key=key)).json()["error"]["message"]
        none = await here.client.post(SESSION, json={}, headers=OWN_PAGE)
        assert "admin.key" in none.json()["error"]["message"]


# --- one-time addresses ---


async def test_a_ticket_logs_in_once_also_where_there_is_no_admin_key(tmp_path: Path) -> None:
    tickets = Tickets(time.time)
    async with site(tmp_path, tickets=tickets, workers=3) as here:
        assert (await here.client.get(UPSTREAMS)).status_code == 403
        ticket = tickets.new()
        answer = await log_in(here, ticket=ticket)
        assert answer.json()["workers"] == 3
        token = token_of(answer)
        assert (await here.client.get(UPSTREAMS, headers=bringing(token))).status_code == 200
        again = await log_in(here, ticket=ticket)
        assert (again.status_code, again.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_ticket_grows_old_and_the_newest_are_kept() -> None:
    now = 0.0
    tickets = Tickets(lambda: now)
    old, first = tickets.new(), tickets.new()
    now = TICKET_LASTS
    assert not tickets.redeem(old)
    now = 0.0
    new = [tickets.new() for _ in range(100)]
    assert not tickets.redeem(first)
    assert all(map(tickets.redeem, new)) and not any(map(tickets.redeem, new))


# --- what is no session ---


async def test_wrong_old_and_foreign_sessions_open_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        good = await session(here)
        expires, id, signature = good.split(".")
        now = time.time()
        later = f"{int(expires) + 1}.{id}.{signature}"
        wrong = {
            "nothing": "",
            "cut": good[:-1],
            "longer": good + "0",
            "later": later,
            "another id": f"{expires}.{id[::-1]}.{signature}",
            "another signature": f"{expires}.{id}.{signature[::-1]}",
            "unsigned": f"{expires}.{id}.",
            "over": Sessions(secret_of(ADMIN), lambda: now - LASTS - 1).begin().token,
            "of another key": Sessions(secret_of("another"), time.time).begin().token,
            "of no key": Sessions(secret_of(""), time.time).begin().token,
            "not ASCII": "é",
            "the admin key": ADMIN,
        }
        for name, token in wrong.items():
            head = {"cookie": f"{COOKIE}={token}".encode(), **OWN_PAGE}
            for method, path in (("GET", UPSTREAMS), ("GET", "/v1/models"), ("POST", TALK)):
                answer = await here.client.request(method, path, headers=head)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), name
            assert (await here.client.get(SESSION, headers=head)).json()["expires"] is None
        assert (await here.client.get(UPSTREAMS, headers=bringing(good))).status_code == 200


async def test_logging_out_ends_that_session_and_no_other(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        mine, other = await session(here), await session(here)
        answer = await here.client.delete(SESSION, headers=from_page(mine))
        assert answer.status_code == 204 and "Max-Age=0" in answer.headers["set-cookie"]
        assert (await here.client.get(UPSTREAMS, headers=bringing(mine))).status_code == 401
        assert (await here.client.get(UPSTREAMS, headers=bringing(other))).status_code == 200
        assert (await here.client.delete(SESSION)).status_code == 204  # nobody was logged in


def test_no_logged_out_session_comes_back_when_too_many_are_remembered() -> None:
    now = 1e9
    sessions = Sessions(b"secret", lambda: now)
    first = head(sessions.begin().token)
    assert sessions.expires(first) is not None
    sessions.end(first)
    now += 1
    for _ in range(ENDED):
        sessions.end(head(sessions.begin().token))
    assert sessions.expires(first) is None
    now += 1
    assert sessions.expires(head(sessions.begin().token)) is not None


def head(token: str, **more: bytes) -> dict[bytes, bytes]:
    named = {name.replace("_", "-").encode(): value for name, value in more.items()}
    return {b"cookie": f"{COOKIE}={token}".encode(), b"host": b"gw.example:8000", **named}


async def test_gateways_with_one_admin_key_take_each_others_sessions(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    async with gate(tmp_path / "a") as one, gate(tmp_path / "b") as two:
        token = await session(one)
        assert (await two.client.get(UPSTREAMS, headers=bringing(token))).status_code == 200
    async with gate(tmp_path / "c", admin={"key": "another"}) as three:
        assert (await three.client.get(UPSTREAMS, headers=bringing(token))).status_code == 401


async def test_workers_without_an_admin_key_take_each_others_sessions(tmp_path: Path) -> None:
    config = without_keys(1)
    async with (
        site(tmp_path, config, loopback=True, seed=b"1" * 32) as one,
        site(tmp_path, config, loopback=True, seed=b"1" * 32) as two,
        site(tmp_path, config, loopback=True) as stranger,
    ):
        token = token_of(await one.client.post(SESSION, json={}))
        assert (await two.client.get(SESSION, headers=bringing(token))).json()["expires"]
        assert (await stranger.client.get(SESSION, headers=bringing(token))).json()["expires"] is None


# --- other sites ---

CROSS = {
    "another site": {"sec_fetch_site": b"cross-site"},
    "another port": {"sec_fetch_site": b"same-site"},
    "nobody's page": {"sec_fetch_site": b"none"},
    "an empty word": {"sec_fetch_site": b""},
    "nothing said": {},
    "another origin": {"origin": b"http://evil.example"},
    "another port's origin": {"origin": b"http://gw.example:8001"},
    "a name that begins alike": {"origin": b"http://gw.example:8000.evil.example"},
    "an origin that is hidden": {"origin": b"null"},
    "an origin that is none": {"origin": b"http://[x"},
    "bytes": {"origin": b"\xff"},
    "both, of which one lies": {"sec_fetch_site": b"cross-site", "origin": b"http://gw.example:8000"},
    "a form": {"sec_fetch_site": b"same-origin", "content_type": b"text/plain", "content_length": b"2"},
    "a form in pieces": {"sec_fetch_site": b"same-origin", "transfer_encoding": b"chunked"},
}


@pytest.mark.parametrize("name", CROSS)
def test_what_another_site_may_have_sent_changes_nothing(name: str) -> None:
    sessions = Sessions(b"secret", time.time)
    sent = head(sessions.begin().token, **CROSS[name])
    with pytest.raises(Forbidden) as caught:
        sessions.admits(sent, changes=True)
    assert caught.value.code == "cross_site"
    assert sessions.admits(sent, changes=False)


@pytest.mark.parametrize(
    "sent",
    [
        {"sec_fetch_site": b"same-origin"},
        {"origin": b"http://gw.example:8000"},
        {"origin": b"https://GW.example:8000"},
        {"sec_fetch_site": b"same-origin", "content_type": b"application/json", "content_length": b"2"},
    ],
)
def test_its_own_page_may_change_things(sent: dict[str, bytes]) -> None:
    sessions = Sessions(b"secret", time.time)
    assert sessions.admits(head(sessions.begin().token, **sent), changes=True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
)
async def test_no_other_site_logs_anybody_in(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with gate(tmp_path) as here:
        sent = {"content-type": "application/json", **headers}
        answer = await here.client.post(SESSION, content=b'{"key": "%b"}' % ADMIN.encode(), headers=sent)
        assert answer.status_code == status and "set-cookie" not in answer.headers


async def test_no_other_site_logs_anybody_out(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        token = await session(here)
        head = {**bringing(token), "sec-fetch-site": "cross-site"}
        assert (await here.client.delete(SESSION, headers=head)).status_code == 403
        assert (await here.client.get(UPSTREAMS, headers=bringing(token))).status_code == 200


# --- beside keys ---


async def test_a_key_in_a_header_wins_over_the_cookie(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        token = await session(here)
        wrong = {**from_page(token), "authorization": "Bearer wrong"}
        for path in (UPSTREAMS, "/v1/models"):
            assert (await here.client.get(path, headers=wrong)).status_code == 401
        own = {**bringing(token), "x-api-key": OWN}
        assert (await here.client.post(TALK, json=CHAT, headers=own)).status_code == 200
        assert [row["key_name"] for row in await booked(here, token)] == ["own"]
        assert (await here.client.get(UPSTREAMS, headers=own)).status_code == 401


async def booked(here: Gate, token: str) -> list[dict[str, Any]]:
    """The ledger's rows, once there are any."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        answer = await here.client.get("/admin/requests", headers=bringing(token))
        if rows := answer.json()["data"]:
            return list(rows)
    raise AssertionError("no row came")


@pytest.mark.parametrize("mode", ["keys", "none"])
async def test_what_the_console_asks_is_booked_under_its_name(tmp_path: Path, mode: str) -> None:
    keys = {"keys": [{"name": "own", "key": OWN}]} if mode == "keys" else {"mode": "none"}
    async with gate(tmp_path, auth=keys) as here:
        token = await session(here)
        body = {**CHAT, "stream": True}
        answer = await here.client.post(TALK, json=body, headers=from_page(token))
        assert answer.text.endswith("data: [DONE]\n\n")  # it has no key that could end
        [row] = await booked(here, token)
        assert (row["key_id"], row["key_name"], row["streamed"]) == ("console", "console", True)


async def test_without_the_console_there_is_no_page_and_a_session_is_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path, admin={"key": ADMIN, "console": False}) as here:
        token = Sessions(secret_of(ADMIN), time.time).begin().token
        for method, path in (
            ("GET", "/"), ("HEAD", "/"), ("GET", "/console/main.js"),
            ("GET", SESSION), ("POST", SESSION), ("DELETE", SESSION),
        ):  # fmt: skip
            answer = await here.client.request(method, path, headers=from_page(token))
            assert answer.status_code == 404, path
        assert (await here.client.get(UPSTREAMS, headers=bringing(token))).status_code == 401
        assert (await here.client.get("/v1/models", headers=bringing(token))).status_code == 401
        assert (await here.admin("GET")).status_code == 200
