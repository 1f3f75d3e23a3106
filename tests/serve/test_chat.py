"""Chat completions over real sockets: what the container says is what the client gets, whole and streamed."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.serve.house import House, Visit, house, soon

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TALK = [*ASK["messages"], {"role": "assistant", "content": "yes"}, {"role": "user", "content": "bye"}]  # type: ignore[misc]


async def post(at: House, path: str = "/chat/completions", **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(at.url + path, json={**ASK, **fields}, timeout=10)


def chunks(body: str) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    blocks = [block for block in body.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def text(body: str) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks(body) if c["choices"])


async def greet(visit: Visit) -> None:
    if visit.json.get("stream"):
        await visit.say("hello", " ", "world")
    else:
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        await visit.answer({"prompt": "hello world", "usage": usage})


async def test_a_question_reaches_the_container_verbatim() -> None:
    async with house(greet) as at:
        answer = (await post(at)).json()
        [visit] = at.container.visits
        assert visit.json == {"prompt": "hi"}
        assert answer["choices"][0]["message"]["content"] == "hello world"
        assert answer["model"] == "m"
        assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def test_a_stream_has_the_role_first_one_finish_and_done() -> None:
    async with house(greet) as at:
        response = await post(at, stream=True)
        got = chunks(response.text)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert got[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert text(response.text) == "hello world"
        assert [c["choices"][0]["finish_reason"] for c in got] == [None] * (len(got) - 1) + ["stop"]
        assert len({(c["id"], c["created"], c["model"], c["object"]) for c in got}) == 1


async def test_the_path_works_without_v1() -> None:
    async with house(greet) as at, httpx.AsyncClient() as client:
        response = await client.post(f"http://127.0.0.1:{at.port}/chat/completions", json=ASK)
        assert response.status_code == 200


async def test_usage_comes_last_in_a_stream_that_asked_for_it() -> None:
    async with house(greet) as at:
        got = chunks((await post(at, stream=True, stream_options={"include_usage": True})).text)
        assert got[-1]["choices"] == []
        assert got[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        assert got[-1]["x_gateway"].pop("gpu_ms") > 0
        assert got[-1]["x_gateway"] == {"usage": "upstream"}
        assert all(chunk["usage"] is None for chunk in got[:-1])


async def test_usage_is_estimated_and_labelled_when_the_container_does_not_count() -> None:
    async with house(lambda visit: visit.answer({"prompt": "你好，世界"})) as at:
        response = await post(at, messages=[{"role": "user", "content": "请用中文回答"}])
        assert response.headers["x-gateway-usage"] == "estimate"
        assert response.json()["usage"] == {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_ends_the_answer_before_itself(stream: bool) -> None:
    async def speak(visit: Visit) -> None:
        assert visit.json["stop"] == ["欢迎"]
        await visit.say("你好", "！很高兴，欢", "迎你", "。")

    async with house(speak) as at:
        response = await post(at, stop=["欢迎"], stream=stream)
        said = text(response.text) if stream else response.json()["choices"][0]["message"]["content"]
        assert said == "你好！很高兴，"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_closes_the_container_at_once(stream: bool) -> None:
    closed = asyncio.Event()

    async def endless(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "one STOP two"})
        await soon(visit.until_closed())
        closed.set()

    async with house(endless) as at:
        response = await post(at, stop="STOP", stream=stream)
        assert response.status_code == 200
        await soon(closed.wait())
        assert len(at.container.visits) == 1


async def test_a_container_that_ignores_stream_still_serves_a_streaming_client() -> None:
    async with house(lambda visit: visit.answer({"prompt": "hello"})) as at:
        assert text((await post(at, stream=True)).text) == "hello"


async def test_an_echoed_prompt_is_removed() -> None:
    async with house(lambda visit: visit.answer({"prompt": visit.json["prompt"] + " Bonjour"})) as at:
        answer = (await post(at, messages=TALK)).json()
        assert answer["choices"][0]["message"]["content"] == " Bonjour"
        verbatim = (await post(at)).json()
        assert verbatim["choices"][0]["message"]["content"] == "hi Bonjour"


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_calls_side_by_side_and_the_prompt_counts_once(stream: bool) -> None:
    seeds: list[int] = []

    async def speak(visit: Visit) -> None:
        seeds.append(visit.json["seed"])
        said = str(visit.json["seed"])
        if visit.json.get("stream"):
            await visit.say(said)
        else:
            await visit.answer({"prompt": said, "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    async with house(speak) as at:
        fields = {
            "n": 3,
            "seed": 7,
            "stream": stream,
            "stream_options": {"include_usage": True} if stream else None,
        }
        response = await post(at, **fields)
        if stream:
            got = chunks(response.text)
            usage = got.pop()["usage"]
            said = {
                i: "".join(
                    c["choices"][0]["delta"].get("content", "") for c in got if c["choices"][0]["index"] == i
                )
                for i in range(3)
            }
            assert said == {0: "7", 1: "8", 2: "9"}
        else:
            answer = response.json()
            usage = answer["usage"]
            assert [c["message"]["content"] for c in answer["choices"]] == ["7", "8", "9"]
        assert sorted(seeds) == [7, 8, 9]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 3)


async def test_logprobs_come_through_where_the_model_has_them() -> None:
    entry = {"token": "hey", "logprob": -0.1, "bytes": [104, 101, 121], "top_logprobs": []}

    async def speak(visit: Visit) -> None:
        assert visit.json["logprobs"] == 2
        await visit.answer({"prompt": "hey", "logprobs": [entry]})

    async with house(speak, logprobs=True) as at:
        answer = (await post(at, logprobs=True, top_logprobs=2)).json()
        assert answer["choices"][0]["logprobs"]["content"] == [entry]


async def test_what_had_no_effect_is_said_in_a_header() -> None:
    async with house(greet) as at:
        for stream in (False, True):
            response = await post(at, stream=stream, store=True, best_of=2)
            assert response.headers["x-gateway-ignored"] == "store, best_of"


async def test_defused_control_strings_are_counted_in_a_header() -> None:
    async with house(greet, template="chatml") as at:
        response = await post(at, messages=[{"role": "user", "content": "<|im_end|>"}])
        assert response.headers["x-gateway-neutralised"] == "1"


async def test_every_answer_carries_its_own_request_id() -> None:
    async with house(greet) as at:
        ids = {(await post(at, stream=stream)).headers["x-request-id"] for stream in (False, True, False)}
        assert len(ids) == 3
        assert at.container.visits[0].headers["x-request-id"] in ids


async def test_the_clients_own_headers_stay_here() -> None:
    async with house(greet) as at, httpx.AsyncClient() as client:
        headers = {"authorization": "Bearer sk-client", "cookie": "a=b", "x-request-id": "mine"}
        await client.post(at.url + "/chat/completions", json=ASK, headers=headers)
        sent = at.container.visits[0].headers
        assert "authorization" not in sent and "cookie" not in sent
        assert sent["x-request-id"] != "mine"
