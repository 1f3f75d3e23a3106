"""How late the event loop is: what every request on it waits for, whatever else it waits for.

Rule: one timer; whoever is told counts. Times are in seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK = 0.5  # seconds between two looks


async def lag(told: Callable[[float], object]) -> None:
    """Tell how much later than it should a timer went off, again and again."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK
        await asyncio.sleep(LOOK)
        told(max(loop.time() - due, 0.0))
