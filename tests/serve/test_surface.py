"""The HTTP surface: keys, models, health, errors in one envelope, and requests that lie about themselves."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest

from gateway.auth import Caller
from tests.serve.house import House, house, soon
from tests.serve.test_chat import ASK, greet, post

KEY = "sk-test-0123456789"
KEYED = {
    "auth": {
        "keys": [
            {"name": "all", "key": KEY},
            {"name": "some", "sha256": hashlib.sha256(b"sk-some").hexdigest(), "models": ["other*"]},
            {"name": "unset", "key": ""},
        ]
    }
}
CLOSED = ["/v1/models", "/v1/models/m", "/models", "/metrics", "/docs", "/openapi.json"]


async def call(at: House, method: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"http://127.0.0.1:{at.port}{path}", timeout=10, **options)


def error(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, checked to be OpenAI's envelope with a request id."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and body["error"]["type"]
    return dict(body["error"])


async def ask_as(at: House, **headers: str) -> httpx.Response:
    return await call(at, "POST", "/v1/chat/completions", json=ASK, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer " + "x" * 20_000},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"authorization": "Bearer clé"},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer " + hashlib.sha256(b"sk-some").hexdigest()},
    ],
)
async def test_a_wrong_key_is_a_401_in_the_envelope(headers: dict[str, str]) -> None:
    async with house(greet, KEYED) as at:
        encoded = {name: value.encode() for name, value in headers.items()}
        response = await call(at, "POST", "/v1/chat/completions", json=ASK, headers=encoded)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert error(response)["code"] == "invalid_api_key"
        assert at.container.visits == []


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
async def test_a_key_is_taken_from_the_usual_headers(name: str) -> None:
    async with house(greet, KEYED) as at:
        value = f"Bearer {KEY}" if name == "authorization" else KEY
        assert (await ask_as(at, **{name: value})).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
async def test_every_page_but_health_needs_a_key(path: str) -> None:
    async with house(greet, KEYED, loopback=False) as at:
        assert (await call(at, "GET", path)).status_code == 401
        assert (await call(at, "GET", path, headers={"x-api-key": KEY})).status_code == 200
        assert (await call(at, "GET", "/health")).status_code == 200


async def test_a_key_sees_and_calls_only_its_models() -> None:
    async with house(greet, KEYED) as at:
        listed = await call(at, "GET", "/v1/models", headers={"x-api-key": "sk-some"})
        assert listed.json() == {"object": "list", "data": []}
        refused = await ask_as(at, authorization="Bearer sk-some")
        assert refused.status_code == 404
        assert error(refused)["code"] == "model_not_found"


async def test_models_are_listed_with_their_aliases_and_wake_nobody() -> None:
    async with house(greet, aliases=["gpt-3.5-turbo", "org/name"]) as at:
        cards = (await call(at, "GET", "/v1/models")).json()["data"]
        assert [(card["id"], card["root"], card["object"]) for card in cards] == [
            ("m", "m", "model"),
            ("gpt-3.5-turbo", "m", "model"),
            ("org/name", "m", "model"),
        ]
        assert (await call(at, "GET", "/v1/models/org/name")).json() == cards[2]
        assert at.container.visits == []


async def test_an_unknown_model_is_a_404_that_names_the_nearest() -> None:
    async with house(greet, aliases=["chatglm2-6b"]) as at:
        response = await post(at, model="chatglm-6b")
        assert response.status_code == 404
        assert error(response)["code"] == "model_not_found"
        assert "`chatglm2-6b`" in error(response)["message"]


async def test_a_default_model_takes_every_name_and_answers_under_it() -> None:
    async with house(greet, {"default_model": "m"}) as at:
        assert (await post(at, model="gpt-4o")).json()["model"] == "gpt-4o"
        assert (await post(at, model=None)).json()["model"] == "m"


async def test_render_shows_the_prompt_without_calling_the_model() -> None:
    async with house(greet, template="chatml") as at:
        shown = (
            await call(at, "POST", "/v1/chat/completions/render", json={**ASK, "stop": "X", "top_p": 1})
        ).json()
        assert shown["prompt"].endswith("<|im_start|>assistant\n")
        assert "X" in shown["stop"]
        assert shown["call"] == {"prompt": shown["prompt"], "top_p": 1, "stop": shown["stop"], "stream": True}
        assert at.container.visits == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/chat/completions", 405, "method_not_allowed"),
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/v1/chat/completions", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/models/nope", 404, "model_not_found"),
    ],
)
async def test_wrong_routes_are_answered_in_the_envelope(
    method: str, path: str, status: int, code: str
) -> None:
    async with house(greet) as at:
        response = await call(at, method, path)
        assert response.status_code == status
        assert error(response)["code"] == code


async def test_a_doubled_v1_is_explained() -> None:
    async with house(greet) as at:
        assert "OPENAI_BASE_URL" in error(await call(at, "POST", "/v1/v1/chat/completions"))["message"]


@pytest.mark.parametrize("path", [*CLOSED, "/health", "/health/live", "/health/ready"])
async def test_head_tells_what_get_would_and_has_no_body(path: str) -> None:
    async with house(greet) as at:
        got, looked = await call(at, "GET", path), await call(at, "HEAD", path)
        assert (looked.status_code, looked.content) == (got.status_code, b"") == (200, b"")
        assert looked.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":  # which changes
            assert looked.headers["content-length"] == got.headers["content-length"]


async def test_metrics_are_in_the_text_format_that_every_reader_knows() -> None:
    async with house(greet) as at:
        scraped = await call(at, "GET", "/metrics")
        assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_405_says_what_is_allowed() -> None:
    async with house(greet) as at:
        assert (await call(at, "GET", "/v1/chat/completions")).headers["allow"] == "POST"
        assert (await call(at, "POST", "/health")).headers["allow"] == "GET, HEAD"


async def test_bad_requests_are_400_with_param() -> None:
    async with house(greet) as at:
        response = await post(at, temperature="hot")
        assert response.status_code == 400
        assert error(response)["param"] == "temperature"
        broken = await call(
            at, "POST", "/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
        )
        assert broken.status_code == 400
        assert "line 1 column 2" in error(broken)["message"]


async def test_more_choices_than_allowed_are_refused() -> None:
    async with house(greet, {"server": {"max_n": 2}}) as at:
        assert error(await post(at, n=3))["param"] == "n"


async def test_a_body_too_large_is_refused_declared_or_not() -> None:
    async with house(greet, {"server": {"max_body": 2000}}) as at:
        headers = {"content-type": "application/json"}
        declared = await call(at, "POST", "/v1/chat/completions", content=b"x" * 3000, headers=headers)
        assert declared.status_code == 413
        assert error(declared)["code"] == "request_too_large"

        async def parts() -> Any:
            for _ in range(30):
                yield b"x" * 100

        chunked = await call(at, "POST", "/v1/chat/completions", content=parts(), headers=headers)
        assert chunked.status_code == 413


async def test_without_keys_a_form_or_a_foreign_host_is_refused() -> None:
    async with house(greet) as at:
        body = json.dumps(ASK).encode()
        form = await call(
            at, "POST", "/v1/chat/completions", content=body, headers={"content-type": "text/plain"}
        )
        assert form.status_code == 415
        error(form)
        foreign = await ask_as(at, host="evil.example")
        assert foreign.status_code == 403
        assert error(foreign)["code"] == "host_not_allowed"
        assert (await ask_as(at, host="localhost:8000")).status_code == 200


CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "head",
    [
        CHAT + b"Content-Length: 2\r\n",
        CHAT + HOST + HOST + b"Content-Length: 2\r\n",
        CHAT + b"Host: a@b\r\nContent-Length: 2\r\n",
        CHAT + b"Host: 127.0.0.1/x\r\nContent-Length: 2\r\n",
        CHAT + HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        CHAT + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n",
        CHAT + HOST + b"Transfer-Encoding: gzip, chunked\r\n",
        CHAT + HOST + b"Content-Length: 2\r\nX-Api-Key: a\r\nX-Api-Key: b\r\n",
        CHAT + HOST + b"Content-Length: 2\r\nAuthorization: a\r\nAuthorization: b\r\n",
        CHAT + HOST + b"Content-Length: 2\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(120)),
        CHAT + HOST + b"Content-Length: 2\r\nx: " + b"y" * 40_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: a, b\r\n",
    ],
)
async def test_requests_that_two_readers_could_read_differently_are_refused(head: bytes) -> None:
    async with house(greet) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(head + b"\r\n{}")
        writer.write_eof()
        answer = await soon(reader.read(65536))
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        writer.close()
        assert at.container.visits == []


async def test_a_coded_body_is_refused_unread() -> None:
    async with house(greet) as at:
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        response = await call(at, "POST", "/v1/chat/completions", content=b"\x1f\x8b", headers=headers)
        assert response.status_code == 415


async def test_browsers_may_call_from_the_configured_origins_only() -> None:
    async with house(greet, {"server": {"cors_origins": ["https://app.example"]}}) as at:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        good = await call(
            at, "OPTIONS", "/v1/chat/completions", headers={"origin": "https://app.example", **asked}
        )
        assert good.headers["access-control-allow-origin"] == "https://app.example"
        bad = await call(
            at, "OPTIONS", "/v1/chat/completions", headers={"origin": "https://evil.example", **asked}
        )
        assert "access-control-allow-origin" not in bad.headers


async def test_metrics_tell_what_happened_with_names_from_the_config_only() -> None:
    async with house(greet) as at:
        await post(at)
        await post(at, stream=True, stop="world")
        await post(at, model="junk")
        await post(at, temperature="hot")
        lines = (await call(at, "GET", "/metrics")).text.splitlines()
        for line in (
            'modal_gateway_requests_total{model="m",route="chat",status="200"} 2.0',
            'modal_gateway_requests_total{model="other",route="chat",status="404"} 1.0',
            'modal_gateway_errors_total{code="model_not_found",model="other"} 1.0',
            'modal_gateway_stop_matches_total{model="m"} 1.0',
            'modal_gateway_time_to_first_event_seconds_count{model="m"} 2.0',
            "modal_gateway_requests_in_flight 0.0",
        ):
            assert line in lines
        assert "junk" not in "\n".join(lines)


async def test_pages_load_nothing_from_elsewhere() -> None:
    async with house(greet) as at:
        page = (await call(at, "GET", "/docs")).text
        assert "/v1/chat/completions" in page
        assert "http" not in page.replace("https://", "http").split("</style>")[1]


async def test_the_api_describes_itself() -> None:
    async with house(greet) as at:
        document = (await call(at, "GET", "/openapi.json")).json()
        chat = document["paths"]["/v1/chat/completions"]["post"]
        reference = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert "messages" in document["components"]["schemas"][reference]["properties"]


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json", "/v1/models"])
async def test_without_keys_no_page_answers_under_a_foreign_name(path: str) -> None:
    async with house(greet) as at:
        assert (await call(at, "GET", path, headers={"host": "evil.example"})).status_code == 403


def test_a_pattern_has_one_special_character() -> None:
    assert Caller("k", ("org/x[awq]", "m*")).may_call("org/x[awq]")
    assert Caller("k", ("org/x[awq]", "m*")).may_call("m-2")
    assert not Caller("k", ("org/x[awq]", "m?")).may_call("org/xa")
    assert not Caller("k", ("m?",)).may_call("m2")
