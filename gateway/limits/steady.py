"""What is done again and again beside the requests.

Rule: nothing ends it but being cancelled. What fails is said once, until it has gone well again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("gateway")


async def steadily(name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    """Await a ``step`` after each pause of so many ``seconds``; ``name`` is what a failure is told of."""
    well = True
    while True:
        await asyncio.sleep(seconds)
        try:
            await step()
            well = True
        except Exception:
            if well:
                log.exception("%s failed; it goes on", name)
            well = False
