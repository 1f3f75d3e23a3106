"""An upstream as the gateway keeps it: its slots, the state of its containers, its circuit.

Rule: a slot lives as long as the upstream call, waiting for a container included. While an edge has no
container ready one call asks it each second and the others wait here; a call that was refused that way has
generated nothing, so asking again costs nothing. Knows nothing about models or what is being asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.core.call import Call, Traits
from gateway.core.errors import GatewayError, NoContainer, Saturated, UpstreamTimeout
from gateway.core.events import Batch
from gateway.core.gpu import SECOND, Meter, Tail
from gateway.routing.circuit import Circuit
from gateway.routing.coldstart import ColdStart
from gateway.routing.lifecycle import Lifecycle, State
from gateway.routing.slots import Slots
from gateway.routing.visit import Bounds, Visit
from gateway.routing.waking import Waking, is_there, learn, no_container
from gateway.upstreams import Upstream


class Target:
    """One upstream; ``clock`` gives monotonic seconds. ``send`` is how its calls are made."""

    def __init__(self, inner: Upstream, bounds: Bounds, clock: Callable[[], float]) -> None:
        self.name = inner.name
        self.traits: Traits = inner.traits
        self.inner = inner
        self.send: Callable[[Call], AsyncGenerator[Batch, None]] = inner.events
        self.life = Lifecycle(bounds.window, sleeps=bounds.sleeps)
        self.circuit = Circuit()
        self.slots = Slots(bounds.concurrency, bounds.queue)
        self._meter = _meter(bounds)
        self._bounds = bounds
        self._clock = clock
        self._start = ColdStart(bounds.poll, refuses=bounds.refuses)
        self._waking = Waking(inner, self.life, self._start, bounds.first_event, clock)

    @property
    def metered(self) -> bool:
        """Whether its calls take the time of containers."""
        return self._meter is not None

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
        try:
            if not visit.patient or not self._took(key, visit, now):
                await self._admit(key, visit)
            while True:
                if self._start.asker is not None or (self._start.refuses and visit.state != "warm"):
                    await self._wait_for_container(visit)
                self._sent(visit)
                source = self._within(call, visit) if visit.deadline else self.send(call)
                try:
                    async with aclosing(source):
                        async for batch in source:
                            if not visit.answered:
                                self._answered(visit)
                            yield batch
                    return
                except (GatewayError, TimeoutError) as error:
                    if not self._again(error, key, visit):
                        raise
                finally:
                    self.life.ended(self._clock())
                await self._queue_again(key, visit)
        except GatewayError as error:
            visit.error = error.code or error.type
            raise
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
        async with aclosing(self.send(call)) as source:
            async with asyncio.timeout_at(visit.deadline):
                first = await anext(source)
            yield first
            async for batch in source:
                yield batch

    async def _admit(self, key: str, visit: Visit) -> None:
        if not visit.patient and not await self._found_ready(visit):
            raise self._no_container()
        if not self._took(key, visit, self._clock()):
            await self.slots.wait(key, self._bounds.queue_timeout, priority=visit.priority)
            now = self._clock()
            visit.queued = now - visit.came
            self._hold(visit, now)

    async def _found_ready(self, visit: Visit) -> bool:
        """Whether a call that will not wait should be sent."""
        if visit.state in ("warm", "saturated"):
            return True
        if self._start.certain or visit.state in ("cold", "booting"):
            if visit.wakes:
                self.wake()
            return False
        if visit.wakes and visit.state == "unknown":
            return await self._waking.look()
        return True

    async def _wait_for_container(self, visit: Visit) -> None:
        """Until this call may be sent: a container is ready, or it is this call's turn to ask for one."""
        if self._start.asker is None:
            self._go_first(visit)
            return
        if not visit.patient:
            if self._start.certain:
                raise self._no_container()
            return
        visit.deadline = visit.deadline or asyncio.get_running_loop().time() + self._bounds.first_event
        try:
            async with asyncio.timeout_at(visit.deadline):
                await self._start.turn(visit)
        except TimeoutError:
            raise self._no_container() from None

    def _go_first(self, visit: Visit) -> None:
        """Where an edge would refuse a crowd, and nothing runs: the first of it asks alone."""
        if self.slots.taken == 1 and self.life.state(self._clock()) != "warm":
            self._start.begin(visit)

    def _sent(self, visit: Visit) -> None:
        visit.sent = now = self._clock()
        self.life.sent(now)
        visit.tries = self.circuit.called(now)
        if self._start.asker is visit:
            self._start.asked()

    def _answered(self, visit: Visit) -> None:
        now = self._clock()
        visit.answered = True
        self.life.answered(now)
        if visit.tries:  # another may try it too; what it is worth shows at the end
            visit.tries = False
            self.circuit.left()
        if self._start.asker is not None:
            self._start.ready()
        if visit.deadline or (visit.state not in ("warm", "saturated") and self._booted(visit)):
            visit.booted = now - visit.came - visit.queued

    def _booted(self, visit: Visit) -> bool:
        """Whether a container booted for it; where nothing was known as it came, that shows afterwards."""
        return visit.state in ("cold", "booting") or visit.sent <= self.life.ready

    def _again(self, error: GatewayError | TimeoutError, key: str, visit: Visit) -> bool:
        """Whether the call should be sent again; else the client must hear this error, or what is raised."""
        if isinstance(error, TimeoutError):
            raise self._no_event() from None
        now = self._clock()
        self.circuit.failed(error, now)
        visit.tries = False
        if isinstance(error, NoContainer):
            self._refused(visit, now)
            return True
        if self._start.asker is not None:
            self._passed(error, visit)
        if isinstance(error, Saturated) and visit.patient and self.slots.taken > 1:
            visit.full = now if visit.full is None else visit.full
            if now - visit.full < self._bounds.queue_timeout:
                visit.held = False
                self._let_go(visit, now)
                self.slots.refused(key)
                return True
        learn(self.life, error, now)
        visit.failed, visit.reached = True, error.reached
        return False

    def _refused(self, visit: Visit, now: float) -> None:
        """There is no container: from now on one call asks for one."""
        self.life.refused(now)
        self._start.refused(visit, now - visit.sent)
        if not visit.patient:
            raise self._no_container() from None
        visit.deadline = visit.deadline or asyncio.get_running_loop().time() + self._bounds.first_event
        self._start.begin(visit)

    def _passed(self, error: GatewayError, visit: Visit) -> None:
        """What a failure means for those who wait for a container."""
        if is_there(error):
            self._start.ready()
        elif self._start.asker is visit:
            self._start.resign(visit)
        else:
            self._start.doubt()

    async def _queue_again(self, key: str, visit: Visit) -> None:
        """Wait until a call of ours has ended where the upstream had no room; its deadline stands still."""
        if visit.held:
            return
        assert visit.full is not None
        began = self._clock()
        try:
            left = visit.full + self._bounds.queue_timeout - began
            await self.slots.wait(key, left, first=True, priority=visit.priority)
            self._hold(visit, self._clock())
        finally:
            waited = self._clock() - began
            visit.queued += waited
        if visit.deadline:
            visit.deadline += waited

    def _leave(self, key: str, visit: Visit) -> None:
        visit.ended = now = self._clock()
        if self._start.asker is visit:
            self._start.resign(visit)
        if visit.answered and not visit.failed:
            self.circuit.succeeded()
        else:
            self._fell_short(visit)
        if visit.held:
            self._let_go(visit, now)
            self.slots.free(key)

    def _fell_short(self, visit: Visit) -> None:
        """It ends without an answer, or amid one."""
        if visit.tries:
            self.circuit.left()
        if visit.sent < visit.came or not visit.reached:  # a refusal while it waited has started a container
            visit.reached = self.life.refusal >= visit.came

    def _took(self, key: str, visit: Visit, now: float) -> bool:
        """Whether there was a slot, which it holds now."""
        if free := self.slots.take(key):
            self._hold(visit, now)
        return free

    def _hold(self, visit: Visit, now: float) -> None:
        visit.held = True
        if self._meter:
            self._meter.enter(id(visit), visit.payer, round(now * SECOND))

    def _let_go(self, visit: Visit, now: float) -> None:
        if self._meter:
            gpu, source = self._meter.leave(id(visit), round(now * SECOND), visit.reached)
            visit.gpu += gpu
            if source == "estimated":
                visit.gpu_source = source

    # --- without a call ---

    def wake(self) -> asyncio.Task[None]:
        """Have a container started, without a call; the task ends once one answers, or raises why none can.

        Nobody has to await it.
        """
        return self._waking.begin()

    def _no_event(self) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"The upstream sent no event within {self._bounds.first_event:g} s, "
            "the start of a container included.",
            retry="elsewhere",
        )

    def _no_container(self) -> NoContainer:
        return no_container(self.life, self._clock())

    def counted(self, containers: int) -> None:
        """So many containers run, says their platform."""
        now = self._clock()
        self.life.counted(containers, now)
        if self._meter:
            self._meter.counted(containers, round(now * SECOND))

    def containers(self) -> float:
        """How many run just now, as far as anybody knows; none where their time is not counted."""
        return self._meter.running(round(self._clock() * SECOND)) if self._meter else 0.0

    def idled(self, *, all: bool = False) -> list[Tail]:
        """What containers took idle after calls had kept them busy, each time once, when it is over."""
        return self._meter.closed(round(self._clock() * SECOND), all=all) if self._meter else []

    def kept(self, kept: bool) -> None:
        """From now on containers are kept however idle, or no longer."""
        self.life.kept(kept, self._clock())

    async def aclose(self) -> None:
        await self._waking.aclose()
        await self.inner.aclose()


def _meter(bounds: Bounds) -> Meter | None:
    if bounds.inputs is None:
        return None
    return Meter(bounds.inputs, bounds.containers, round(bounds.window * SECOND), bounds.workers)
