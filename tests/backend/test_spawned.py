"""Calls through Modal's SDK: the same answers as over HTTP, whole or as events in batches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from modal_backend import spawned
from modal_backend.engine import Busy, Done, Piece
from tests.backend.scripted import Embedder, Scripted, Step, pieces

ASKED: dict[str, Any] = {"prompt": "p", "stop": ["!"], "logprobs": None, "top_q": 1}


async def events(engine: Any, body: dict[str, Any]) -> list[bytes]:
    written: list[bytes] = []

    async def write(batch: list[bytes]) -> None:
        assert batch
        written.extend(batch)

    await spawned.streamed(engine, body, write)
    return written


async def test_a_whole_answer_is_the_contracts_dict() -> None:
    assert await spawned.whole(Scripted(*pieces("he", "llo")), ASKED) == {
        "prompt": "hello",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
        "ignored": ["top_q"],
    }


async def test_the_events_are_the_contracts() -> None:
    *written, last = await events(Scripted(*pieces("he", "你\u2028好")), ASKED)
    assert last == b"[DONE]"
    assert [json.loads(event) for event in written] == [
        {"prompt": "he"},
        {"prompt": "你\u2028好"},
        {
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
            "ignored": ["top_q"],
        },
    ]


async def test_a_stop_ends_the_engine() -> None:
    engine = Scripted(*pieces("he!", "llo"))
    assert (await spawned.whole(engine, ASKED))["prompt"] == "he"
    assert engine.taken == 1 and engine.closed.is_set()


@pytest.mark.parametrize(
    ("engine", "body", "code"),
    [
        (Scripted(Busy("full")), ASKED, "busy"),
        (Scripted(RuntimeError("secret")), ASKED, "internal_error"),
        (Scripted(Piece("he"), Busy("full")), ASKED, "busy"),
        (Scripted(), ASKED, "engine_dead"),
        (Scripted(broken="gone"), ASKED, "engine_dead"),
        (Scripted(*pieces("a")), {}, "bad_request"),
        (Scripted(*pieces("a")), {"prompt": object()}, "bad_request"),
        (Scripted(*pieces("a")), {"input": ["a"]}, "bad_request"),
        (Embedder(), {"prompt": "a"}, "bad_request"),
    ],
)
async def test_what_fails_is_an_error_of_the_contract(engine: Any, body: Any, code: str) -> None:
    assert (await spawned.whole(engine, body))["error"]["code"] == code
    last = json.loads((await events(engine, body))[-1])
    assert last["error"]["code"] == code
    assert "secret" not in last["error"]["message"]


async def test_what_gathers_while_one_batch_is_written_is_the_next() -> None:
    writing, written = asyncio.Event(), asyncio.Event()
    batches: list[list[bytes]] = []

    async def write(batch: list[bytes]) -> None:
        batches.append(batch)
        writing.set()
        await written.wait()

    engine = Scripted(*pieces(*(str(number) for number in range(600))))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(spawned.streamed(engine, ASKED, write))
        await writing.wait()
        await engine.closed.wait()  # the engine does not wait for the writer
        written.set()
    assert max(map(len, batches)) == spawned.BATCH
    assert len(batches) <= 5
    texts = [json.loads(event).get("prompt", "") for event in [e for batch in batches for e in batch][:-1]]
    assert "".join(texts) == "".join(map(str, range(600)))


async def test_a_writer_that_never_ends_holds_the_engine_at_a_bound() -> None:
    async def write(batch: list[bytes]) -> None:
        await asyncio.Event().wait()

    engine = Scripted(*pieces(*["a"] * 5000))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(spawned.streamed(engine, ASKED, write))
        await engine.started.wait()
        before = 0
        while engine.taken != before:  # until it stands still
            before = engine.taken
            for _ in range(10):
                await asyncio.sleep(0)
        task.cancel()
    assert engine.taken <= spawned.WAITING + spawned.BATCH + 2
    assert engine.closed.is_set()


@pytest.mark.parametrize("streams", [True, False])
async def test_cancelling_the_call_ends_the_engine(streams: bool) -> None:
    steps: tuple[Step, ...] = (Piece("a"), asyncio.Event(), Done("stop"))
    engine = Scripted(*steps)

    async def write(batch: list[bytes]) -> None:
        pass

    work = spawned.streamed(engine, ASKED, write) if streams else spawned.whole(engine, ASKED)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)  # type: ignore[arg-type]
        await engine.started.wait()
        task.cancel()
    assert engine.closed.is_set()


async def test_a_writer_that_fails_ends_the_engine_and_the_call() -> None:
    async def write(batch: list[bytes]) -> None:
        raise TimeoutError("nobody reads")

    engine = Scripted(Piece("a"), asyncio.Event())
    with pytest.raises(TimeoutError):
        await spawned.streamed(engine, ASKED, write)
    assert engine.closed.is_set()
