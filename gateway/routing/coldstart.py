"""Who asks while an edge has no container ready, so that one request polls and the rest wait in the gateway.

Rule: at most one asks at a time; who asks and leaves hands the part to who has waited longest. An answer lets
all go. A question that an edge keeps for longer than it takes to refuse was probably taken by a container:
then one of those who wait may go, later two, four and so on, until an answer or a refusal. Knows nothing
about what is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

SLOWER = 3  # times as long as the last refusal took: a question kept longer was probably taken
MOST = 1 << 20  # that are let go in one step; more never wait


class ColdStart:
    """``poll``: seconds between two questions."""

    def __init__(self, poll: float, *, refuses: bool = False) -> None:
        self.asker: object | None = None  # who asks; while there is one, others wait
        self.refuses = refuses  # the edge is known to refuse while there is no container
        self.certain = False  # it has, since the asking began
        self._poll = poll
        self._asked = 0.0  # when, in the loop's time
        self._latency = 0.0  # seconds until the last refusal
        self._waiting: deque[tuple[asyncio.Future[bool], object]] = deque()
        self._step = 1  # how many may go next
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, who: object) -> bool:
        """Take the part of who asks; false if somebody has it."""
        if self.asker is not None:
            return False
        self.asker = who
        self._asked = asyncio.get_running_loop().time()
        return True

    async def turn(self, who: object) -> None:
        """Wait until ``who`` may go: a container is probably ready, or it is its part to ask, and time to."""
        if self.asker is who or (self.asker is not None and await self.wait(who)):
            await asyncio.sleep(self._asked + self._poll - asyncio.get_running_loop().time())

    async def wait(self, who: object) -> bool:
        """Wait until ``who`` is let go (false), or it is its part to ask (true)."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, who))
        try:
            return await turn
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove((turn, who))
            self.resign(who)  # the part may have come too late
            raise

    def asked(self) -> None:
        """Who asks does so now."""
        self._asked = asyncio.get_running_loop().time()
        self._presume()

    def refused(self, who: object, latency: float) -> None:
        """There is no container; to say so took the edge ``latency`` seconds."""
        self.refuses = self.certain = True
        self._latency = latency
        if who is self.asker:
            self._stop()
        else:
            self.doubt()

    def doubt(self) -> None:
        """One who was let go has failed: if any may go, it is one at a time again."""
        if self._timer is not None:
            self._presume()

    def ready(self) -> None:
        """A container took a call: all who wait may go."""
        self._stop()
        self.asker, self.certain = None, False
        while self._let_go(asks=False):
            pass

    def resign(self, who: object) -> None:
        """``who`` leaves without having found one; it matters if it is the one that asks."""
        if who is self.asker:
            self._stop()
            if not self._let_go(asks=True):
                self.asker, self.certain = None, False

    def _let_go(self, *, asks: bool) -> bool:
        """Who has waited longest may go, or asks from now on; false if nobody waits."""
        while self._waiting:
            turn, who = self._waiting.popleft()
            if not turn.done():
                self.asker = who if asks else self.asker
                turn.set_result(asks)
                return True
        return False

    def _presume(self) -> None:
        self._stop()
        self._step = 1
        after = max(self._poll, SLOWER * self._latency)
        self._timer = asyncio.get_running_loop().call_later(after, self._let_some_go)

    def _let_some_go(self) -> None:
        for _ in range(min(self._step, len(self._waiting))):
            self._let_go(asks=False)
        self._step = min(2 * self._step, MOST)
        self._timer = asyncio.get_running_loop().call_later(self._poll, self._let_some_go)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
