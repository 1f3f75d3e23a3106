"""httpx and curl: what is on the wire, for those who bring no SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest

from tests.clients.conftest import Guarded

GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
STOPPED = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
ASKED = {"model": "chatglm2-6b", "messages": [{"role": "user", "content": "你好"}]}
PREFIXES = ["/v1", ""]


@pytest.fixture
def http(demo: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo, timeout=30) as client:
        yield client


@pytest.fixture
async def async_http(demo: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=demo, timeout=30) as client:
        yield client


def payloads(stream: bytes) -> list[dict[str, Any]]:
    """The chunks of a complete stream; comments are left out, and anything else is wrong."""
    *events, rest = stream.split(b"\n\n")
    assert rest == b""
    data = [event.removeprefix(b"data: ") for event in events if not event.startswith(b":")]
    assert len(data) == sum(event.startswith(b"data: ") for event in events)
    assert data[-1] == b"[DONE]"
    return [json.loads(each) for each in data[:-1]]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


# --- httpx ---


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_whole_answer(http: httpx.Client, prefix: str) -> None:
    answer = http.post(f"{prefix}/chat/completions", json={**ASKED, "stop": ["欢迎"]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert set(body) >= {"id", "object", "created", "model", "choices", "usage"}
    [choice] = body["choices"]
    assert choice["message"]["content"] == STOPPED
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_stream(http: httpx.Client, prefix: str) -> None:
    asked = {**ASKED, "stream": True}
    with http.stream("POST", f"{prefix}/chat/completions", json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = payloads(answer.read())
    assert all({"id", "object", "created", "model", "choices"} <= set(chunk) for chunk in chunks)
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == GREETING
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]


async def test_many_at_once_get_their_own_answers(async_http: httpx.AsyncClient) -> None:
    async def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"repeat: {number} of many"}]
        asked = {"model": "chatglm2-6b", "messages": messages, "stream": True}
        async with async_http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            return text_of(payloads(await answer.aread()))

    answers: dict[int, str] = {}

    async def keep(number: int) -> None:
        answers[number] = await ask(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(keep, number)
    assert answers == {number: f"{number} of many" for number in range(20)}


@pytest.mark.parametrize(
    ("asked", "sent", "status", "says"),
    [
        ("POST /v1/chat/completions", {"content": b'{"model": '}, 400, "not valid JSON"),
        ("POST /v1/chat/completions", {"content": b"[]"}, 400, "JSON object"),
        ("POST /v1/chat/completions", {"json": {"model": "x"}}, 400, "messages"),
        ("GET /v1/chat/completions", {}, 405, "POST"),
        ("GET /v1/no/such/thing", {}, 404, "/v1/no/such/thing"),
        ("POST /v1/v1/chat/completions", {"json": ASKED}, 404, "/v1/v1"),
        ("POST /v1/chat/completions", {"data": {"a": "form"}}, 415, "application/json"),
        ("GET /v1/models/no-such-model", {}, 404, "no-such-model"),
    ],
)
def test_every_refusal_is_openais_envelope(
    http: httpx.Client, asked: str, sent: dict[str, Any], status: int, says: str
) -> None:
    headers = {"content-type": "application/json"} if "content" in sent else {}
    answer = http.request(*asked.split(), headers=headers, **sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert says in error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_failed_stream_has_no_end_that_could_be_taken_for_one(guarded: Guarded) -> None:
    messages = [{"role": "user", "content": "break: one two"}]
    asked = {"model": "obedient-7b", "messages": messages, "stream": True}
    headers = {"authorization": f"Bearer {guarded.key}"}
    received = b""
    with (
        httpx.stream("POST", f"{guarded.url}/v1/chat/completions", json=asked, headers=headers) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            received += piece
    assert b"[DONE]" not in received
    error = json.loads(received.strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}


def test_rendering_shows_the_prompt_and_calls_nobody(guarded: Guarded) -> None:
    before = len(guarded.container.calls)
    answer = httpx.post(
        f"{guarded.url}/v1/chat/completions/render",
        json={"model": "obedient-7b", "messages": [{"role": "user", "content": "say: hi"}], "stop": "."},
        headers={"authorization": f"Bearer {guarded.key}"},
    )
    assert answer.status_code == 200
    assert set(answer.json()) == {"prompt", "stop", "call"}
    assert (answer.json()["prompt"], answer.json()["stop"]) == ("say: hi", ["."])
    assert len(guarded.container.calls) == before


def test_health_needs_no_key(guarded: Guarded) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert httpx.get(guarded.url + path).status_code == 200


# --- curl ---


@pytest.fixture(scope="session")
def curl() -> str:
    return shutil.which("curl") or pytest.skip("this machine has no curl")


def curled(curl: str, *arguments: str) -> bytes:
    command = [curl, "-sS", "--fail-with-body", "--noproxy", "*", "--max-time", "30", *arguments]
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


def test_curl_gets_a_whole_answer(curl: str, demo: str) -> None:
    body = json.dumps({**ASKED, "stop": ["欢迎"]})
    answer = curled(curl, f"{demo}/v1/chat/completions", "--json", body)
    assert json.loads(answer)["choices"][0]["message"]["content"] == STOPPED


def test_curl_gets_a_stream(curl: str, demo: str) -> None:
    body = json.dumps({**ASKED, "stream": True}, ensure_ascii=False)
    json_type = ("-H", "content-type: application/json")
    answer = curled(curl, "-N", f"{demo}/chat/completions", *json_type, "-d", body)
    assert text_of(payloads(answer)) == GREETING


def test_curl_lists_the_models(curl: str, guarded: Guarded) -> None:
    answer = curled(curl, f"{guarded.url}/v1/models", "-H", f"Authorization: Bearer {guarded.key}")
    assert [model["id"] for model in json.loads(answer)["data"]] == [
        "obedient-7b",
        "echoing-7b",
        "gpt-3.5-turbo",
    ]
