"""Having a container started without a call, and what a failure tells about containers, with or without one.

Rule: one waking at a time, whoever wants it; it polls as a call does, and waits while a call asks. Knows
nothing about slots or what calls ask. Times are in seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import ceil

from gateway.core.decode.edge import MAX_RETRY_AFTER
from gateway.core.errors import GatewayError, NoContainer, Saturated, UpstreamError
from gateway.routing.coldstart import ColdStart
from gateway.routing.lifecycle import Lifecycle
from gateway.upstreams import Upstream

FIRST_LOOK = 1.0  # seconds in which a container that is there answers a request that asks for nothing
RETRY_AFTER = 5.0  # seconds, while no boot was seen


class Waking:
    """``patience``: seconds that one waking may take; ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        inner: Upstream,
        life: Lifecycle,
        start: ColdStart,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._life = life
        self._start = start
        self._patience = patience
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()  # the task knows whether a container is there

    def begin(self) -> asyncio.Task[None]:
        """The task that wakes; it ends once a container answers, or raises why none can.

        Nobody has to await it.
        """
        if self._task is None or self._task.done():
            looked = self._looked = asyncio.Event()  # the next waking has one of its own
            self._task = asyncio.get_running_loop().create_task(self._wake(looked))
            self._task.add_done_callback(lambda _: looked.set())
            self._task.add_done_callback(_looked_at)
        return self._task

    async def look(self) -> bool:
        """Begin; whether a call should be sent: what may be wrong shows when it is."""
        task, looked = self.begin(), self._looked
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await looked.wait()
        return task.done()

    async def _wake(self, looked: asyncio.Event) -> None:
        me = object()
        try:
            async with asyncio.timeout(self._patience):
                while not await self._found(me):
                    looked.set()
                    await self._start.turn(me)
        except TimeoutError:
            raise no_container(self._life, self._clock()) from None
        finally:
            self._start.resign(me)

    async def _found(self, me: object) -> bool:
        """Ask once. Raises ``GatewayError`` for anything but a refusal."""
        sent = self._clock()
        self._life.sent(sent)
        if self._start.asker is me:
            self._start.asked()
        try:
            answers = await self._inner.wake() is None
        except NoContainer:
            now = self._clock()
            self._life.refused(now)
            self._start.refused(me, now - sent)
            self._start.begin(me)
            return False
        except GatewayError as error:
            learn(self._life, error, self._clock())
            if is_there(error):
                self._start.ready()
            raise
        else:
            (self._life.answered if answers else self._life.started)(self._clock())
            self._start.ready()
            return True
        finally:
            self._life.ended(self._clock())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


def is_there(error: GatewayError) -> bool:
    """Whether this failure comes from a container, or from an edge whose containers are full."""
    return isinstance(error, Saturated) or not isinstance(error, UpstreamError)


def learn(life: Lifecycle, error: GatewayError, now: float) -> None:
    """What a failure tells about the container."""
    if error.code == "upstream_stopped":
        life.stopped()
    elif not isinstance(error, UpstreamError):  # it judged the request, so it is there
        life.answered(now)


def no_container(life: Lifecycle, now: float) -> NoContainer:
    """The error for who will not wait, or has waited long enough."""
    left = life.until_warm(now)
    seconds = min(max(ceil(RETRY_AFTER if left is None else left), 1), MAX_RETRY_AFTER)
    return NoContainer(
        f"No container of this model is ready; one is being started. Try again in {seconds} seconds.",
        headers={"retry-after": str(seconds)},
        retry="elsewhere",
    )


def _looked_at(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from reporting a failure that nobody waited for."""
    if not task.cancelled():
        task.exception()
