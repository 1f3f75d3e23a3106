"""Failures: first a status, then an error event and a cut connection, never a clean end."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.app import build_app
from gateway.settings import settings_from
from tests.serve.house import House, Visit, container, house, listening, soon
from tests.serve.test_chat import ASK, greet, post


async def raw(at: House, **fields: Any) -> bytes:
    """Everything the gateway sends for a streamed request until it closes the connection."""
    body = json.dumps({**ASK, "stream": True, **fields}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    got = b""
    while part := await soon(reader.read(65536)):
        got += part
    writer.close()
    return got


def error_event(got: bytes) -> dict[str, Any]:
    """The error of a stream that was cut, checked not to look like an end."""
    assert b"[DONE]" not in got  # not even in a message: clients look for it
    assert not got.endswith(b"0\r\n\r\n")
    [line] = [line for line in got.split(b"\n") if line.startswith(b'data: {"error"')]
    error: dict[str, Any] = json.loads(line.removeprefix(b"data: "))["error"]
    return error


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_event_is_a_status(stream: bool) -> None:
    failure = {"error": {"message": "no room", "code": "out_of_memory", "status": 503}}
    async with house(lambda visit: visit.answer(failure, status="503 Service Unavailable")) as at:
        response = await post(at, stream=stream)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "out_of_memory"


async def test_a_failure_in_mid_stream_is_an_error_event_and_a_cut() -> None:
    async def fail(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.event({"error": {"message": "lost", "code": "engine_dead", "status": 503}})
        await visit.end_stream()

    async with house(fail) as at:
        got = await raw(at)
        assert b'"content":"hello"' in got
        assert error_event(got)["code"] == "engine_dead"


async def test_a_container_that_dies_in_mid_stream_is_an_error_event_and_a_cut() -> None:
    async def die(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        visit.cut()

    async with house(die) as at:
        assert error_event(await raw(at))["message"]


async def test_a_stream_that_just_ends_was_cut() -> None:
    async def stop_short(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.end_stream()

    async with house(stop_short) as at:
        assert error_event(await raw(at))
        whole = await post(at, stop="never")
        assert whole.status_code == 502


async def test_a_slow_container_gets_its_stream_opened_and_then_kept_open() -> None:
    go = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await soon(go.wait())
        await visit.say("late")

    async with house(slow, {"server": {"first_byte_grace": 0}}) as at, httpx.AsyncClient() as client:
        async with client.stream(
            "POST", at.url + "/chat/completions", json={**ASK, "stream": True}
        ) as response:
            assert response.status_code == 200
            lines = response.aiter_lines()
            first = json.loads((await soon(anext(lines))).removeprefix("data: "))
            assert first["choices"][0]["delta"]["role"] == "assistant"
            go.set()
            rest = [line async for line in lines]
        assert sum('"role"' in line for line in rest) == 0
        assert rest[-2] == "data: [DONE]"


async def test_a_failure_after_the_grace_is_an_error_event() -> None:
    go = asyncio.Event()

    async def fail(visit: Visit) -> None:
        await soon(go.wait())
        await visit.answer({"error": {"message": "x", "code": "out_of_memory"}}, status="503 x")

    async with house(fail, {"server": {"first_byte_grace": 0}}) as at:
        async with asyncio.TaskGroup() as group:
            got = group.create_task(raw(at))
            await soon(at.container.visited.wait())
            await asyncio.sleep(0.05)  # the grace is 0 s: by now the headers went out
            go.set()
        assert got.result().startswith(b"HTTP/1.1 200")
        assert error_event(got.result())["code"] == "out_of_memory"


async def flaky(visit: Visit) -> None:
    if visit.path == "/bad":
        await visit.answer(b"oops", status="500 Internal Server Error", kind="text/plain")
    else:
        await greet(visit)


def beside(port: int, *paths: str, **top: Any) -> dict[str, Any]:
    """A configuration whose model has an upstream at each path."""
    upstreams = [{"url": f"http://127.0.0.1:{port}{path}"} for path in paths]
    model = {"upstreams": upstreams, "template": "plain", "balance": "round_robin"}
    return {
        "auth": {"mode": "none"},
        "models": {"m": {**model, **top}, "spare": {**model, "upstreams": upstreams[-1:]}},
    }


async def test_another_upstream_is_tried_before_the_first_event() -> None:
    async with container(flaky) as behind:
        app = build_app(settings_from(beside(behind.port, "/bad", "/good"), {}))
        async with listening(app) as port:
            at = House(port, behind)
            for stream in (False, True):
                assert (await post(at, stream=stream)).status_code == 200
        assert [visit.path for visit in behind.visits].count(
            "/bad"
        ) == 1  # round robin: the second began at /good


async def test_another_model_answers_under_the_name_that_was_asked_for() -> None:
    async with container(flaky) as behind:
        config = beside(behind.port, "/bad", fallback=["spare"])
        config["models"]["spare"]["upstreams"] = [{"url": f"http://127.0.0.1:{behind.port}/good"}]
        async with listening(build_app(settings_from(config, {}))) as port:
            response = await post(House(port, behind))
            assert response.status_code == 200
            assert response.json()["model"] == "m"


async def test_nothing_is_tried_again_once_an_event_was_sent() -> None:
    async def die(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        visit.cut()

    async with container(die) as behind:
        app = build_app(settings_from(beside(behind.port, "/a", "/b", fallback=["spare"]), {}))
        async with listening(app) as port:
            assert error_event(await raw(House(port, behind)))
        assert len(behind.visits) == 1


async def test_a_container_that_is_not_there_is_a_503() -> None:
    async with house(greet, upstream={"url": "http://127.0.0.1:1/"}) as at:
        response = await post(at)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "upstream_unavailable"
        assert "127.0.0.1" not in response.text


async def test_a_stream_that_the_end_of_the_server_cancels_says_so() -> None:
    app = build_app(settings_from({"auth": {"mode": "none"}, "models": {"m": {"upstream": ENDLESS}}}, {}))
    body = json.dumps({**ASK, "stream": True}).encode()
    said, begun = [], asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not begun.is_set():
            return {"type": "http.request", "body": body}
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def send(message: Any) -> None:
        said.append(message.get("body", b""))
        if b'"content":"one"' in said[-1]:
            begun.set()

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": headers,
        "http_version": "1.1",
    }
    async with asyncio.TaskGroup() as group:
        served = group.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        await soon(begun.wait())
        served.cancel()
    assert error_event(b"".join(said))["code"] == "shutting_down"


ENDLESS = {"kind": "demo", "responses": ["one two three"], "delay": 0.01}
