"""FastChat's own addresses: chats with a finished prompt in place of messages, and its check of tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serve.house import House, Visit, house

CHAT, CHECK = "/api/v1/chat/completions", "/api/v1/token_check"
KEYED = {"auth": {"keys": [{"name": "me", "key": "sk-x", "models": ["m"]}]}}


async def post(at: House, path: str, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{at.port}{path}", json=body, headers=headers, timeout=10)


async def greet(visit: Visit) -> None:
    if visit.json.get("stream"):
        await visit.say("hello")
    else:
        await visit.answer({"prompt": "hello"})


@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
async def test_a_text_in_place_of_messages_is_the_prompt(path: str) -> None:
    async with house(greet, template="vicuna_v1.1") as at:
        sampling = {"top_k": 5, "repetition_penalty": 1.5}
        asked = {"model": "m", "messages": "USER: hi ASSISTANT:", "n": 2, **sampling}
        answer = (await post(at, path, asked)).json()
        assert answer["object"] == "chat.completion"
        assert [choice["message"]["content"] for choice in answer["choices"]] == ["hello", "hello"]
        assert [visit.json for visit in at.container.visits] == [
            {"prompt": "USER: hi ASSISTANT:", **sampling}
        ] * 2


async def test_messages_are_a_chat_whole_and_streamed() -> None:
    async with house(greet, template="vicuna_v1.1") as at:
        for stream in (False, True):
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
            ours = await post(at, "/v1/chat/completions", asked)
            theirs = await post(at, CHAT, asked)
            assert (theirs.status_code, len(theirs.text)) == (200, len(ours.text))
        assert len({visit.json["prompt"] for visit in at.container.visits}) == 1


async def test_the_prompt_of_a_text_is_rendered_as_it_is() -> None:
    async with house(greet, template="vicuna_v1.1") as at:
        shown = (await post(at, "/v1/chat/completions/render", {"model": "m", "messages": "USER: hi"})).json()
        assert (shown["prompt"], shown["stop"]) == ("USER: hi", [])


async def test_a_text_is_streamed_as_a_chat_is() -> None:
    async with house(greet) as at:
        answer = await post(at, CHAT, {"model": "m", "messages": "hi", "stream": True})
        assert '"role":"assistant"' in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")


async def test_its_errors_are_openais() -> None:
    async with house(greet) as at:
        tools = [{"type": "function", "function": {"name": "f"}}]
        for body, param in (
            ({"model": "m", "messages": 5}, "messages"),
            ({"model": "m"}, "messages"),
            ({"model": "m", "messages": "hi", "tools": tools}, "tools"),
            ({"model": "m", "messages": "hi", "response_format": {"type": "json_object"}}, "response_format"),
        ):
            refused = await post(at, CHAT, body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def checked(prompt: str, max_tokens: int, model: str = "m") -> dict[str, Any]:
    return {"prompts": [{"model": model, "prompt": prompt, "max_tokens": max_tokens}]}


async def test_prompts_are_checked_without_a_call() -> None:
    async with house(greet, context_length=10) as at:
        for room, fits in ((8, True), (9, False)):
            answer = await post(at, CHECK, checked("x" * 8, room))
            assert answer.json() == {"prompts": [{"fits": fits, "tokenCount": 2, "contextLength": 10}]}
        assert (await post(at, CHECK, {"prompts": []})).json() == {"prompts": []}
        assert at.container.visits == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (checked("x", 1, "other"), 404, "model"),
        (checked("x", -1), 400, "prompts[0].max_tokens"),
        ({"prompts": [{"model": "m"}]}, 400, "prompts[0].prompt"),
        ([], 400, None),
    ],
)
async def test_what_cannot_be_checked_is_refused(body: Any, status: int, param: str | None) -> None:
    async with house(greet, context_length=10) as at:
        refused = await post(at, CHECK, body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_without_a_context_length_nothing_is_said_to_fit() -> None:
    async with house(greet) as at:
        refused = await post(at, CHECK, checked("x", 1))
        assert refused.status_code == 400
        assert "models.m.context_length" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, CHECK])
async def test_the_same_keys_open_them(path: str) -> None:
    async with house(greet, KEYED, context_length=10) as at:
        body = {"model": "m", "messages": "hi", **checked("x", 1)}
        assert (await post(at, path, body)).status_code == 401
        assert (await post(at, path, body, authorization="Bearer sk-x")).status_code == 200
