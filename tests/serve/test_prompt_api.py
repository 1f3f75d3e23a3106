"""The prompt contract as the gateway serves it: verbatim both ways, with keys, stops, retries, its errors."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from tests.serve.house import House, Visit, house, soon

KEY = "sk-test:with-a-colon"
KEYED = {"auth": {"keys": [{"name": "me", "key": KEY, "models": ["m"]}]}}


async def ask(at: House, prompt: Any = "hi", path: str = "/prompt/m", **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(at.url + path, json={"prompt": prompt, **fields}, timeout=10)


def events(body: str) -> list[dict[str, Any]]:
    """The events of a stream that ended well."""
    blocks = [block for block in body.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


async def greet(visit: Visit) -> None:
    if visit.json.get("stream"):
        await visit.say("hello", " ", "world")
    else:
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        await visit.answer({"prompt": "hello world", "usage": usage, "ignored": ["best_of"]})


async def test_a_prompt_goes_through_as_it_is_with_all_its_extras() -> None:
    extras = {"best_of": 2, "metadata": {"a": [1]}, "tools": "any", "json_schema": {"type": "object"}}
    async with house(greet, template="chatml", system_default="Be brief.") as at:
        answer = await ask(at, "<|im_end|>", max_tokens=5, temperature=0.5, nothing=None, **extras)
        [visit] = at.container.visits
        assert visit.json == {"prompt": "<|im_end|>", "max_tokens": 5, "temperature": 0.5, **extras}
        assert answer.json() == {
            "prompt": "hello world",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
            "ignored": ["best_of"],
        }


async def test_a_stream_is_pieces_an_end_and_done() -> None:
    async with house(greet) as at:
        answer = await ask(at, stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        *pieces, end = events(answer.text)
        assert pieces == [{"prompt": "hello"}, {"prompt": " "}, {"prompt": "world"}]
        assert end["x_gateway"].pop("gpu_ms") > 0
        assert end == {
            "prompt": "",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 3, "completion_tokens": 3},
            "ignored": [],
            "x_gateway": {"usage": "upstream"},
        }


async def test_the_prompt_is_repeated_for_those_who_ask() -> None:
    async with house(greet) as at:
        for answer in (await ask(at, path="/prompt/m?echo=1"), await ask(at, echo=True)):
            assert answer.json()["prompt"] == "hihello world"
        assert (await ask(at, path="/prompt/m?echo=1", echo=False)).json()["prompt"] == "hello world"
        first, *_ = events((await ask(at, path="/prompt/m?echo=true", stream=True)).text)
        assert first == {"prompt": "hi"}
        assert all("echo" not in visit.json for visit in at.container.visits)
        refused = await ask(at, path="/prompt/m?echo=maybe")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "echo")


async def test_a_container_that_repeats_the_prompt_does_so_once_in_all() -> None:
    async def parrot(visit: Visit) -> None:
        await visit.answer({"prompt": visit.json["prompt"] + "!"})

    async with house(parrot, upstream={"echo": "always"}) as at:
        assert (await ask(at)).json()["prompt"] == "!"
        assert (await ask(at, echo=True)).json()["prompt"] == "hi!"
    async with house(parrot) as at:  # nothing is guessed
        assert (await ask(at)).json()["prompt"] == "hi!"


@pytest.mark.parametrize("stream", [False, True])
async def test_stops_are_literal_and_close_the_container(*, stream: bool) -> None:
    async def endless(visit: Visit) -> None:
        await visit.start_stream()
        for piece in ("a.b", "c", "d."):
            await visit.event({"prompt": piece})
        await soon(visit.until_closed())
        visit.closed.set()

    async with house(endless) as at:
        answer = await ask(at, stop=["bcd"], stream=stream)
        got = events(answer.text) if stream else [answer.json()]
        assert "".join(event["prompt"] for event in got) == "a."
        assert got[-1]["finish_reason"] == "stop"
        await soon(at.container.visits[0].closed.wait())


async def test_logprobs_come_as_the_container_gave_them() -> None:
    entry = {"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}

    async def script(visit: Visit) -> None:
        assert visit.json["logprobs"] == 0
        await visit.answer({"prompt": "x", "logprobs": [entry]})

    async with house(script, logprobs=True) as at:
        assert (await ask(at, logprobs=0)).json()["logprobs"] == [entry]
    async with house(script) as at:
        assert (await ask(at, logprobs=0)).json()["error"]["param"] == "logprobs"


async def test_names_of_models_may_hold_slashes_and_be_escaped() -> None:
    async with house(greet, aliases=["org/model", "模型"]) as at:
        for path in ("/prompt/org/model", "/prompt/org%2Fmodel", "/prompt/模型"):
            assert (await ask(at, path=path)).status_code == 200


# --- errors ---


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"prompt": 1}, 400, "bad_request", "prompt"),
        ({"temperature": 9}, 400, "bad_request", "temperature"),
        ({"stop": [1]}, 400, "bad_request", "stop[0]"),
        ({"path": "/prompt/other"}, 404, "model_not_found", "model"),
        ({"prompt": None, "input": ["a"]}, 400, "bad_request", "prompt"),
    ],
)
async def test_a_refusal_has_the_contracts_fields_and_openais(
    fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    async with house(greet) as at:
        refused = await ask(at, **fields)
        error = refused.json()["error"]
        assert refused.status_code == status
        assert (error["code"], error["status"], error["param"]) == (code, status, param)
        assert error["message"] and error["type"] == "invalid_request_error"
        assert at.container.visits == []


async def test_embeddings_are_pointed_to_their_place() -> None:
    async with house(greet) as at, httpx.AsyncClient() as client:
        refused = await client.post(at.url + "/prompt/m", json={"input": ["a"]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


async def test_a_container_that_breaks_off_is_an_event_and_a_cut_connection() -> None:
    async def break_off(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "he"})
        await visit.event({"error": {"message": "dead", "code": "engine_dead"}})
        await visit.end_stream()

    async with house(break_off) as at, httpx.AsyncClient() as client:
        got, asked = b"", {"prompt": "x", "stream": True}
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", at.url + "/prompt/m", json=asked) as answer:
                async for part in answer.aiter_bytes():
                    got += part
        *_, last = [block for block in got.split(b"\n\n") if block]
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["code"], error["status"]) == ("engine_dead", 503)
        assert b"[DONE]" not in got


async def test_a_late_failure_of_a_stream_that_had_to_open_is_an_event() -> None:
    opened = asyncio.Event()

    async def fail_late(visit: Visit) -> None:
        await soon(opened.wait())
        await visit.answer({"error": {"message": "no", "code": "bad_request"}}, status="400 Bad Request")

    top = {"server": {"first_byte_grace": 0.01}}
    async with house(fail_late, top) as at, httpx.AsyncClient() as client:
        got, asked = b"", {"prompt": "x", "stream": True, "echo": True}
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", at.url + "/prompt/m", json=asked) as answer:
                assert answer.status_code == 200
                opened.set()
                async for part in answer.aiter_bytes():
                    got += part
        copy, failure = [json.loads(each.removeprefix(b"data: ")) for each in got.split(b"\n\n") if each]
        assert copy == {"prompt": "x"}
        assert (failure["error"]["code"], failure["error"]["status"]) == ("bad_request", 400)


async def test_what_fails_before_the_first_piece_is_tried_again_as_for_chats() -> None:
    failed = asyncio.Event()

    async def once(visit: Visit) -> None:
        if not failed.is_set():
            failed.set()
            await visit.answer(b"Missing request, possibly due to expiry", status="408 Timeout")
        else:
            await greet(visit)

    async with house(once) as at:
        assert (await ask(at)).json()["prompt"] == "hello world"
        assert len(at.container.visits) == 2


# --- keys ---


def basic(secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"x:{secret}".encode()).decode()}


async def test_the_key_may_be_the_password_of_the_address() -> None:
    async with house(greet, KEYED) as at, httpx.AsyncClient() as client:
        address = f"http://x:{KEY.replace(':', '%3A')}@127.0.0.1:{at.port}/v1/prompt/m?echo=1"
        answer = await client.post(address, json={"prompt": "hi"})
        assert answer.json()["prompt"] == "hihello world"
        assert "authorization" not in at.container.visits[0].headers
        bearer = await client.post(
            at.url + "/prompt/m", json={"prompt": "hi"}, headers={"authorization": f"Bearer {KEY}"}
        )
        assert bearer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("wrong"),
        basic(""),
        {"authorization": "Basic"},
        {"authorization": "Basic ???"},
        {"authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},  # all of it before the colon
    ],
)
async def test_a_wrong_password_is_a_401_that_asks_for_no_password(headers: dict[str, str]) -> None:
    async with house(greet, KEYED) as at, httpx.AsyncClient() as client:
        refused = await client.post(at.url + "/prompt/m", json={"prompt": "hi"}, headers=headers)
        error = refused.json()["error"]
        assert (refused.status_code, error["status"], error["code"]) == (401, 401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"  # a browser would ask its user for Basic
        assert at.container.visits == []
