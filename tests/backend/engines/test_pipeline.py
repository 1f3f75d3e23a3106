"""The decode loop reads each step while the next is made, however many prompts came in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from modal_backend.engine import Done, Request
from modal_backend.engines.transformers_engine import TransformersEngine
from tests.bench.paced_decoding import made
from tests.bench.pacing import Hand
from tests.serve.house import BOUND, soon

pytestmark = pytest.mark.torch

LATER = 6  # requests that come one after the other


async def until(condition: Callable[[], bool]) -> None:
    """Bounded waiting for the decode loop's thread, which tells nobody what it does."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


class Listener:
    """One request; ``said`` counts its tokens."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.said = 0
        self._engine = engine

    async def listen(self) -> None:
        async for item in self._engine.generate(Request(prompt="go on", max_tokens=10_000)):
            if not isinstance(item, Done) and item.usage:
                self.said = item.usage.completion_tokens


async def test_requests_that_come_later_hold_up_no_answer() -> None:
    hand = Hand()
    engine = made(slots=1 + LATER, complete=hand)
    async with asyncio.TaskGroup() as group:
        listeners = [Listener(engine) for _ in range(1 + LATER)]
        tasks = []
        for listener in listeners:
            tasks.append(group.create_task(listener.listen()))
            await until(lambda: engine.load.running + engine.load.waiting == len(tasks))
            hand.allow(2)
            await until(lambda: engine.load.steps > 2 * len(tasks))
        await until(lambda: listeners[0].said >= 2 * len(tasks) - 1)
        assert listeners[-1].said >= 1
        for task in tasks:
            task.cancel()
    hand.end()
    await soon(engine.close())
