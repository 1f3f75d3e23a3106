"""One call of a Modal function: spawned and waited for, or read from a queue or a generator as it is made.

Rule: whoever leaves a spawned call cancels it, also one that Modal has not yet taken. What the SDK does runs
in tasks that a reader who leaves does not interrupt: its own results say that getting one must not be. Each
wait is bounded. Knows nothing about what the values mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.core.errors import UpstreamTimeout
from gateway.upstreams.modal_sdk.errors import NotSpawnable, Where, failed

T = TypeVar("T")

LEAVE = 1.0  # seconds that a reader who leaves waits for the cancellation, which then goes on without it
CANCEL = 10.0  # seconds for Modal to take a call and its cancellation
RETURN = 5.0  # seconds in which a function returns that has written its end
CLOSE = 15.0  # seconds for all of that at the end
LAST = 1.0  # seconds in which what a call wrote before its end has come
MANY = 100  # values read from a queue at once
END = object()  # of a generator

log = logging.getLogger("gateway")


@dataclass(slots=True, frozen=True)
class Passed:
    """The arguments of one call."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] | None = None


@dataclass(slots=True, frozen=True)
class Waits:
    """How long values may take, in seconds."""

    first: float
    idle: float
    where: Where

    def over(self, begun: bool) -> UpstreamTimeout:
        if begun:
            return UpstreamTimeout(
                f"The upstream fell silent for {self.idle:g} s ({self.where.at}.idle_timeout).",
                code="upstream_idle",
                retry="elsewhere",
            )
        return UpstreamTimeout(
            f"The upstream sent no event within {self.first:g} s ({self.where.at}.first_event_timeout).",
            retry="elsewhere",
        )


class Leaving:
    """What is still to be done for calls that were left. It outlives their readers, not the upstream."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def see_to(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, which raises nothing. Returns once it is done, or after ``LEAVE``."""
        await asyncio.wait({self.leave(work)}, timeout=LEAVE)

    def leave(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do ``work``, which raises nothing, while nobody waits."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Returns once all is done, or given up after ``CLOSE``."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=CLOSE)
            await ended(*late)


class Spawned:
    """A spawned call, from before Modal has taken it; its maker has ``Leaving`` see to ``end``."""

    def __init__(self, function: Any, passed: Passed, waits: Waits) -> None:
        self._loop = asyncio.get_running_loop()
        self._waits = waits
        self._deadline = self._loop.time() + waits.first
        self._spawning = self._loop.create_task(
            harmless(function.spawn.aio(*passed.positional, **(passed.named or {})))
        )
        self._getting: asyncio.Task[Any] | None = None

    @property
    def left(self) -> float:
        """Seconds that the first event may still take."""
        return max(self._deadline - self._loop.time(), 0.0)

    async def result(self) -> Any:
        """What the function returned. Raises ``GatewayError``."""
        getting = await self.taken()
        await self._until(getting)
        return outcome(getting, self._waits.where, ran=True)

    async def taken(self) -> asyncio.Task[Any]:
        """The one task that waits for the result, once Modal has the call. Raises ``GatewayError``."""
        if self._getting is None:
            await self._until(self._spawning)
            handle = outcome(self._spawning, self._waits.where, ran=False)
            self._getting = self._loop.create_task(harmless(handle.get.aio()))
        return self._getting

    async def end(self, *, returns: bool = False) -> None:
        """Cancel the call unless it has ended. ``returns``: it is about to, and has ``RETURN`` for it.

        What gets the result is interrupted last, when the call has ended or nothing more can be done.
        """
        try:
            if returns and self._getting is not None:
                await asyncio.wait({self._getting}, timeout=RETURN)
            if self._getting is None or not self._getting.done():
                async with asyncio.timeout(CANCEL):
                    await self._cancel()
        except Exception as error:  # noqa: BLE001 - nobody is left who could be told
            log.warning(
                "a call of %s was left and could not be cancelled, so it may run on: %s",
                self._waits.where.name,
                type(error).__name__,
            )
        finally:
            await ended(self._spawning, self._getting)

    async def _cancel(self) -> None:
        await asyncio.wait({self._spawning})
        if not self._spawning.cancelled() and self._spawning.exception() is None:
            await self._spawning.result().cancel.aio()
            if self._getting is not None:
                await asyncio.wait({self._getting}, timeout=LAST)

    async def _until(self, task: asyncio.Task[Any]) -> None:
        await asyncio.wait({task}, timeout=self.left)
        if not task.done():
            raise self._waits.over(begun=False)


