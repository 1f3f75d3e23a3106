"""How long an upstream may stay silent: one lazy timer for a whole call.

Rule: before the response the clock runs; from then on only the time that a read waits counts, so a consumer
that is slow to ask never trips a limit. Events are many and silences few: an event moves the deadline, and
the timer, which always fires at or before it, looks where it went. Knows nothing about what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GRACE = 0.05  # seconds: a loop that was held up reads what has arrived before the limit counts


class Patience:
    """Cancels the task that makes it, or closes the response, once its deadline has passed."""

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.expired = False
        self._task = task
        self._cancelling = task.cancelling()
        self._give_up: Callable[[], object] = task.cancel
        self._loop = task.get_loop()
        self._deadline = self._loop.time() + seconds
        self._limit = 0.0  # seconds between events; 0: the deadline stays where it is
        self._moved = False  # an event came since the last read began
        self._waiting = True
        self._late = False
        self._timer = self._loop.call_at(self._deadline, self._fire)

    def took(self) -> bool:
        """Whether the ``CancelledError`` just caught is only ours; the task goes on then."""
        return self.expired and self._task.uncancel() <= self._cancelling

    def watch(self, close: Callable[[], object]) -> None:
        """There is a response: from now on only reads wait, and ``close`` ends them."""
        self._give_up = close
        self._waiting = False

    def begin(self) -> None:
        """A read begins."""
        if self._moved:
            self._moved = self._late = False
            self._deadline = self._loop.time() + self._limit
        self._waiting = True

    def rest(self) -> None:
        """The read ended; until the next begins, time does not count."""
        self._waiting = False

    def heard(self, limit: float) -> None:
        """An event came: the next one may take ``limit`` seconds from the next read on."""
        self._moved = True
        if limit != self._limit:
            self._limit = limit
            self._timer.cancel()
            self._timer = self._loop.call_later(limit, self._fire)

    def stop(self) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        now = self._loop.time()
        if not self._waiting:
            when = now + self._limit if self._limit else max(self._deadline, now + GRACE)
        elif now < self._deadline:
            when = self._deadline
        elif not self._late:
            self._late = True
            when = now + GRACE
        else:
            self.expired = True
            self._give_up()
            return
        self._timer = self._loop.call_at(when, self._fire)
