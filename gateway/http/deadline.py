"""A limit of time for what every request does.

Rule: the same as ``asyncio.timeout``, for a third of what that costs, since this limit can be neither moved
nor asked for. A task that is cancelled from outside stays cancelled.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Raises ``TimeoutError`` where the work inside ``with`` takes longer than ``seconds``."""

    __slots__ = ("_cancelling", "_passed", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._pass)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()