class Pieces:
    """What a spawned call writes to its partition of a queue, in order."""

    def __init__(self, queue: Any, partition: str, waits: Waits) -> None:
        self._queue = queue
        self._partition = partition
        self._waits = waits
        self._reading: asyncio.Task[list[Any]] | None = None
        self._begun = False

    async def next(self, getting: asyncio.Task[Any], seconds: float) -> Sequence[Any] | None:
        """The next values, or none yet; None once the call has ended and nothing more comes.

        Raises ``GatewayError`` after ``seconds`` of silence.
        """
        if self._reading is None:
            read = self._queue.get_many.aio(MANY, partition=self._partition)
            self._reading = asyncio.get_running_loop().create_task(harmless(read))
        over = getting.done()
        waiting: set[asyncio.Task[Any]] = {self._reading} if over else {self._reading, getting}
        await asyncio.wait(waiting, timeout=LAST if over else seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._reading.done():
            reading, self._reading = self._reading, None
            self._begun = True
            values: list[Any] = outcome(reading, self._waits.where, ran=True)
            return values
        if over:
            return None
        if not getting.done():
            raise self._waits.over(self._begun)
        return ()

    async def end(self, *, clear: bool) -> None:
        await ended(self._reading)
        if clear:
            try:
                async with asyncio.timeout(CANCEL):
                    await self._queue.clear.aio(partition=self._partition)
            except Exception as error:  # noqa: BLE001 - Modal clears it in time
                log.debug("partition %s was not cleared: %s", self._partition, type(error).__name__)


class Generated:
    """What a remote generator yields. Leaving it does not end it: Modal has no way to."""

    def __init__(self, function: Any, passed: Passed, waits: Waits) -> None:
        self._source = function.remote_gen.aio(*passed.positional, **(passed.named or {}))
        self._waits = waits
        self._task: asyncio.Task[Any] | None = None
        self._begun = False

    async def next(self) -> Any:
        """The next value, or ``END``. Raises ``GatewayError``."""
        self._task = asyncio.get_running_loop().create_task(harmless(_next(self._source)))
        await asyncio.wait({self._task}, timeout=self._waits.idle if self._begun else self._waits.first)
        if not self._task.done():
            raise self._waits.over(self._begun)
        if not self._begun:
            self._unless_refused(self._task)
        self._begun = True
        return outcome(self._task, self._waits.where, ran=True)

    def _unless_refused(self, task: asyncio.Task[Any]) -> None:
        """The SDK refuses a function that is no generator when the first value is asked for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            refusal = failed(error, self._waits.where, ran=False)
            if isinstance(refusal, NotSpawnable):
                raise refusal from None

    async def end(self) -> None:
        await ended(self._task)
        try:
            async with asyncio.timeout(CANCEL):
                await self._source.aclose()
        except Exception as error:  # noqa: BLE001 - nobody is left who could be told
            log.debug("a generator did not close: %s", type(error).__name__)


async def _next(source: Any) -> Any:
    return await anext(source, END)


class Exited(Exception):
    """The function raised what would end its process, such as ``sys.exit``."""


async def harmless(work: Awaitable[T]) -> T:
    """The result of ``work``, which the SDK may let raise what would end this process too."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as exc:
        raise Exited(type(exc).__name__) from None


def outcome(task: asyncio.Task[Any], where: Where, *, ran: bool) -> Any:
    """The result of a task that is done. Raises ``GatewayError`` for whatever the SDK raised."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is not None:
        raise failed(error, where, ran=ran) from None
    return task.result()


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """End tasks whose results nobody wants."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
