"""Containers and the queue before them.

Rule: no sockets and no clock. Every step is told what time it is and returns what happened, in order; who
asks steps again no later than ``due`` says. Requests of a Web Function wait for a container; a Server's are
refused, and the first of them starts one. Another container boots only when those that boot or run cannot
take what waits. Knows nothing about HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.core import modal
from gateway.simulate.faults import Wish
from gateway.simulate.options import Options

MAX_BOOT_FAILURES = 3  # in a row, until the requests that wait are told


class What(StrEnum):
    """What can happen to a container, or to an input."""

    booting = "container booting"
    ready = "container ready"
    boot_failed = "container failed to boot"
    idle = "container idle, so it goes"
    zero = "scaled to zero"
    crashed = "container crashed"
    queued = "request queued"
    started = "request started"
    requeued = "request queued again"
    cut = "request cut"
    timed_out = "function timed out"
    given_up = "request given up"
    not_ready = "no container ready"
    busy = "all containers busy"
    full = "queue full"


REFUSALS = frozenset({What.not_ready, What.busy, What.full})
"""What makes an input none: it was not taken."""


@dataclass(slots=True, frozen=True)
class Event:
    """Something that happened. ``seconds`` are those that a boot will take."""

    what: What
    container: int = 0
    input: str = ""
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Input:
    id: str
    wish: Wish
    boot_failures: int
    begun: bool = False  # its answer has
    container: _Container | None = None
    deadline: float | None = None


@dataclass(slots=True, eq=False)
class _Container:
    number: int
    ready_at: float
    fails: bool
    ready: bool = False
    idle_since: float = 0.0
    inputs: dict[str, _Input] = field(default_factory=dict)


class Pool:
    """``draw(a, b)`` gives a number from a to b; it is asked once a boot."""

    def __init__(self, options: Options, draw: Callable[[float, float], float]) -> None:
        self._options = options
        self._draw = draw
        self._containers: list[_Container] = []
        self._queue: deque[_Input] = deque()
        self._inputs: dict[str, _Input] = {}
        self._failures = 0  # boots that failed in a row
        self._events: list[Event] = []
        self.boots = 0

    @property
    def booting(self) -> int:
        return sum(not each.ready for each in self._containers)

    @property
    def ready(self) -> int:
        return sum(each.ready for each in self._containers)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._inputs) - len(self._queue)

    @property
    def loads(self) -> list[int]:
        """The inputs of each container that is ready."""
        return [len(each.inputs) for each in self._containers if each.ready]

    def due(self) -> float | None:
        """When something will happen by itself; None: nothing will."""
        return min(self._times(), default=None)

    def advance(self, now: float) -> list[Event]:
        """Let happen what is due, each thing at its own time."""
        self._advance(now)
        return self._said()

    def submit(self, now: float, id: str, wish: Wish) -> list[Event]:
        """A request comes: it starts, waits, or is refused (``REFUSALS``)."""
        self._advance(now)
        made = _Input(id, wish, wish.boot_failures)
        if self._options.queues:
            self._enqueue(now, made)
        else:
            self._take(now, made)
        return self._settled(now)

    def began(self, id: str) -> None:
        """Its answer has begun: from now on it is never started again."""
        if (known := self._inputs.get(id)) is not None:
            known.begun = True

    def end(self, now: float, id: str) -> list[Event]:
        """It was answered, or nobody wants it any more. An unknown one is none, and nothing happens."""
        self._advance(now)
        if id in self._inputs:
            self._remove(now, self._inputs[id])
        return self._settled(now)

    def crash(self, now: float, id: str) -> list[Event]:
        """The container that this input runs in dies."""
        self._advance(now)
        known = self._inputs.get(id)
        if known is not None and known.container is not None:
            self._crash(known.container)
        return self._settled(now)

    def _settled(self, now: float) -> list[Event]:
        self._fill(now)
        self._advance(now)
        return self._said()

    # --- requests ---

    def _enqueue(self, now: float, made: _Input) -> None:
        if len(self._queue) >= modal.MAX_PENDING:
            self._say(What.full, input=made.id)
            return
        self._inputs[made.id] = made
        self._queue.append(made)
        self._say(What.queued, input=made.id)
        self._fill(now, made)  # what boots now boots because of this one

    def _take(self, now: float, made: _Input) -> None:
        free = self._free()
        if free is not None:
            self._inputs[made.id] = made
            self._start(now, made, free)
        else:
            self._say(What.busy if self.ready else What.not_ready, input=made.id)
            if not self.booting and len(self._containers) < self._options.max_containers:
                self._boot(now, made)

    def _start(self, now: float, known: _Input, container: _Container) -> None:
        container.inputs[known.id] = known
        known.container = container
        if self._options.queues:  # a Server sets no limit
            known.deadline = now + self._options.function_timeout
        self._say(What.started, container, known.id)

    def _remove(self, now: float, known: _Input) -> None:
        del self._inputs[known.id]
        if known.container is None:
            self._queue.remove(known)
            return
        del known.container.inputs[known.id]
        if not known.container.inputs:
            known.container.idle_since = now

    # --- containers ---

    def _fill(self, now: float, cause: _Input | None = None) -> None:
        """Start what can start, and boot what is needed for the rest, because of ``cause`` or the first."""
        while self._queue and (free := self._free()) is not None:
            self._start(now, self._queue.popleft(), free)
        wanting = len(self._queue) - self.booting * self._options.max_inputs
        while wanting > 0 and len(self._containers) < self._options.max_containers:
            self._boot(now, cause if cause is not None and cause.container is None else self._queue[0])
            wanting -= self._options.max_inputs

    def _free(self) -> _Container | None:
        most = self._options.max_inputs
        return next((each for each in self._containers if each.ready and len(each.inputs) < most), None)

    def _boot(self, now: float, cause: _Input) -> None:
        took = cause.wish.boot
        if took is None:
            took = self._draw(self._options.boot.shortest, self._options.boot.longest)
        fails = cause.boot_failures > 0
        cause.boot_failures -= fails
        self.boots += 1
        container = _Container(self.boots, now + took, fails)
        self._containers.append(container)
        self._say(What.booting, container, seconds=took)

    def _crash(self, container: _Container) -> None:
        self._containers.remove(container)
        self._say(What.crashed, container)
        for known in reversed(container.inputs.values()):  # each to the front, so the first comes first again
            known.container = known.deadline = None
            if known.begun or not self._options.queues:
                del self._inputs[known.id]
                self._say(What.cut, container, known.id)
            else:
                self._queue.appendleft(known)
                self._say(What.requeued, container, known.id)

    # --- time ---

    def _times(self) -> Iterator[float]:
        for container in self._containers:
            if not container.ready:
                yield container.ready_at
            elif not container.inputs:
                yield container.idle_since + self._options.idle
            elif (deadline := next(iter(container.inputs.values())).deadline) is not None:
                yield deadline  # of the first that started: all have the same time

    def _advance(self, now: float) -> None:
        while (due := self.due()) is not None and due <= now:
            self._step(due)

    def _step(self, now: float) -> None:
        running = [each for container in self._containers for each in container.inputs.values()]
        for known in [each for each in running if each.deadline is not None and each.deadline <= now]:
            self._remove(now, known)
            self._say(What.timed_out, known.container, known.id)
        for container in [each for each in self._containers if not each.ready and each.ready_at <= now]:
            self._booted(now, container)
        self._fill(now)
        for container in [each for each in self._containers if self._is_over(each, now)]:
            self._containers.remove(container)
            self._say(What.idle if self._containers else What.zero, container)

    def _booted(self, now: float, container: _Container) -> None:
        if not container.fails:
            self._failures = 0
            container.ready, container.idle_since = True, now
            self._say(What.ready, container)
            return
        self._containers.remove(container)
        self._say(What.boot_failed, container)
        self._failures += 1
        if self._failures >= MAX_BOOT_FAILURES:
            self._failures = 0
            for known in list(self._queue):
                self._remove(now, known)
                self._say(What.given_up, container, known.id)

    def _is_over(self, container: _Container, now: float) -> bool:
        return container.ready and not container.inputs and container.idle_since + self._options.idle <= now

    # --- what is said ---

    def _say(
        self, what: What, container: _Container | None = None, input: str = "", seconds: float = 0.0
    ) -> None:
        self._events.append(Event(what, container.number if container else 0, input, seconds))

    def _said(self) -> list[Event]:
        said, self._events = self._events, []
        return said
