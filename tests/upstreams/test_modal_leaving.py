"""Kind ``modal``: whoever leaves, whenever, leaves no call running and no task behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from gateway.core.events import Text
from gateway.upstreams import Upstream
from gateway.upstreams.modal_sdk import ModalUpstream
from gateway.upstreams.modal_sdk.config import ModalConfig
from tests.serve.house import faster
from tests.upstreams.calling import ask, outcome
from tests.upstreams.fake import soon
from tests.upstreams.modal_fake import FakeModal

PIECES = [f"piece {number} " for number in range(5)]
END = {"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 5}}


def house(stream: str, *, stuck: float = 0.0) -> tuple[ModalUpstream, FakeModal]:
    """``stuck``: the share of calls that come to a halt, and end only if they are cancelled."""
    chance = random.Random(5)

    async def turn() -> None:
        if chance.random() < stuck / 6:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def answer(prompt: str, partition: str | None = None) -> Any:
        for piece in [*PIECES, END]:
            await turn()
            if partition is not None:
                queue = sdk.queues["demo-pieces"]
                await queue.put_many.aio([piece], partition=partition, partition_ttl=600)
        for _ in range(20):  # a function returns some time after it has written its end
            await asyncio.sleep(0)
        return {"prompt": "".join(PIECES), **END}

    async def generate(prompt: str) -> AsyncGenerator[Any, None]:
        for piece in [*PIECES, END]:
            await turn()
            yield piece

    sdk = FakeModal(functions={"answer": answer, "generate": generate})
    function = "generate" if stream == "generator" else "answer"
    config = ModalConfig.model_validate({"app": "demo", "function": function, "stream": stream})
    return ModalUpstream("m", config, sdk=sdk), sdk


async def leave(upstream: Upstream, chance: random.Random) -> None:
    """Ask, and cancel after some turns of the loop, once or twice; it may be answered by then."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome(upstream, ask()))
        for _ in range(chance.choice((1, 2))):
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            task.cancel()
    if not task.cancelled():
        assert task.result().text == "".join(PIECES)
        assert task.result().finish.usage is not None


@pytest.mark.parametrize("stream", ["none", "queue", "generator"])
@pytest.mark.parametrize("slow", [False, True], ids=["taken at once", "taken late"])
async def test_of_1000_who_leave_none_leaves_anything(stream: str, slow: bool) -> None:
    before = asyncio.all_tasks()
    upstream, sdk = house(stream, stuck=0.5)
    chance = random.Random(7)
    if slow:
        sdk.taking.clear()
    for _ in range(20):
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(leave(upstream, chance))
            if slow:
                for _ in range(60):
                    await asyncio.sleep(0)
                sdk.taking.set()
        if slow:
            sdk.taking.clear()
    sdk.taking.set()
    await soon(upstream.aclose())
    assert sdk.left == []
    assert [spawning for spawning in sdk.spawned if spawning.torn] == []
    if stream != "generator":
        assert len(sdk.spawned) > 900
        assert sum(spawning.cancelled for spawning in sdk.spawned) > 300
    await soon(upstream.aclose())
    await sdk.stop()
    assert asyncio.all_tasks() <= before


async def test_a_client_that_leaves_while_its_call_is_being_spawned() -> None:
    upstream, sdk = house("none")
    sdk.taking.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome(upstream, ask()))
        await soon(sdk.moved.wait())
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()  # its slot lives as long as its call
        sdk.taking.set()
    await soon(upstream.aclose())
    assert task.cancelled()
    assert sdk.left == []
    await sdk.stop()


async def test_a_cancellation_that_hangs_holds_nobody_for_long() -> None:
    upstream, sdk = house("none")
    sdk.taking.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome(upstream, ask()))
        await soon(sdk.moved.wait())
        task.cancel()
        await soon(asyncio.wait({task}))
    assert task.cancelled()
    assert len(sdk.left) <= 1  # until Modal takes the call
    sdk.taking.set()
    await soon(upstream.aclose())
    assert sdk.left == []
    await sdk.stop()


async def test_leaving_a_stream_cancels_its_call_and_clears_its_partition() -> None:
    upstream, sdk = house("queue")
    async with aclosing(upstream.events(ask())) as batches:
        assert (await soon(anext(batches)))[0] == Text(PIECES[0])
    assert sdk.left == []
    [spawning] = sdk.spawned
    await soon(upstream.aclose())
    assert sdk.queues["demo-pieces"].cleared == [spawning.arguments[1]["partition"]]
    await sdk.stop()


async def test_a_generator_runs_on_after_its_client_has_left() -> None:
    upstream, sdk = house("generator")
    async with aclosing(upstream.events(ask())) as batches:
        await soon(anext(batches))
    [running] = sdk.generations
    await soon(asyncio.wait({running}))
    assert not running.cancelled()
    await upstream.aclose()
    await sdk.stop()


async def test_a_stream_that_is_complete_is_not_held_up_by_its_function_and_does_not_tear_it() -> None:
    upstream, sdk = house("queue")
    got = await soon(outcome(upstream, ask()))
    assert got.text == "".join(PIECES)
    assert [spawning.runs for spawning in sdk.spawned] == [True]
    await soon(upstream.aclose())
    assert [(each.runs, each.torn, each.cancelled) for each in sdk.spawned] == [(False, False, False)]
    await sdk.stop()


async def test_a_function_that_never_returns_after_its_end_is_cancelled() -> None:
    async def answer(prompt: str, partition: str) -> None:
        await sdk.queues["demo-pieces"].put_many.aio([*PIECES, END], partition=partition, partition_ttl=600)
        await asyncio.Event().wait()

    sdk = FakeModal(functions={"answer": answer})
    config = ModalConfig.model_validate({"app": "demo", "function": "answer", "stream": "queue"})
    upstream = ModalUpstream("m", config, sdk=sdk)
    assert (await soon(outcome(upstream, ask()))).text == "".join(PIECES)
    with faster(20) as bound:
        await asyncio.wait_for(upstream.aclose(), bound)
    assert [(each.torn, each.cancelled) for each in sdk.spawned] == [(False, True)]
    await sdk.stop()


async def test_closing_gives_up_on_what_hangs() -> None:
    before = asyncio.all_tasks()
    upstream, sdk = house("none")
    sdk.taking.clear()
    with faster(50) as bound:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome(upstream, ask()))
            await asyncio.wait_for(sdk.moved.wait(), bound)
            task.cancel()
        await asyncio.wait_for(upstream.aclose(), bound)
    assert task.cancelled()
    await sdk.stop()
    assert asyncio.all_tasks() <= before
