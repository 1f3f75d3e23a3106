"""Modal-Session-ID: calls that one container should take carry the same one; no other host hears of it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.app import App, build_app
from gateway.core import modal
from gateway.settings import settings_from
from tests.serve.house import Line, Visit, container, soon
from tests.serve.test_chat import greet

KEYS = {"one": "sk-one-of-the-tests", "two": "sk-two-of-the-tests"}
FIRST = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
GROWN = [*FIRST, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and now?"}]
SESSION = modal.SESSION_HEADER.lower()


def gateway(port: int) -> App:
    """Two models at one container, and one whose server speaks OpenAI's API."""
    url = f"http://127.0.0.1:{port}"
    models = {
        "m": {"upstream": {"url": url}, "template": "plain"},
        "other": {"upstream": {"url": url}, "template": "plain"},
        "chat": {"upstream": {"kind": "openai", "url": url + "/v1"}},
    }
    keys = [{"name": name, "key": key} for name, key in KEYS.items()]
    return build_app(settings_from({"auth": {"keys": keys}, "models": models}, {}))


async def reply(visit: Visit) -> None:
    if "messages" in visit.json:
        message = {"role": "assistant", "content": "hello"}
        await visit.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    else:
        await greet(visit)


async def sessions(*asked: Mapping[str, Any]) -> list[str]:
    """The session of each request's call; ``key`` names who asks."""
    async with container(reply) as behind:
        app = gateway(behind.port)
        for fields in asked:
            body = {"model": "m", "messages": FIRST, **fields}
            key = KEYS[body.pop("key", "one")]
            line = Line(body=json.dumps(body).encode())
            line.scope["headers"].append((b"authorization", f"Bearer {key}".encode()))
            await soon(app(line.scope, line.receive, line.send))
            assert line.status == 200, line.body
        return [visit.headers[SESSION] for visit in behind.visits]


async def test_a_conversation_keeps_its_session_as_it_grows() -> None:
    found = await sessions({}, {"messages": GROWN}, {"messages": GROWN, "temperature": 1}, {"stream": True})
    assert len(set(found)) == 1
    assert all(char in "0123456789abcdef" for char in found[0])


async def test_the_choices_of_a_request_share_its_session() -> None:
    found = await sessions({"n": 3})
    assert (len(found), len(set(found))) == (3, 1)


async def test_keys_models_and_beginnings_have_sessions_of_their_own() -> None:
    found = await sessions(
        {},
        {"key": "two"},
        {"model": "other"},
        {"messages": FIRST[1:]},
        {"messages": [FIRST[0], {"role": "user", "content": "hi!"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, FIRST[1]]},
        {"model": "chat"},
    )
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("model", ["m", "chat"])
async def test_a_prompt_cache_key_is_the_session_where_a_header_can_carry_it(model: str) -> None:
    found = await sessions(
        {"model": model, "prompt_cache_key": "user-42/abc"},
        {"model": model, "prompt_cache_key": "user-42/abc", "messages": GROWN[1:]},
    )
    assert found == ["user-42/abc"] * 2


@pytest.mark.parametrize("key", ["a b", "ключ", "x" * 129, "a\r\nx-evil: 1", ""])
async def test_a_prompt_cache_key_that_no_header_carries_still_decides(key: str) -> None:
    found = await sessions(
        {"prompt_cache_key": key},
        {"prompt_cache_key": key, "messages": GROWN[1:]},
        {"prompt_cache_key": key + "'"},
        {"prompt_cache_key": key, "key": "two"},
    )
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert all(char in "0123456789abcdef" for char in found[0])


async def test_no_other_host_hears_of_a_session() -> None:
    async with container(greet) as stranger:

        async def elsewhere(visit: Visit) -> None:
            location = f"http://127.0.0.1:{stranger.port}/?{modal.CALL_PARAMETER}=fc-1"
            head = f"HTTP/1.1 303 See Other\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            await visit.send(head.encode())

        async with container(elsewhere) as behind:
            line = Line(body=json.dumps({"model": "m", "messages": FIRST}).encode())
            line.scope["headers"].append((b"authorization", f"Bearer {KEYS['one']}".encode()))
            app = gateway(behind.port)
            await soon(app(line.scope, line.receive, line.send))
            assert (line.status, line.error["code"]) == (502, "upstream_redirect")
            assert [SESSION in visit.headers for visit in behind.visits] == [True]
        assert stranger.visits == []
