"""An upstream as the gateway keeps it: its slots, the state of its containers, its circuit.

Rule: a slot lives as long as the upstream call, waiting for a container included. While an edge has no
container ready one call asks it each second and the others wait here; a call that was refused that way has
generated nothing, so asking again costs nothing. Knows nothing about models or what is being asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from math import ceil

from gateway.core.call import Call, Traits
from gateway.core.decode.edge import MAX_RETRY_AFTER
from gateway.core.errors import GatewayError, NoContainer, Saturated, UpstreamError, UpstreamTimeout
from gateway.core.events import Batch
from gateway.routing.circuit import Circuit
from gateway.routing.coldstart import ColdStart
from gateway.routing.lifecycle import Lifecycle, State
from gateway.routing.slots import Slots
from gateway.routing.visit import Bounds, Visit
from gateway.upstreams import Upstream

FIRST_LOOK = 1.0  # seconds in which a container that is there answers a request that asks for nothing
RETRY_AFTER = 5.0  # seconds, while no boot was seen


class Target:
    """One upstream; ``clock`` gives monotonic seconds."""

    def __init__(self, inner: Upstream, bounds: Bounds, clock: Callable[[], float]) -> None:
        self.name = inner.name
        self.traits: Traits = inner.traits
        self.inner = inner
        self.life = Lifecycle(bounds.window, sleeps=bounds.sleeps)
        self.circuit = Circuit()
        self.slots = Slots(bounds.concurrency, bounds.queue)
        self._bounds = bounds
        self._clock = clock
        self._start = ColdStart()
        self._waking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()  # the waking knows whether a container is there

    @property
    def pending(self) -> int:
        """Calls running or waiting."""
        return self.slots.taken + self.slots.waiting

    def state(self) -> State:
        return self._state(self._clock())

    def closed(self) -> bool:
        """Whether its circuit lets calls through."""
        return self.circuit.closed(self._clock())

    async def events(self, call: Call, visit: Visit) -> AsyncGenerator[Batch, None]:
        """The events of ``call``. Raises ``GatewayError``: ``NoContainer`` at once if it is not patient."""
        key, now = call.sender.key, self._clock()
        visit.came, visit.state = now, self._state(now)
        if visit.patient and self.slots.take(key):
            visit.held = True
        else:
            await self._admit(key, visit)
        try:
            while True:
                if self._start.under_way:
                    await self._wait_for_container(visit)
                self._sent(visit)
                source = self._within(call, visit) if visit.deadline else self.inner.events(call)
                try:
                    async with aclosing(source):
                        async for batch in source:
                            if not visit.answered:
                                self._answered(visit)
                            yield batch
                    return
                except (GatewayError, TimeoutError) as error:
                    await self._after(error, key, visit)
                finally:
                    self._ended(visit)
        finally:
            self._leave(key, visit)

    # --- one call, step by step ---

    def _state(self, now: float) -> State:
        state = self.life.state(now)
        return "saturated" if state == "warm" and self._full() else state

    def _full(self) -> bool:
        room = self._bounds.room
        return self.slots.full or (room is not None and self.slots.taken >= room)

    async def _within(self, call: Call, visit: Visit) -> AsyncGenerator[Batch, None]:
        """The events of a call that has waited for its container. Raises ``TimeoutError``."""
        async with aclosing(self.inner.events(call)) as source:
            async with asyncio.timeout_at(visit.deadline):
                first = await anext(source)
            yield first
            async for batch in source:
                yield batch

    async def _admit(self, key: str, visit: Visit) -> None:
        if not visit.patient and not await self._found_ready(visit):
            raise self.no_container()
        if not self.slots.take(key):
            await self.slots.wait(key, self._bounds.queue_timeout)
            visit.queued = self._clock() - visit.came
        visit.held = True

    async def _found_ready(self, visit: Visit) -> bool:
        """Whether a call that will not wait should be sent."""
        if visit.state in ("warm", "saturated"):
            return True
        if self._start.under_way or visit.state in ("cold", "booting"):
            if visit.wakes:
                self.wake()
            return False
        if visit.wakes and visit.state == "unknown":
            looking = self.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK):
                    await self._looked.wait()
            return looking.done()  # what may be wrong shows when it is called
        return True

    async def _wait_for_container(self, visit: Visit) -> None:
        """Until this call may be sent: a container is ready, or it is this call's turn to ask for one."""
        loop = asyncio.get_running_loop()
        visit.deadline = visit.deadline or loop.time() + self._bounds.first_event
        try:
            async with asyncio.timeout_at(visit.deadline):
                if not visit.asks:
                    visit.asks = await self._start.wait()
                if visit.asks:
                    await asyncio.sleep(self._start.asked + self._bounds.poll - loop.time())
        except TimeoutError:
            raise self.no_container() from None

    def _sent(self, visit: Visit) -> None:
        now = self._clock()
        self.life.sent(now)
        visit.tries = self.circuit.called(now)
        if visit.asks:  # an edge without a container says so at once
            loop = asyncio.get_running_loop()
            self._start.asked = loop.time()
            visit.presume = loop.call_later(self._bounds.poll, self._found, visit)

    def _answered(self, visit: Visit) -> None:
        now = self._clock()
        visit.answered = True
        self.life.answered(now)
        self.circuit.succeeded()
        if visit.asks:
            self._found(visit)
        if visit.deadline or visit.state in ("cold", "booting"):
            visit.booted = now - visit.came - visit.queued

    def _found(self, visit: Visit) -> None:
        """The call of who asks was taken: there is a container."""
        if visit.asks:
            visit.asks = False
            self._start.ready()

    async def _after(self, error: GatewayError | TimeoutError, key: str, visit: Visit) -> None:
        """Returns where the call should be sent again; raises what the client must hear."""
        if isinstance(error, TimeoutError):
            raise self._no_event() from None
        now = self._clock()
        self.circuit.failed(error, now)
        visit.tries = False
        if isinstance(error, NoContainer):
            self._refused(visit, now)
            return
        self._found(visit)
        left = visit.came + self._bounds.queue_timeout - now
        if isinstance(error, Saturated) and visit.patient and self.slots.taken > 1 and left > 0:
            visit.held = False
            self.slots.refused(key)
            await self.slots.wait(key, left, first=True)
            visit.held = True
            return
        self._learn(error, now)
        raise error

    def _refused(self, visit: Visit, now: float) -> None:
        """There is no container: from now on one call asks for one."""
        self.life.refused(now)
        if not visit.patient:
            raise self.no_container() from None
        loop = asyncio.get_running_loop()
        visit.deadline = visit.deadline or loop.time() + self._bounds.first_event
        if not visit.asks and self._start.begin():
            visit.asks = True
            self._start.asked = loop.time()

    def _learn(self, error: GatewayError, now: float) -> None:
        """What a failure tells about the container."""
        if error.code == "upstream_stopped":
            self.life.stopped()
        elif not isinstance(error, UpstreamError):  # it judged the request, so it is there
            self.life.answered(now)

    def _ended(self, visit: Visit) -> None:
        if visit.presume is not None:
            visit.presume.cancel()
        self.life.ended(self._clock())

    def _leave(self, key: str, visit: Visit) -> None:
        if visit.asks:
            self._start.resign()
        if visit.tries and not visit.answered:
            self.circuit.left()
        if visit.held:
            self.slots.free(key)

    # --- without a call ---

    def wake(self) -> asyncio.Task[None]:
        """Have a container started, without a call; the task ends once one answers, or raises why none can.

        Nobody has to await it.
        """
        if self._waking is None or self._waking.done():
            self._looked = asyncio.Event()
            self._waking = asyncio.get_running_loop().create_task(self._wake())
            self._waking.add_done_callback(lambda _: self._looked.set())
            self._waking.add_done_callback(_looked_at)
        return self._waking

    async def _wake(self) -> None:
        asks = False
        try:
            async with asyncio.timeout(self._bounds.first_event):
                while True:
                    self.life.sent(self._clock())
                    self._start.asked = asyncio.get_running_loop().time()
                    try:
                        await self.inner.wake()
                        self.life.answered(self._clock())
                        return
                    except NoContainer:
                        self.life.refused(self._clock())
                        self._looked.set()
                        asks = asks or self._start.begin()
                    finally:
                        self.life.ended(self._clock())
                    if asks:
                        await asyncio.sleep(self._bounds.poll)
                    elif not (asks := await self._start.wait()):
                        return
        except TimeoutError:
            if asks:  # those who wait have deadlines of their own
                asks = False
                self._start.resign()
            raise self.no_container() from None
        except GatewayError as error:
            self._learn(error, self._clock())
            raise
        finally:
            if asks:
                self._start.ready()

    def _no_event(self) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"The upstream sent no event within {self._bounds.first_event:g} s, "
            "the start of a container included.",
            retry="elsewhere",
        )

    def no_container(self) -> NoContainer:
        """The error for who will not wait, or has waited long enough."""
        left = self.life.until_warm(self._clock())
        seconds = min(max(ceil(RETRY_AFTER if left is None else left), 1), MAX_RETRY_AFTER)
        return NoContainer(
            f"No container of this model is ready; one is being started. Try again in {seconds} seconds.",
            headers={"retry-after": str(seconds)},
            retry="elsewhere",
        )

    async def aclose(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait({self._waking})
        await self.inner.aclose()


def _looked_at(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from reporting a failure that nobody waited for."""
    if not task.cancelled():
        task.exception()
