"""Leaving before the end: for a while after SIGTERM requests are still taken, and /health/ready says 503.

Rule: whoever balances between gateways finds out before the door is closed, so that nobody knocks at a closed
one. A second signal ends it at once, and so does SIGINT. Knows nothing about how the server ends.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from types import FrameType
from typing import TypeAlias

from gateway.core.errors import ShuttingDown
from gateway.http.exchange import Exchange, Receive, Scope, Send

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

READY = "/health/ready"


def leaving(app: App, delay: float) -> App:
    """``app``, which goes on for ``delay`` seconds after SIGTERM; for a process's main thread."""
    if not delay:
        return app
    door = _Door(delay)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            with door.watched():
                await app(scope, receive, send)
        elif door.closing and scope["path"] == READY:
            exchange = Exchange(send, "req_" + token_hex(12))
            await exchange.fail(ShuttingDown("The gateway is about to shut down."))
        else:
            await app(scope, receive, send)

    return serve


class _Door:
    """Stands before the handler of SIGTERM that is there once the server runs."""

    def __init__(self, delay: float) -> None:
        self.closing = False
        self._delay = delay

    @contextmanager
    def watched(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        end = signal.getsignal(signal.SIGTERM)
        if not callable(end):  # nobody listens: the process ends by itself
            yield
            return

        def told(number: int, frame: FrameType | None) -> None:
            if self.closing:
                end(number, frame)
                return
            self.closing = True
            loop.call_soon_threadsafe(loop.call_later, self._delay, end, number, None)

        signal.signal(signal.SIGTERM, told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, end)
