"""The ``n`` answers of one request: upstream events through their filters, to whoever delivers them.

Rule: one batch in, one delivery out, in order within a choice; when a choice has finished, or anything
failed, its upstream is closed before this returns. Knows nothing about wire formats or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from gateway.core.call import Call
from gateway.core.decode.fields import cut
from gateway.core.events import Batch, Finish
from gateway.core.watch import filters
from gateway.routing.target import Target
from gateway.routing.visit import Visit
from gateway.serve.together import together

Deliver: TypeAlias = Callable[[int, Batch], Awaitable[None]]
"""Takes the index of a choice and its next events; the last batch ends with its ``Finish``."""


async def answer(target: Target, calls: Sequence[Call], visits: Sequence[Visit], deliver: Deliver) -> None:
    """Deliver the events of these calls, side by side. Raises the first ``GatewayError`` of any."""
    if len(calls) == 1:
        await _choice(target.events(calls[0], visits[0]), calls[0], 0, deliver)
    else:
        await _side_by_side(target, calls, visits, deliver)


async def _choice(events: AsyncGenerator[Batch, None], call: Call, index: int, deliver: Deliver) -> None:
    pipeline = filters(call, index)
    async with aclosing(events):
        async for batch in events:
            for each in pipeline:
                batch = each.feed(batch)
            if batch:
                await deliver(index, batch)
                if type(batch[-1]) is Finish:
                    return  # a stop may have ended it before the upstream did
    raise cut("it has no end")


async def _side_by_side(
    target: Target, calls: Sequence[Call], visits: Sequence[Visit], deliver: Deliver
) -> None:
    """One task delivers for all, so that deliveries never overlap."""
    queue: asyncio.Queue[tuple[int, Batch]] = asyncio.Queue(maxsize=4 * len(calls))

    async def put(index: int, batch: Batch) -> None:
        await queue.put((index, batch))

    async def delivered() -> None:
        running = len(calls)
        while running:
            index, batch = await queue.get()
            running -= type(batch[-1]) is Finish
            await deliver(index, batch)

    async def one(index: int, call: Call, visit: Visit) -> None:
        await _choice(target.events(call, visit), call, index, put)

    each = enumerate(zip(calls, visits, strict=True))
    works: list[Callable[[], Awaitable[None]]] = [partial(one, index, *pair) for index, pair in each]
    await together([delivered, *works])
