"""Keeps models warm in their hours: one task a model, beside the requests.

Rule: containers of kind ``modal`` are kept by the platform's own minimum, which goes back to 0 when the hours
end and when this process does; others are kept awake by a request now and then. A failure is logged and tried
again: nothing here ends because of one. Of several processes one keeps the hours, the others know of them.
Knows nothing about cron.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol, TypeAlias, runtime_checkable

from gateway.core.errors import GatewayError
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.settings import Model
from gateway.warming.hours import Due, Hours, Warm

REMIND = 600.0  # seconds after which the platform is told its minimum again: a deployment forgets it
SHARE = 0.8  # of the seconds an idle container stays, between two requests that keep it awake
AGAIN = 60.0  # seconds after a failure
NAP = 60.0  # seconds after which the clock is looked at, since a machine may sleep or be set
BLINK = 0.05  # seconds, the least
LEAVING = 10.0  # seconds to put back the minimum at the end

Sleep: TypeAlias = Callable[[float], Awaitable[None]]
Tell: TypeAlias = Callable[[bool], None]

log = logging.getLogger("gateway")


@runtime_checkable
class Keeps(Protocol):
    """An upstream whose platform can be told how many containers to run at least."""

    async def keep(self, containers: int) -> None: ...


class Keeper(Protocol):
    """``hold`` is called when the hours begin and each ``every`` seconds of them, ``release`` after them."""

    @property
    def every(self) -> float: ...

    async def hold(self) -> None: ...

    async def release(self) -> None: ...


@dataclass(slots=True, frozen=True)
class ByMinimum:
    """By the platform's minimum of containers; ``tell`` hears whether they are kept."""

    upstream: Keeps
    containers: int
    tell: Tell

    @property
    def every(self) -> float:
        return REMIND

    async def hold(self) -> None:
        await self.upstream.keep(self.containers)
        self.tell(True)

    async def release(self) -> None:
        self.tell(False)
        await self.upstream.keep(0)


@dataclass(slots=True, frozen=True)
class ByRequests:
    """By waking it before it falls asleep; ``window``: seconds an idle container stays."""

    target: Target
    window: float

    @property
    def every(self) -> float:
        return SHARE * self.window

    async def hold(self) -> None:
        waking = self.target.wake()
        await asyncio.wait({waking})
        if not waking.cancelled() and (error := waking.exception()) is not None:
            raise error

    async def release(self) -> None:
        """It falls asleep by itself."""


@dataclass(slots=True, frozen=True)
class Elsewhere:
    """By another process; ``tell`` hears whether it does."""

    tell: Tell

    @property
    def every(self) -> float:
        return inf

    async def hold(self) -> None:
        self.tell(True)

    async def release(self) -> None:
        self.tell(False)


@dataclass(slots=True, frozen=True)
class Schedule:
    """One model's hours, and how they are kept; ``target`` is its first upstream."""

    model: str
    hours: Hours
    keeper: Keeper
    target: Target

    async def run(self, clock: Callable[[], float], sleep: Sleep = asyncio.sleep) -> None:
        """Until cancelled; ``clock`` gives seconds since 1970."""
        held: bool | None = None  # what an earlier process left is not known, so it begins with either
        again = 0.0
        try:
            while True:
                now = clock()
                if (due := self._due(now)) is None:
                    await sleep(AGAIN)
                    continue
                if due.now is not held:
                    held, again = due.now, now
                if now >= again:
                    kept = await self._tried(self.keeper.hold if due.now else self.keeper.release)
                    again = now + ((self.keeper.every if due.now else inf) if kept else AGAIN)
                await sleep(min(max(min(due.changes, again) - clock(), BLINK), NAP))
        finally:
            if held:
                leaving = asyncio.get_running_loop().create_task(self._leave())
                await asyncio.shield(leaving)

    def _due(self, now: float) -> Due | None:
        """None where that cannot be said; what is held stays held."""
        try:
            return self.hours.due(now)
        except Exception:
            log.exception("models.%s.warm: its hours cannot be told", self.model)
            return None

    async def _leave(self) -> None:
        await self._tried(lambda: asyncio.wait_for(self.keeper.release(), LEAVING))

    async def _tried(self, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except (GatewayError, TimeoutError) as error:
            said = error.message if isinstance(error, GatewayError) else "no answer in time"
            log.warning("models.%s.warm: %s", self.model, said)
            return False
        except Exception:
            log.exception("models.%s.warm failed", self.model)
            return False
        return True


def schedules(models: Mapping[str, Model], deployments: Iterable[Deployment]) -> list[Schedule]:
    """Of those models that have one."""
    made = []
    for deployment in deployments:
        name, target = deployment.spec.name, deployment.upstreams[0]
        if (warm := models[name].warm) is None:
            continue
        keeper = _keeper(warm, target, models[name].upstreams[0].scaledown_window)
        made.append(Schedule(name, warm.hours, keeper, target))
    return made


def _keeper(warm: Warm, target: Target, window: float) -> Keeper:
    if warm.elsewhere:
        return Elsewhere(target.kept)
    upstream: object = target.inner
    if isinstance(upstream, Keeps):
        return ByMinimum(upstream, warm.min_containers, target.kept)
    return ByRequests(target, window)


class Rota:
    """The schedules that are kept, a task each; ``clock`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tasks: dict[Schedule, asyncio.Task[None]] = {}

    async def keep(self, wanted: Collection[Schedule]) -> None:
        """These from now on. One that is kept already goes on; the others have ended when this returns."""
        ended = [self._tasks.pop(each) for each in list(self._tasks) if each not in wanted]
        for task in ended:
            task.cancel()
        try:
            if ended:
                await asyncio.wait(ended)
        finally:
            for each in wanted:
                if each not in self._tasks:
                    self._tasks[each] = asyncio.get_running_loop().create_task(each.run(self._clock))


@contextmanager
def keeping_beside(
    make: Callable[[], Collection[Schedule]], clock: Callable[[], float]
) -> Iterator[Callable[[], None]]:
    """Keeps schedules in a thread with a loop of its own, for a process that does not serve itself.

    Gives what has ``make`` asked again. It is called in that thread, which closes the targets that it is done
    with.
    """
    ready: Future[Callable[[bool], None]] = Future()

    async def main() -> None:
        loop, going, news = asyncio.get_running_loop(), True, asyncio.Event()

        def look(go_on: bool) -> None:
            nonlocal going
            going = go_on
            news.set()

        def tell(go_on: bool) -> None:
            loop.call_soon_threadsafe(look, go_on)

        ready.set_result(tell)
        rota, kept = Rota(clock), list[Schedule]()
        while going or kept:
            before, kept = kept, list(make()) if going else []
            await rota.keep(kept)
            for target in {each.target for each in before} - {each.target for each in kept}:
                await target.aclose()
            if going:
                await news.wait()
                news.clear()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    tell = ready.result()
    try:
        yield partial(tell, True)
    finally:
        with suppress(RuntimeError):  # its loop is closed: it failed, and has said so
            tell(False)
        thread.join()
