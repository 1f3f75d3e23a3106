"""Redis is not blamed for a machine that is busy: then this process is late as well."""

import asyncio
import time

import pytest

from gateway.limits.redis_link import LATE, PATIENCE, _fair

ROUND = 0.02  # seconds


def hold_up(seconds: float) -> None:
    """The event loop."""
    time.sleep(seconds)


async def round_trip(held_up: float, times: int) -> None:
    """An answer that comes after this process was so long without a turn, so many times; seconds."""
    async with asyncio.timeout(None) as limit, _fair(limit, ROUND):
        for _ in range(times):
            hold_up(held_up)
            await asyncio.sleep(0)


async def test_an_answer_is_awaited_while_this_process_is_late_itself() -> None:
    await round_trip(ROUND + 2 * LATE, 5)


async def test_it_is_awaited_no_longer_than_that() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await round_trip(ROUND + 2 * LATE, round(2 * PATIENCE / ROUND))
    assert time.monotonic() - began >= PATIENCE


async def test_silence_is_ended_at_once_where_nobody_is_late() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, _fair(limit, ROUND):
            await asyncio.Event().wait()
