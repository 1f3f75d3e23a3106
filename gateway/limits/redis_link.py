"""One connection to Redis, over which a script is called: all that waits in one round trip.

Rule: nobody waits for a Redis that does not answer. The first failure, whatever it is, takes the link down:
who asks is told at once, what must arrive is kept, and a task tries until the link is up again. Knows nothing
of what the script does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeAlias

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from gateway.limits.redis_calls import Reply

TIMEOUT = 0.05  # seconds for a round trip
CONNECT = 1.0  # seconds to connect, which nobody waits for
AGAIN = 0.2  # seconds between two tries
BATCH = 32  # calls of each sort in one round trip
LINGER = 0.005  # seconds that what must only arrive waits for company
LATE = 0.01  # seconds by which this process itself may be late without blaming Redis
PATIENCE = 1.0  # seconds that a round trip may take where this process is late again and again
KEPT = 5000  # calls that must arrive; the oldest give way

log = logging.getLogger("gateway")


class Unreachable(Exception):
    """Redis does not answer, or not with what was asked for."""


Exchange: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Reply]]]
"""All calls in one round trip; raises if one fails."""


class Link:
    """``url`` as redis-py reads it; ``timeout`` in seconds."""

    def __init__(self, url: str, script: str, *, timeout: float = TIMEOUT) -> None:
        self.up = False
        self.lost = 0  # calls that should have arrived and never will
        self._script = script
        self._timeout = timeout
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=CONNECT, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._connection: AbstractConnection | None = None
        self._asked: deque[tuple[bytes, asyncio.Future[Reply]]] = deque()
        self._told: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._complained = False
        self._lingering = False

    @property
    def waiting(self) -> int:
        """Calls that have not arrived yet, of those that must."""
        return len(self._told)

    async def ask(self, call: bytes) -> Reply:
        """What the script answers to a call. Raises ``Unreachable``, within two round trips at most."""
        if not self.up:
            raise Unreachable
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked.append((call, reply))
        self._wake.set()
        return await reply

    def tell(self, call: bytes) -> None:
        """Let it arrive, now or when the link is up again; in the order told, perhaps twice."""
        if len(self._told) >= KEPT:
            self._told.popleft()
            self.lost += 1
        self._told.append(call)
        if not self._lingering:
            self._lingering = True
            asyncio.get_running_loop().call_later(LINGER, self._hurry)

    def _hurry(self) -> None:
        self._lingering = False
        self._wake.set()

    @asynccontextmanager
    async def running(self, greet: Callable[[Exchange], Awaitable[None]]) -> AsyncIterator[None]:
        """Up while inside, whenever that is possible; ``greet`` is called each time before others may ask."""
        tried = asyncio.Event()
        carrying = asyncio.get_running_loop().create_task(self._carry(greet, tried))
        try:
            await tried.wait()
            yield
        finally:
            carrying.cancel()
            await asyncio.wait({carrying})

    async def _carry(self, greet: Callable[[Exchange], Awaitable[None]], tried: asyncio.Event) -> None:
        try:
            while True:
                try:
                    await self._connect(greet)
                    tried.set()
                    await self._deliver()
                except Exception as error:  # noqa: BLE001  it is said there
                    self._complain(error)
                await self._down()
                tried.set()
                await asyncio.sleep(AGAIN)
        finally:
            tried.set()
            await self._down()

    async def _connect(self, greet: Callable[[Exchange], Awaitable[None]]) -> None:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._connection = connection
        async with asyncio.timeout(CONNECT):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SCRIPT LOAD", self._script)
            await connection.read_response()
        await greet(self._exchange)
        self.up = True
        self._wake.set()
        if self._complained:
            self._complained = False
            log.warning("Redis is back: limits are counted there again")

    async def _deliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asked or self._told:
                await self._round()

    async def _round(self) -> None:
        """One round trip: what was told first, since it makes room."""
        told = [self._told.popleft() for _ in range(min(BATCH, len(self._told)))]
        asked = [self._asked.popleft() for _ in range(min(BATCH, len(self._asked)))]
        asked = [(call, reply) for call, reply in asked if not reply.done()]  # its asker may have left
        calls = [*told, *(call for call, _ in asked)]
        outcomes: Sequence[Reply | Exception] = [Unreachable()] * len(calls)
        try:
            outcomes = await self._outcomes(calls)
        finally:
            for (_, reply), outcome in zip(asked, outcomes[len(told) :], strict=True):
                _resolve(reply, outcome)
            pairs = zip(told, outcomes, strict=False)
            again = [
                call for call, outcome in pairs if isinstance(outcome, Exception) and not self._bad(outcome)
            ]
            self._told.extendleft(reversed(again))
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _bad(self, error: Exception) -> bool:
        """Whether the call itself is at fault: another try would end alike."""
        bad = type(error) is ResponseError and not str(error).startswith(("MISCONF", "NOREPLICAS"))
        self.lost += bad
        return bad

    async def _exchange(self, calls: Sequence[bytes]) -> list[Reply]:
        replies = []
        for outcome in await self._outcomes(calls):
            if isinstance(outcome, Exception):
                raise outcome
            replies.append(outcome)
        return replies

    async def _outcomes(self, calls: Sequence[bytes]) -> list[Reply | Exception]:
        connection = self._connection
        assert connection is not None
        async with asyncio.timeout(None) as limit, _fair(limit, self._timeout):
            await connection.send_packed_command(b"".join(calls))
            outcomes: list[Reply | Exception] = []
            for _ in calls:
                try:
                    outcomes.append([int(number) for number in (await connection.read_response()).split()])
                except ResponseError as error:
                    outcomes.append(error)
            return outcomes

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            expected = isinstance(error, RedisError | OSError | TimeoutError)
            text = "Redis fails (%s): each gateway gives its share of the limits"
            log.warning(text, type(error).__name__, exc_info=None if expected else error)

    async def _down(self) -> None:
        self.up = False
        while self._asked:
            _resolve(self._asked.popleft()[1], Unreachable())
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)


@asynccontextmanager
async def _fair(limit: asyncio.Timeout, seconds: float) -> AsyncIterator[None]:
    """Let ``limit`` expire after so long, on a machine that is not busy.

    While this process itself gets its turns late, Redis may too: it has as long again, up to ``PATIENCE``.
    Whoever gives up counts alone beside others who do not, and together they may grant too much.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    timer: asyncio.TimerHandle

    def expire(due: float, *, again: float) -> None:
        nonlocal timer
        now = loop.time()
        late = now - due > LATE
        if (late or again) and now < end:
            due = now + (seconds if late else again)
            timer = loop.call_at(due, partial(expire, due, again=0.0))
        else:
            limit.reschedule(now)

    due = loop.time() + seconds
    timer = loop.call_at(due, partial(expire, due, again=LATE))
    try:
        yield
    finally:
        timer.cancel()


def _resolve(reply: asyncio.Future[Reply], outcome: Reply | Exception) -> None:
    if reply.done():
        return
    if isinstance(outcome, Exception):
        reply.set_exception(Unreachable())
    else:
        reply.set_result(outcome)
