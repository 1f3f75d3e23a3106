"""Work of one request that goes on side by side: all of it, or the first error.

Rule: whoever was cancelled stays cancelled. A group raises the errors of its children in place of a
cancellation that comes with them, and before Python 3.13 leaves no trace of it; but who tries again after
an error must not go on for a client that left. So no child of the group ever fails. Knows nothing about the
work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def together(works: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """What each of them gives, in their order; the first error of any, once the others were ended."""
    tasks: list[asyncio.Task[T | None]] = []
    failed: list[Exception] = []

    async def one(work: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)
            for task in tasks:
                task.cancel()
            return None

    async with asyncio.TaskGroup() as group:
        tasks += [group.create_task(one(work)) for work in works]
    if failed:
        raise failed[0]
    return [task.result() for task in tasks]  # type: ignore[misc]
