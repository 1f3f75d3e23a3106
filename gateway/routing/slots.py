"""How many calls an upstream gets at once, who waits for that, and whose turn is next.

Rule: a free slot goes to the waiting key of the highest priority; among equals to the one that holds the
fewest, then in turn, so that a key which floods delays only itself. Where the queue is full, a lower priority
gives way, else the key that fills it. A waiter that is cancelled leaves at once. The limit yields when the
upstream says that it is full, and recovers with every call that ends. Knows nothing of what is being asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from gateway.core.errors import Overloaded

RETRY_AFTER = 5  # seconds


@dataclass(slots=True)
class _Queue:
    """Those of one key who wait, the longest first."""

    priority: int = 0  # of the key, as it was last said
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)


class Slots:
    """At most ``limit`` slots taken, and at most ``places`` calls waiting for one."""

    def __init__(self, limit: int, places: int) -> None:
        self.taken = 0
        self.waiting = 0
        self._most = limit
        self._limit = float(limit)
        self._places = places
        self._held: dict[str, int] = {}  # slots by key, without zeros
        self._queues: dict[str, _Queue] = {}  # by key, the longest unserved first; none is empty

    @property
    def limit(self) -> int:
        """Slots that there are just now."""
        return int(self._limit)

    @property
    def full(self) -> bool:
        return self.taken >= int(self._limit)

    def take(self, key: str) -> bool:
        """Take a slot that is free; false if there is none, or somebody waits for it."""
        if self.waiting or self.full:
            return False
        self._hold(key)
        return True

    async def wait(self, key: str, seconds: float, *, first: bool = False, priority: int = 0) -> None:
        """Wait for a slot; ``first``: ahead of the others of this key. Raises ``Overloaded``."""
        if not first and self.waiting >= self._places:
            self._make_room(key, priority)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(key, _Queue())
        queue.priority = priority
        if first:
            queue.turns.appendleft(turn)
        else:
            queue.turns.append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as exc:
            self._leave(key, turn)
            if isinstance(exc, TimeoutError):
                raise overloaded("No slot of this model came free in time.") from None
            raise

    def free(self, key: str) -> None:
        """Give a slot back, and room for a little more to an upstream that had been full."""
        self._limit = min(self._limit + 1 / self._limit, self._most)
        self._release(key)

    def refused(self, key: str) -> None:
        """Give back a slot that the upstream had no room for: it takes one call less than it was given."""
        self._limit = max(1.0, self.taken - 1.0)
        self._release(key)

    def _release(self, key: str) -> None:
        self.taken -= 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._hand_over()

    def _hand_over(self) -> None:
        while self.waiting and not self.full:
            key = min(self._queues, key=lambda one: (-self._queues[one].priority, self._held.get(one, 0)))
            turn = self._next(key, self._queues.pop(key))
            if not turn.done():  # a waiter that was cancelled may not have run since
                self._hold(key)
                turn.set_result(None)

    def _next(self, key: str, queue: _Queue) -> asyncio.Future[None]:
        """The first in this queue, which goes behind those of other keys."""
        turn = queue.turns.popleft()
        self.waiting -= 1
        if queue.turns:
            self._queues[key] = queue
        return turn

    def _hold(self, key: str) -> None:
        self.taken += 1
        self._held[key] = self._held.get(key, 0) + 1

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        """Out of the queue; a slot that came too late is passed on."""
        queue = self._queues.get(key)
        if queue is not None and turn in queue.turns:
            self._drop(key, turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._release(key)

    def _drop(self, key: str, turn: asyncio.Future[None]) -> None:
        turns = self._queues[key].turns
        turns.remove(turn)
        self.waiting -= 1
        if not turns:
            del self._queues[key]

    def _make_room(self, key: str, priority: int) -> None:
        """Turn away the newest of the key that waits most, if that is not the one that asks.

        Those of the lowest priority go first, however many they are, and those above the one that asks never.
        """
        below = [(one, queue) for one, queue in self._queues.items() if queue.priority <= priority]
        if not below:
            raise overloaded("The queue of this model is full.")
        most, queue = min(below, key=lambda one: (one[1].priority, -len(one[1].turns)))
        own = self._queues.get(key)
        lower = queue.priority < priority and most != key
        if not lower and len(queue.turns) <= (len(own.turns) if own else 0) + 1:
            raise overloaded("The queue of this model is full.")
        turn = queue.turns[-1]
        self._drop(most, turn)
        if not turn.done():
            why = "with requests that go first" if lower else "most of it with requests of this key"
            turn.set_exception(overloaded(f"The queue of this model is full, {why}."))


def overloaded(message: str) -> Overloaded:
    return Overloaded(
        f"{message} Try again in a few seconds.", headers={"retry-after": str(RETRY_AFTER)}, retry="elsewhere"
    )
