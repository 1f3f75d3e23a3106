"""On every route: what does not fit the model is refused before a GPU is called, and who counted is told."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.allowances import Limits
from gateway.app import build_app
from gateway.core.call import Traits
from gateway.core.events import Finish, Text, Usage
from gateway.serve.steps import LONG_PROMPT
from gateway.settings import settings_from
from tests.serve.house import (
    Desk,
    House,
    Scripted,
    Visit,
    container,
    deployed,
    listening,
    settings,
    soon,
)
from tests.serve.test_embeddings import embed

FITS, LONG = "hi hi hi", "hi hi hi hi hi hi hi"  # in a context of six tokens

TEXTS: dict[str, tuple[str, str]] = {  # the route, and what it calls the most that may be answered
    "/v1/chat/completions": ("messages", "max_tokens"),
    "/api/v1/chat/completions": ("messages", "max_tokens"),
    "/v1/completions": ("prompt", "max_tokens"),
    "/v1/responses": ("input", "max_output_tokens"),
    "/v1/messages": ("messages", "max_tokens"),
    "/v1/prompt/m": ("prompt", "max_tokens"),
}
VECTORS = ("/v1/embeddings", "/v1/engines/m/embeddings")


def body(route: str, text: str, most: int = 3) -> dict[str, Any]:
    field, limit = TEXTS.get(route, ("input", ""))
    asked: dict[str, Any] = {"model": "m"} if "/m" not in route or route == "/v1/messages" else {}
    asked[field] = [{"role": "user", "content": text}] if field == "messages" else text
    return {**asked, limit: most} if limit else asked


@asynccontextmanager
async def limited(folder: Path, *, usage: bool, counted: bool = True) -> AsyncIterator[House]:
    """A model with a context of six words; ``usage``: its container counts too, and always says 40 and 2."""
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "hi": 1}, "unk_token": "[UNK]"}
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": words,
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))

    async def answer(visit: Visit) -> None:
        if "input" in visit.json:
            await embed(visit)
            return
        said = {"prompt": "one two", "finish_reason": "stop"}
        told = {"usage": {"prompt_tokens": 40, "completion_tokens": 2}}
        await visit.answer({**said, **told} if usage else said)

    async with container(answer) as behind:
        known = {"tokenizer": "tokenizer.json"} if counted else {}
        config = settings(behind.port, context_length=6, **known)
        async with listening(build_app(settings_from(config, {}), folder=folder)) as port:
            yield House(port, behind)


async def ask(at: House, route: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(f"http://127.0.0.1:{at.port}{route}", json=body)


@pytest.fixture(autouse=True)
def tokenizers() -> None:
    pytest.importorskip("tokenizers", reason="the extra `tokenizers` is not installed")


@pytest.mark.parametrize("route", [*TEXTS, *VECTORS])
async def test_what_does_not_fit_never_reaches_the_gpu(route: str, tmp_path: Path) -> None:
    async with limited(tmp_path, usage=False) as at:
        assert (await ask(at, route, body(route, FITS))).status_code == 200
        assert len(at.container.visits) == 1
        refused = [await ask(at, route, body(route, LONG))]
        if route in TEXTS:
            refused.append(await ask(at, route, body(route, FITS, 4)))
            refused.append(await ask(at, route, {**body(route, LONG), "stream": True}))
        for each in refused:
            assert each.status_code == 400
            assert "context_length_exceeded" in each.text or "prompt is too long" in each.text
        assert len(at.container.visits) == 1


@pytest.mark.parametrize(
    ("usage", "counted", "source"),
    [(True, True, "upstream"), (False, True, "tokenizer"), (False, False, "estimate")],
)
@pytest.mark.parametrize("route", TEXTS)
async def test_who_counted_is_told(
    route: str, usage: bool, counted: bool, source: str, tmp_path: Path
) -> None:
    async with limited(tmp_path, usage=usage, counted=counted) as at:
        answer = await ask(at, route, body(route, FITS))
        assert (answer.status_code, answer.headers["x-gateway-usage"]) == (200, source)
        told = answer.json()["usage"]
        prompt = told.get("prompt_tokens", told.get("input_tokens"))
        assert {"upstream": prompt == 40, "tokenizer": prompt == 3, "estimate": prompt > 0}[source]


# --- chats that the upstream renders ---

CHAT = Traits("chat")
BIG = "word " * 1000
SILENT = [[Text("one two"), Finish("stop")]]  # says nothing of its tokens


def renderer(*turns: Any) -> Scripted:
    return Scripted("a", *turns, traits=CHAT)


@pytest.mark.parametrize(
    ("said", "counted", "source"),
    [
        (SILENT, True, "estimate"),
        (SILENT, False, "estimate"),
        ([[Text("a"), Finish("stop", Usage(9, 1))]], True, "upstream"),
    ],
)
async def test_only_a_prompt_that_was_rendered_here_is_counted_exactly(
    said: Any, counted: bool, source: str
) -> None:
    known: dict[str, Any] = {"count": len, "spec": {"context_length": 10}} if counted else {}
    desk = Desk(deployed(renderer(said), **known))
    line = await desk.ask()
    assert (b"x-gateway-usage", source.encode()) in line.said[0]["headers"]
    assert [record.usage.source for record in desk.records if record.usage] == [source]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"max_tokens": 8}, 200),
        ({"max_tokens": 9}, 400),
        ({"max_tokens": 8, "max_completion_tokens": 9}, 400),
        ({"messages": [{"role": "user", "content": "x" * 10}]}, 200),
        ({"messages": [{"role": "user", "content": "x" * 11}]}, 400),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 11}]}]}, 400),
        ({"messages": [{"role": "user", "content": "xxxxx"}, {"role": "user", "content": "xxxxx"}]}, 400),
        ({"messages": [{"role": "user", "content": "xx" + " " * 20}], "max_tokens": 8}, 200),
        ({"n": 2, "messages": [{"role": "user", "content": "xxxxxx"}]}, 200),
        ({"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 50}}]}, 200),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_whose_texts_do_not_fit_never_reaches_its_server(
    fields: dict[str, Any], status: int, stream: bool
) -> None:
    upstream = renderer()
    desk = Desk(deployed(upstream, spec={"context_length": 10}, count=len))
    line = await desk.ask(**fields, stream=stream)
    assert line.status == status
    assert bool(upstream.calls) == (status == 200)
    if status == 400:
        assert line.error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("model", [{"count": len}, {"spec": {"context_length": 10}}])
async def test_a_chat_is_not_checked_where_the_length_or_the_count_is_not_known(model: Any) -> None:
    asked = {"role": "user", "content": "x" * 50}
    assert (await Desk(deployed(renderer(), **model)).ask(messages=[asked])).status == 200


async def test_long_chats_are_counted_off_the_event_loop_and_no_others() -> None:
    threads: list[bool] = []

    def count(text: str) -> int:
        if text.startswith("x"):
            threads.append(threading.current_thread() is threading.main_thread())
        return 1

    for known in ({}, {"spec": {"context_length": 10}}):
        desk = Desk(deployed(renderer(), count=count, **known))
        for size in (LONG_PROMPT, LONG_PROMPT + 1):
            parts = [{"type": "text", "text": "x" * size}]
            assert (await desk.ask(messages=[{"role": "user", "content": parts}])).status == 200
    assert threads == [True, False]  # who checks nothing counts nothing


TOOL = {"type": "function", "function": {"name": "f", "description": BIG}}
CALLED = {"type": "function", "id": "a", "function": {"name": "f", "arguments": json.dumps({"x": BIG})}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": BIG}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": BIG}]}]},
        {"tools": [TOOL]},
        {"functions": [TOOL["function"]]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALLED]}]},
    ],
    ids=["text", "parts", "tools", "functions", "calls"],
)
async def test_all_that_is_sent_to_be_read_is_limited_and_written_down(fields: dict[str, Any]) -> None:
    upstream = renderer(SILENT)
    limited = Desk(deployed(upstream, limits=Limits(tokens_per_minute=500)))
    assert (await limited.ask(**fields, max_tokens=10)).status == 429
    assert upstream.calls == []
    free = Desk(deployed(upstream))
    assert (await free.ask(**fields)).status == 200
    [usage] = [record.usage for record in free.records]
    assert usage is not None and usage.prompt_tokens >= len(BIG) // 4


async def test_a_client_that_leaves_early_has_sent_its_prompt_all_the_same() -> None:
    never = asyncio.Event()
    desk = Desk(deployed(renderer([[Text("one")], never.wait])))
    line = desk.line(messages=[{"role": "user", "content": [{"type": "text", "text": BIG}]}], stream=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(soon(desk.take(line)))
        await soon(line.until(b"one"))
        line.left.set()
    [record] = desk.records
    assert record.client_left and record.usage is not None
    assert (record.usage.prompt_tokens, record.usage.source) == (len(BIG) // 4, "estimate")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tokenizer_that_breaks_costs_the_count_and_nothing_else(stream: bool) -> None:
    def count(text: str) -> int:
        if text == "hello":
            raise RuntimeError
        return 1

    answers = Scripted("a", [[Text("hello"), Finish("stop")]])
    desk = Desk(deployed(answers, count=count, limits=Limits(concurrent=1)))
    for _ in range(2):
        line = desk.line(stream=stream)
        with pytest.raises(RuntimeError):
            await soon(desk.take(line))
        assert line.status == (200 if stream else 500)  # and not 429: its place is free again
    assert [record.usage for record in desk.records] == [None, None]
    assert desk.counted("modal_gateway_requests_in_flight 0.0")
