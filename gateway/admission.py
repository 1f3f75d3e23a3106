"""How many calls an upstream gets at once, and how many may wait for that.

Rule: first come, first served; a slot lives as long as the upstream call, waiting for a container included;
a waiter that is cancelled leaves the queue at once. A wrapper that is itself an ``Upstream``. Knows nothing
about what is being asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gateway.core.call import Call
from gateway.core.errors import NoContainer, Overloaded
from gateway.core.events import Batch
from gateway.upstreams import Upstream


@dataclass(slots=True, frozen=True)
class Bounds:
    """``concurrency`` and ``queue`` count calls; times are seconds."""

    concurrency: int
    queue: int
    queue_timeout: float
    cold_timeout: float = 0.0  # how long to wait for a container; 0: not at all
    cold_poll: float = 1.0  # between calls while no container is ready


class Admitted:
    """An upstream with at most ``bounds.concurrency`` calls running."""

    def __init__(self, inner: Upstream, bounds: Bounds) -> None:
        self.name = inner.name
        self.traits = inner.traits
        self._inner = inner
        self._bounds = bounds
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def pending(self) -> int:
        """Calls running or waiting."""
        return self._running + len(self._waiting)

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        if self._running >= self._bounds.concurrency or self._waiting:
            await self._wait()  # the slot is handed over: _running already counts it
        else:
            self._running += 1
        try:
            deadline = 0.0
            while True:
                try:
                    async with aclosing(self._inner.events(call)) as source:
                        async for batch in source:
                            yield batch
                    return
                except NoContainer:
                    deadline = deadline or asyncio.get_running_loop().time() + self._bounds.cold_timeout
                    if asyncio.get_running_loop().time() + self._bounds.cold_poll > deadline:
                        raise
                await asyncio.sleep(self._bounds.cold_poll)
        finally:
            self._release()

    def body(self, call: Call) -> bytes:
        return self._inner.body(call)

    async def reachable(self) -> None:
        await self._inner.reachable()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._bounds.queue:
            raise _full("The queue of this model is full.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._bounds.queue_timeout):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot came too late for us: pass it on
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(exc, TimeoutError):
                raise _full("No slot of this model came free in time.") from None
            raise

    def _release(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1


def _full(message: str) -> Overloaded:
    return Overloaded(
        f"{message} Try again in a few seconds.", headers={"retry-after": "5"}, retry="elsewhere"
    )
