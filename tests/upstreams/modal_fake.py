"""Modal as its SDK shows it, in this process: functions that are spawned, generators, queues, an autoscaler.

Rule: the shape of modal 1.6.4, which ``test_modal_shape.py`` compares, with Modal's own exceptions; it is the
worst that the documents allow: a call that is being spawned exists even if nobody waits for its handle, and
ends only by itself or when it is cancelled. It counts what was left.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

exception = pytest.importorskip(
    "modal.exception", reason="Modal's SDK is not installed: pip install 'modal-gateway[modal]'"
)


class Aio:
    """A method of the SDK; only ``.aio`` may be called on an event loop."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.aio = function


@dataclass(eq=False)
class Spawning:
    """One spawned call, on Modal's side."""

    running: asyncio.Task[Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    cancelled: bool = False
    torn: bool = False  # its result was being got, and that was interrupted while it ran
    got: int = 0  # how often its result was asked for

    @property
    def runs(self) -> bool:
        return not self.running.done()


class FunctionCall:
    def __init__(self, spawning: Spawning) -> None:
        self._spawning = spawning
        self.get = Aio(self._get)
        self.cancel = Aio(self._cancel)

    async def _get(self, timeout: float | None = None, *, index: int = 0) -> Any:  # noqa: ASYNC109 - its shape
        running = self._spawning.running
        self._spawning.got += 1
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            self._spawning.torn = self._spawning.runs and not self._spawning.cancelled
            raise
        if running.cancelled():
            raise exception.InputCancellation
        return running.result()

    async def _cancel(self, terminate_containers: bool = False) -> None:
        await asyncio.sleep(0)
        self._spawning.cancelled = True
        self._spawning.running.cancel()


@dataclass
class Stats:
    backlog: int
    num_total_runners: int


@dataclass
class Settings:
    """Of an autoscaler."""

    min_containers: int | None


class Function:
    """A handle; ``body`` is a coroutine function or an async generator function."""

    def __init__(self, sdk: FakeModal, body: Callable[..., Any] | None) -> None:
        self._sdk = sdk
        self._body = body
        self.spawn = Aio(self._spawn)
        self.remote_gen = Aio(self._remote_gen)
        self.hydrate = Aio(self._hydrate)
        self.get_current_stats = Aio(self._stats)
        self.autoscaler = self
        self.settings = Aio(self._settings)
        self.update = Aio(self._update)

    async def _hydrate(self) -> Function:
        if self._sdk.broken is not None:
            raise self._sdk.broken
        if self._body is None:
            raise exception.NotFoundError("App 'demo' not found in environment 'main'")
        return self

    async def _spawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        await self._hydrate()
        assert self._body is not None
        if inspect.isasyncgenfunction(self._body):
            raise exception.InvalidError("Cannot `spawn` a generator function.")
        spawning = Spawning(self._sdk.run(self._body(*args, **kwargs)), (args, kwargs))
        self._sdk.spawned.append(spawning)
        self._sdk.moved.set()
        await self._sdk.taking.wait()
        return FunctionCall(spawning)

    async def _remote_gen(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        await self._hydrate()
        assert self._body is not None
        if not inspect.isasyncgenfunction(self._body):
            raise exception.InvalidError("A non-generator function cannot be called with `.remote_gen(...)`.")
        made: asyncio.Queue[Any] = asyncio.Queue()
        running = self._sdk.run(_generate(self._body(*args, **kwargs), made))
        self._sdk.generations.append(running)
        end = object()
        running.add_done_callback(lambda _: made.put_nowait(end))
        while (value := await made.get()) is not end:
            yield value
        running.result()

    async def _stats(self) -> Stats:
        await self._hydrate()
        return self._sdk.stats()

    async def _settings(self) -> Settings:
        await self._hydrate()
        await asyncio.sleep(0)
        return Settings(self._sdk.updates[-1] if self._sdk.updates else self._sdk.minimum)

    async def _update(self, *, min_containers: int | None = None) -> Settings:
        await asyncio.sleep(0)
        self._sdk.updates.append(min_containers)
        self._sdk.updating.set()
        await self._sdk.settled.wait()
        return Settings(min_containers)


async def _generate(source: AsyncGenerator[Any, None], made: asyncio.Queue[Any]) -> None:
    async for value in source:
        made.put_nowait(value)


class Obj:
    """An instance of a deployed class."""

    def __init__(self, sdk: FakeModal, methods: dict[str, Callable[..., Any]]) -> None:
        self._sdk = sdk
        self._methods = methods

    def __getattr__(self, name: str) -> Function:
        return Function(self._sdk, self._methods.get(name))


class Cls:
    def __init__(self, sdk: FakeModal, methods: dict[str, Callable[..., Any]]) -> None:
        self._sdk = sdk
        self._methods = methods

    def with_options(self, **options: Any) -> Cls:
        self._sdk.asked.append(options)
        return self

    def __call__(self, **parameters: Any) -> Obj:
        self._sdk.asked.append(parameters)
        return Obj(self._sdk, self._methods)


class Queue:
    """Partitions of values, read and written in order."""

    def __init__(self) -> None:
        self.partitions: dict[str, deque[Any]] = {}
        self.cleared: list[str] = []
        self._written = asyncio.Event()
        self.put_many = Aio(self._put_many)
        self.get_many = Aio(self._get_many)
        self.clear = Aio(self._clear)

    async def _put_many(
        self,
        vs: list[Any],
        block: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its shape
        *,
        partition: str | None = None,
        partition_ttl: int = 86400,
    ) -> None:
        assert partition is not None and 0 < len(partition.encode()) <= 64
        self.partitions.setdefault(partition, deque()).extend(vs)
        self._written.set()
        await asyncio.sleep(0)

    async def _get_many(
        self,
        n_values: int,
        block: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its shape
        *,
        partition: str | None = None,
    ) -> list[Any]:
        assert partition is not None
        while not (waiting := self.partitions.get(partition)):
            self._written.clear()
            await self._written.wait()
        return [waiting.popleft() for _ in range(min(n_values, len(waiting)))]

    async def _clear(self, *, partition: str | None = None, all: bool = False) -> None:
        assert partition is not None
        self.cleared.append(partition)
        self.partitions.pop(partition, None)


@dataclass
class FakeModal:
    """The module ``modal``: ``functions`` and ``classes`` are what is deployed, by name."""

    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    classes: dict[str, dict[str, Callable[..., Any]]] = field(default_factory=dict)
    stats: Callable[[], Stats] = lambda: Stats(0, 1)
    minimum: int | None = None  # min_containers of the deployment

    def __post_init__(self) -> None:
        self.exception = exception
        self.Function = self.Cls = self.Queue = self
        self.spawned: list[Spawning] = []
        self.generations: list[asyncio.Task[Any]] = []
        self.queues: dict[str, Queue] = {}
        self.asked: list[dict[str, Any]] = []  # what handles were made with
        self.updates: list[int | None] = []  # of min_containers, since the deployment
        self.updating = asyncio.Event()  # one has come
        self.settled = asyncio.Event()  # while it is set, they are confirmed
        self.settled.set()
        self.moved = asyncio.Event()  # a call was spawned
        self.taking = asyncio.Event()  # while it is set, handles are given out
        self.taking.set()
        self.broken: BaseException | None = None  # what every use of a function raises
        self._tasks: set[asyncio.Task[Any]] = set()

    def from_name(self, name: str, tag: str | None = None, **where: Any) -> Any:
        """Of all three: a queue has one name, the others an app's and their own."""
        self.asked.append({"name": name, "tag": tag, **where})
        if tag is None:
            return self.queues.setdefault(name, Queue())
        if tag in self.classes:
            return Cls(self, self.classes[tag])
        return Function(self, self.functions.get(tag))

    def run(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Run it as a container would: nobody's leaving ends it."""
        task = asyncio.get_running_loop().create_task(_awaited(work))
        self._tasks.add(task)
        return task

    @property
    def left(self) -> list[Spawning]:
        """Calls that run though nobody waits for them."""
        return [spawning for spawning in self.spawned if spawning.runs and not spawning.cancelled]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
