"""An answer that stays alive while the model is silent: a stream, or one that would rather come in one piece.

Rule: no status is promised before there is something to say, unless the wait exceeds the grace; after that,
something is sent whenever nothing was for a while. One timer an answer, re-armed only when it fires,
because events are many and silences few. Knows nothing about events; the encoder gives it bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cached_property

from gateway.core.value import value
from gateway.http.exchange import Exchange
from gateway.http.rhythm import Rhythm

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
UNBUFFERED = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


@value
class Filler:
    """What is sent when there is nothing to say, and as what: first chunks, a comment, an empty chunk."""

    content_type: str
    opening: Callable[[], bytes]
    ping: bytes
    pause: Callable[[], bytes]


WHITE_SPACE = Filler(JSON, lambda: b" ", b" ", lambda: b" ")  # clients of all kinds read past it (RFC 8259 2)


class LiveAnswer:
    """Use as ``async with``; ``write`` sends headers and opening first if they were not sent yet."""

    def __init__(
        self, exchange: Exchange, headers: Callable[[], Mapping[str, str]], filler: Filler, rhythm: Rhythm
    ) -> None:
        self._exchange = exchange
        self._headers = headers
        self._filler = filler
        self._rhythm = rhythm
        self._keeper: asyncio.Task[None] | None = None
        self._last_sent = self._last_chunk = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._settled = False

    @property
    def started(self) -> bool:
        return self._exchange.started

    def keep(self, waited: float = 0.0) -> None:
        """From now on the client, who has ``waited`` so many seconds, gets a sign of life when it needs one.

        Not from the start: most answers come sooner than they could need one, and every timer costs.
        """
        if self._timer is None and not self._settled:
            self._timer = self._loop.call_later(max(self._rhythm.grace - waited, 0.0), self._tick)

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # a system call before Python 3.12

    async def __aenter__(self) -> LiveAnswer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()
        if (keeper := self._keeper) is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
            if not keeper.cancelled():
                keeper.exception()  # that the client left, which is known by other ways

    async def write(self, data: bytes) -> None:
        """Send these chunks, after the opening if this is the first."""
        if self._keeper is not None:
            await self._keeper
        self._last_sent = self._last_chunk = self._loop.time()
        if not self._exchange.started:
            self._stop()
            self._timer = self._loop.call_later(self._rhythm.ping, self._tick)
            await self._exchange.start({**self._headers(), **UNBUFFERED}, self._filler.content_type)
            data = self._filler.opening() + data
        await self._exchange.write(data)

    async def settle(self) -> bool:
        """Send nothing more unasked; true if headers went out already."""
        self._settled = True
        self._stop()
        if self._keeper is not None:
            await self._keeper
            self._stop()
        return self._exchange.started

    async def end(self, data: bytes) -> None:
        """Send the last chunks and end the answer cleanly."""
        if not await self.settle():
            await self.write(b"")
            self._stop()
        await self._exchange.end(data)

    async def fail(self, data: bytes) -> None:
        """Send the failure of an answer that has begun; whoever serves it cuts the connection then."""
        if self._keeper is not None:
            await self._keeper
        await self._exchange.write(data)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        wait = self._due() - self._loop.time()
        if self._exchange.started and wait > 0:
            self._timer = self._loop.call_later(wait, self._tick)
        else:
            self._keeper = self._loop.create_task(self._fill())

    def _due(self) -> float:
        """When the client has waited long enough for anything, or for a chunk."""
        return min(self._last_sent + self._rhythm.ping, self._last_chunk + self._rhythm.pause)

    async def _fill(self) -> None:
        now = self._loop.time()
        if not self._exchange.started:
            await self._exchange.start({**self._headers(), **UNBUFFERED}, self._filler.content_type)
            await self._exchange.write(self._filler.opening())
            self._last_chunk = now
        elif now - self._last_chunk >= self._rhythm.pause:
            await self._exchange.write(self._filler.pause())
            self._last_chunk = now
        else:
            await self._exchange.write(self._filler.ping)
        self._last_sent = now
        self._keeper = None
        self._timer = self._loop.call_at(self._due(), self._tick)
