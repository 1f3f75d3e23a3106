"""Who asks while an edge has no container ready, so that one request polls and the rest wait in the gateway.

Rule: at most one asks at a time; who asks and leaves hands the part to who has waited longest. Knows nothing
about what is asked, nor how often.
"""

from __future__ import annotations

import asyncio
from collections import deque


class ColdStart:
    """``under_way`` from the first refusal until a container answers or nobody asks any more."""

    def __init__(self) -> None:
        self.under_way = False
        self.asked = 0.0  # when the edge was asked last, in the loop's time
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def begin(self) -> bool:
        """Take the part of who asks; false if somebody has it."""
        if self.under_way:
            return False
        self.under_way = True
        return True

    async def wait(self) -> bool:
        """Wait until a container is ready (false), or until it is the waiter's part to ask (true)."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.result():
                self.resign()  # the part came too late
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def ready(self) -> None:
        """A container took the call: all who wait may go."""
        self.under_way = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    def resign(self) -> None:
        """Who asks leaves without having found one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.under_way = False
