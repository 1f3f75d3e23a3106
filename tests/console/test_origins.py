"""Which requests of a browser are answered: from the console's own page, from one of another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.console.sessions import foreign, own_origin
from gateway.core.errors import TooLarge
from gateway.http.exchange import read_body, read_head
from tests.console.door import SESSION, bringing, session
from tests.keys.gate import ADMIN, CHAT, Gate, gate

ALLOW = "access-control-allow-origin"
EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
EVERYONE = {"cors_origins": ["*"]}
PRIVATE = ["/admin/keys", "/admin/requests", "/admin/usage", "/admin/upstreams", "/admin/overview", SESSION]


@pytest.fixture(params=["keys", "none"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway whose models every origin may call, with keys and without."""
    top: Mapping[str, Any] = {}
    if request.param == "none":
        top = {"auth": {"mode": "none"}, "admin": {"key": ""}}
    async with gate(tmp_path, server=EVERYONE, **top) as here:
        yield here


@pytest.mark.parametrize("path", PRIVATE)
async def test_no_origin_may_read_the_admin_api_or_the_console(shared: Gate, path: str) -> None:
    asked = await shared.client.options(path, headers={**EVIL, **ASKS})
    assert asked.status_code == 405 and ALLOW not in asked.headers
    for key in ({}, {"x-api-key": ADMIN}):
        answer = await shared.client.get(path, headers={**EVIL, **key})
        assert ALLOW not in answer.headers


async def test_models_answer_the_origins_that_may_call(shared: Gate) -> None:
    for path in ("/v1/models", "/v1/chat/completions", "/administrators"):
        asked = await shared.client.options(path, headers={**EVIL, **ASKS})
        assert asked.status_code == 200 and asked.headers[ALLOW] == "*"


@pytest.mark.parametrize(
    "site", [EVIL, {"origin": "null"}, {"origin": "http://localhost:3000"}, {"sec-fetch-site": "same-site"}]
)
async def test_an_open_admin_api_answers_no_page_of_another_site(
    tmp_path: Path, site: dict[str, str]
) -> None:
    async with gate(tmp_path, auth={"mode": "none"}, admin={"key": ""}, server=EVERYONE) as here:
        for method, path in (
            ("GET", "/admin/keys"), ("GET", "/admin/requests"), ("POST", "/admin/keys"),
            ("DELETE", "/admin/keys/ann"), ("POST", "/admin/models/m/warm"), ("POST", SESSION),
        ):  # fmt: skip
            answer = await here.client.request(method, path, headers=site, json={"name": "evil"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site"), path
        assert (await here.client.post("/v1/chat/completions", json=CHAT, headers=site)).status_code == 200
        own = {"origin": f"http://127.0.0.1:{here.port}"}
        for mine in ({}, own, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}):
            answer = await here.client.get("/admin/keys", headers=mine)
            assert [row["name"] for row in answer.json()["data"]] == []


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (b"http://gw:8000", True),
        (b"https://GW:8000", True),
        (b"chrome-extension://gw:8000", False),
        (b"ftp://gw:8000", False),
        (b"//gw:8000", False),
        (b"gw:8000", False),
    ],
)
def test_an_origin_is_a_web_page_s(origin: bytes, *, own: bool) -> None:
    head = {b"host": b"gw:8000", b"origin": origin}
    assert own_origin(head) is own and foreign(head) is not own


def test_cookies_that_came_apart_are_put_together() -> None:
    pairs = [(b"cookie", b"a=1"), (b"host", b"gw"), (b"cookie", b"b=2; c=3"), (b"x-other", b"1")]
    head = read_head({"headers": pairs, "http_version": "1.1"})
    assert head[b"cookie"] == b"a=1; b=2; c=3"


async def test_a_session_in_the_first_of_two_cookie_headers_counts(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        brought = bringing(await session(here))["cookie"]
        for cookies in ((brought, "theme=dark"), ("theme=dark", brought)):
            head = [("cookie", each) for each in cookies]
            assert (await here.client.get("/admin/keys", headers=head)).status_code == 200


async def test_head_of_the_session_is_that_of_get(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        head, got = await here.client.head(SESSION), await here.client.get(SESSION)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(("path", "bound"), [(SESSION, 4096), ("/admin/keys", 65536)])
async def test_a_body_that_is_too_large_is_told_the_bound_that_counts(
    tmp_path: Path, path: str, bound: int
) -> None:
    async with gate(tmp_path) as here:
        answer = await here.client.post(path, json={"key": "x" * bound}, headers={"x-api-key": ADMIN})
        message = f"The request body is larger than {bound} bytes."
        assert (answer.status_code, answer.json()["error"]["message"]) == (413, message)


async def test_a_bound_that_can_be_set_is_named() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"123", "more_body": True}

    with pytest.raises(TooLarge, match=r"2 bytes \(server\.max_body\)"):
        await read_body(receive, {}, 2)
