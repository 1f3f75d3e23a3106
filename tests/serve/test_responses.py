"""The Responses API over real sockets: asked as items, answered as items, kept only where that is wanted."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serve.retention import Kept, Memory, Retain
from tests.serve.house import House, Visit, house, soon
from tests.serve.test_chat import greet
from tests.serve.test_never_500 import call as straight
from tests.serve.test_never_500 import values

KEYS = {"auth": {"keys": [{"name": "one", "key": "sk-one"}, {"name": "two", "key": "sk-two"}]}}
KEEPING = {"responses": {"retain": 2}}
ADD = {"type": "function", "name": "add", "description": "sum", "parameters": {"type": "object"}}


async def ask(
    at: House, method: str = "POST", path: str = "", key: str = "", **fields: Any
) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": "m", "input": "hi", **fields} if method == "POST" else None
    async with httpx.AsyncClient(headers=headers) as client:
        return await client.request(method, f"{at.url}/responses{path}", json=body, timeout=10)


def events(body: str) -> list[dict[str, Any]]:
    """The events of a stream, each with its name, one a block."""
    told = []
    for block in body.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            told.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {told[-1]['type']}"
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def error(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    told = answer.json()["error"]
    return answer.status_code, told["param"], told["code"]


async def test_an_answer_whole_and_streamed() -> None:
    async with house(greet) as at:
        whole = await ask(at, metadata={"a": "b"})
        answer = whole.json()
        [message] = answer["output"]
        assert message["content"][0]["text"] == "hello world"
        assert (answer["status"], answer["model"], answer["metadata"]) == ("completed", "m", {"a": "b"})
        assert answer["usage"]["total_tokens"] == 3
        assert (answer["store"], "x-gateway-ignored" in whole.headers) == (False, False)
        assert answer["id"].startswith("resp_")
        stream = await ask(at, stream=True)
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = events(stream.text)
        deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
        assert deltas == ["hello", " ", "world"]
        final = told[-1]["response"]
        assert told[-1]["type"] == "response.completed"
        assert final["output"][0]["content"] == message["content"]
        assert {event["response"]["id"] for event in told if "response" in event} == {final["id"]}


async def test_instructions_and_items_reach_the_models_template() -> None:
    items = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ]
    async with house(greet, template="chatml") as at:
        await ask(at, input=items, instructions="Be brief.", max_output_tokens=5)
        [visit] = at.container.visits
        texts = ["Be brief.", "one", "two", "three"]
        places = [visit.json["prompt"].index(text) for text in texts]
        assert places == sorted(places)
        assert visit.json["max_tokens"] == 5


async def test_the_opening_comes_first_even_if_it_is_all_there_is_to_say() -> None:
    go = asyncio.Event()

    async def late(visit: Visit) -> None:
        await go.wait()
        await visit.say("hello")

    async with house(late, {"server": {"first_byte_grace": 0}}) as at, httpx.AsyncClient() as client:
        asked = {"model": "m", "input": "hi", "stream": True}
        async with client.stream("POST", f"{at.url}/responses", json=asked, timeout=10) as answer:
            body = ""
            async for piece in answer.aiter_text():
                body += piece
                if body.count("\n\n") == 2:
                    go.set()
        kinds = [event["type"] for event in events(body)]
        assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
        assert kinds[-1] == "response.completed"


async def test_tools_go_to_a_chat_server_and_its_calls_come_back() -> None:
    async def chats(visit: Visit) -> None:
        deltas: list[dict[str, Any]] = [
            {"reasoning_content": "Add them."},
            {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "add", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]},
        ]
        await visit.start_stream()
        for delta in deltas:
            await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await visit.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with house(chats, upstream={"kind": "openai", "whole": "stream"}) as at:
        asked = {"tools": [ADD], "tool_choice": {"type": "function", "name": "add"}, "instructions": "x"}
        whole = (await ask(at, **asked)).json()
        thought, called = whole["output"]
        assert thought["content"] == [{"type": "reasoning_text", "text": "Add them."}]
        assert (called["call_id"], called["name"], called["arguments"]) == ("call_1", "add", '{"a": 1}')
        [visit] = at.container.visits
        function = {name: ADD[name] for name in ("name", "description", "parameters")}
        assert visit.json["tools"] == [{"type": "function", "function": function}]
        assert visit.json["tool_choice"] == {"type": "function", "function": {"name": "add"}}
        told = events((await ask(at, stream=True, **asked)).text)
        bare = [{**item, "id": ""} for item in told[-1]["response"]["output"]]
        assert bare == [{**item, "id": ""} for item in whole["output"]]
        kinds = [event["type"] for event in told]
        assert kinds.index("response.reasoning_text.done") < kinds.index(
            "response.function_call_arguments.done"
        )


async def test_a_failure_in_a_stream_is_an_event_and_a_cut_connection() -> None:
    async def breaks(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.event({"error": {"message": "the engine died", "code": "engine_dead"}})
        await visit.end_stream()

    body = ""
    async with house(breaks) as at, httpx.AsyncClient() as client:
        asked = {"model": "m", "input": "hi", "stream": True}
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", f"{at.url}/responses", json=asked, timeout=10) as answer:
                async for piece in answer.aiter_text():
                    body += piece
    last = events(body)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    [message] = last["response"]["output"]
    assert (message["content"][0]["text"], message["status"]) == ("hello", "incomplete")


async def test_refusals_name_the_fields_of_this_api() -> None:
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
    async with house(greet, max_output_tokens=5) as at:
        assert error(await ask(at, max_output_tokens=9)) == (400, "max_output_tokens", "invalid_value")
        assert error(await ask(at, input=image))[:2] == (400, "input[0].content[0].type")
        assert error(await ask(at, background=True)) == (400, "background", "unsupported_parameter")
        assert error(await ask(at, tools=[{"type": "web_search"}]))[:2] == (400, "tools[0].type")
        assert not at.container.visits
        ignored = await ask(at, truncation="auto", reasoning={"effort": "low"}, store=True)
        names = ignored.headers["x-gateway-ignored"].split(", ")
        assert {"truncation", "store"} <= set(names)
        assert "reasoning.effort" in names and "reasoning_effort" not in names


async def test_no_response_is_kept_by_default() -> None:
    async with house(greet) as at:
        answer = (await ask(at, store=True)).json()
        assert answer["store"] is False
        missing = await ask(at, "GET", "/" + answer["id"])
        assert (missing.status_code, "responses.retain" in missing.text) == (404, True)
        assert error(await ask(at, previous_response_id=answer["id"])) == (
            400,
            "previous_response_id",
            "previous_response_not_found",
        )


async def test_an_item_is_known_by_its_id_although_no_response_is_kept() -> None:
    async with house(greet, KEYS, template="chatml") as at:
        first = (await ask(at, key="sk-one")).json()
        told = events((await ask(at, key="sk-one", stream=True)).text)[-1]["response"]
        for answer in (first, told):
            assert answer["store"] is False
            reference = {"type": "item_reference", "id": answer["output"][0]["id"]}
            items = [reference, {"role": "user", "content": "and?"}]
            assert (await ask(at, key="sk-one", input=items)).status_code == 200
            prompt = at.container.visits[-1].json["prompt"]
            assert prompt.index("hello world") < prompt.index("and?")
            assert error(await ask(at, key="sk-two", input=items))[:2] == (400, "input")


@pytest.mark.parametrize(("more", "fields"), [({"responses": {"item_ttl": 0}}, {}), ({}, {"store": False})])
async def test_no_item_is_known_if_the_client_or_the_configuration_says_so(
    more: dict[str, Any], fields: dict[str, Any]
) -> None:
    async with house(greet, more) as at:
        answer = (await ask(at, **fields)).json()
        refused = await ask(at, input=[{"type": "item_reference", "id": answer["output"][0]["id"]}])
        assert error(refused) == (400, "input", "previous_response_not_found")
        assert "store: false" in refused.text


async def test_a_conversation_goes_on_from_a_kept_response() -> None:
    async with house(greet, KEEPING, template="chatml") as at:
        first = (await ask(at, input="my name is Li", instructions="old rules")).json()
        assert first["store"] is True
        told = events(
            (
                await ask(
                    at,
                    input="who am I?",
                    instructions="new rules",
                    previous_response_id=first["id"],
                    stream=True,
                )
            ).text
        )
        second = told[-1]["response"]
        prompt = at.container.visits[1].json["prompt"]
        places = [prompt.index(text) for text in ("new rules", "my name is Li", "hello world", "who am I?")]
        assert places == sorted(places)
        assert "old rules" not in prompt
        assert second["previous_response_id"] == first["id"]
        assert (await ask(at, "GET", "/" + second["id"])).json() == second
        reference = {"type": "item_reference", "id": second["output"][0]["id"]}
        await ask(at, input=[reference, {"role": "user", "content": "and?"}], store=False)
        prompt = at.container.visits[2].json["prompt"]
        assert prompt.index("hello world") < prompt.index("and?")


async def test_a_key_finds_only_its_own() -> None:
    async with house(greet, {**KEYS, **KEEPING}) as at:
        id = (await ask(at, key="sk-one")).json()["id"]
        assert (await ask(at, "GET", "/" + id, key="sk-two")).status_code == 404
        assert (await ask(at, "DELETE", "/" + id, key="sk-two")).status_code == 404
        assert (await ask(at, key="sk-two", previous_response_id=id)).status_code == 400
        assert (await ask(at, "GET", "/" + id)).status_code == 401
        assert (await ask(at, "DELETE", "/" + id, key="sk-one")).json()["deleted"] is True
        assert (await ask(at, "GET", "/" + id, key="sk-one")).status_code == 404


async def test_only_what_was_asked_for_and_ended_is_kept() -> None:
    async with house(greet, KEEPING) as at:
        answer = (await ask(at, store=False)).json()
        assert answer["store"] is False
        assert (await ask(at, "GET", "/" + answer["id"])).status_code == 404
        ids = [(await ask(at)).json()["id"] for _ in range(3)]
        found = [(await ask(at, "GET", "/" + id)).status_code for id in ids]
        assert found == [404, 200, 200]
        assert error(await ask(at, "GET", f"/{ids[2]}?stream=true"))[:2] == (400, "stream")


async def test_the_address_alone_takes_only_posts() -> None:
    async with house(greet) as at:
        answer = await ask(at, "GET")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_client_that_leaves_ends_the_call() -> None:
    async def endless(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.until_closed()
        visit.closed.set()

    async with house(endless) as at, httpx.AsyncClient() as client:
        asked = {"model": "m", "input": "hi", "stream": True}
        async with client.stream("POST", f"{at.url}/responses", json=asked, timeout=10) as answer:
            await soon(anext(answer.aiter_raw()))
        await soon(at.container.visits[0].closed.wait())


# --- what is kept, without sockets ---


def kept(*items: str, size: int = 1) -> Kept:
    return Kept(b"{}", b"[]", items, size)


def said(id: str, size: int = 0) -> dict[str, str]:
    return {"id": id, "text": "x" * size}


def test_what_is_old_is_forgotten() -> None:
    now = 0.0
    memory = Memory(Retain(retain=9, ttl=10, item_ttl=5), lambda: now)
    memory.put("me", "a", kept("item"))
    memory.remember("me", [said("item")])
    now = 9.9  # items live at least as long as the responses that hold them
    assert memory.get("me", "a")
    assert memory.item("me", "item") == said("item")
    now = 10.0
    assert (memory.get("me", "a"), memory.item("me", "item")) == (None, None)


def test_who_forgets_a_response_forgets_its_items() -> None:
    memory = Memory(Retain(retain=9), lambda: 0.0)
    memory.put("me", "a", kept("item"))
    memory.remember("me", [said("item"), said("other")])
    assert memory.drop("me", "a")
    assert not memory.drop("me", "a")
    assert memory.item("me", "item") is None
    assert memory.item("me", "other")


def test_items_are_known_to_their_key_alone_and_for_no_time_if_that_is_said() -> None:
    memory = Memory(Retain(), lambda: 0.0)
    memory.remember("me", [said("item")])
    assert memory.item("me", "item")
    assert memory.item("you", "item") is None
    off = Memory(Retain(item_ttl=0), lambda: 0.0)
    off.remember("me", [said("item")])
    assert off.item("me", "item") is None


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 20 << 20)), max_size=30))
def test_every_shelf_is_bounded_and_the_newest_stays(puts: list[tuple[str, int]]) -> None:
    memory = Memory(Retain(retain=3), lambda: 0.0)
    for number, (owner, size) in enumerate(puts):
        memory.put(owner, f"r{number}", kept(size=size))
    for owner in ("one", "two"):
        own = [(f"r{n}", size) for n, (whose, size) in enumerate(puts) if whose == owner]
        there = [memory.get(owner, id) is not None for id, _ in own]
        assert there == sorted(there)  # what is there came after what is not
        assert sum(there) <= 3
        assert sum(size for (_, size), here in zip(own, there, strict=True) if here) <= 32 << 20
        assert there[-1:] in ([], [True])


def test_of_all_keys_those_with_most_give_way() -> None:
    memory = Memory(Retain(retain=100), lambda: 0.0)
    memory.put("small", "r", kept(size=1))
    for number in range(1000):
        owner = f"key {number % 40}"
        memory.put(owner, f"r{number}", kept(size=9 << 20))
        assert memory.get(owner, f"r{number}")
    assert memory.get("small", "r")
    there = [n for n in range(1000) if memory.get(f"key {n % 40}", f"r{n}")]
    assert 20 <= len(there) <= 256 // 9


def test_of_many_items_the_last_are_known() -> None:
    memory = Memory(Retain(), lambda: 0.0)
    memory.remember("me", [said(f"i{number}", 1 << 20) for number in range(20)])
    known = [n for n in range(20) if memory.item("me", f"i{n}")]
    assert known == list(range(20 - len(known), 20))
    assert 5 <= len(known) <= 8


FIELDS = (
    "input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "store", "stream",
    "previous_response_id", "metadata", "truncation", "max_output_tokens", "top_logprobs", "background", "x",
)  # fmt: skip


@given(values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_any_request_gets_an_answer_or_an_error_of_its_own(items: Any, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "input": items, **fields}).encode()
    status, answer = asyncio.run(straight(body, "/v1/responses"))
    assert status == 200 or (400 <= status < 500 and set(json.loads(answer)) == {"error"}), (status, answer)
