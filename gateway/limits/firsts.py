"""The first requests to a model, one after the other, where a budget has to know what they cost.

Rule: while nobody has seen a request to the model end well, nothing can be reserved for the next, so only one
of those that a budget in dollars or GPU seconds bounds may run. Others wait, within ``PATIENCE``; while the
one that runs waits itself, for its container, that does not count. Knows nothing of what they take, nor of
other processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.core.errors import RateLimited

PATIENCE = 30.0  # seconds for which a request waits while the one before it is being answered
LONGEST = 600.0  # seconds for which it waits at all
LOOK = 0.5  # seconds between two looks whether that one is being answered


class _First(NamedTuple):
    who: Any
    over: asyncio.Event


class Firsts:
    """``known``: whether it is known what requests to a model of this name take.

    ``answered``: whether a request that may run is being answered, and no longer waits for its container.
    """

    def __init__(self, known: Callable[[str], bool], answered: Callable[[Any], bool]) -> None:
        self._known = known
        self._answered = answered
        self._running: dict[str, _First] = {}  # by model

    async def turn(self, model: str, who: object) -> None:
        """Wait until this request may run. Raises ``RateLimited``."""
        left = PATIENCE
        try:
            async with asyncio.timeout(LONGEST):
                while left > 0 and not self._takes(model, who):
                    first = self._running[model]
                    if not await _within(LOOK, first.over) and self._answered(first.who):
                        left -= LOOK
        except TimeoutError:
            raise _refused(model) from None
        if left <= 0:
            raise _refused(model)

    def take(self, model: str, who: object) -> None:
        """As ``turn`` for one that runs already: others may wait for it, so it waits for none."""
        if not self._takes(model, who):
            raise _refused(model)

    def leave(self, who: object, but: str | None = None) -> None:
        """This request runs on no model any more but this one."""
        for model in [name for name, first in self._running.items() if first.who is who and name != but]:
            self._running.pop(model).over.set()

    def learn(self, model: str) -> None:
        """It is known now what requests to this model take: nobody has to wait any more."""
        if (first := self._running.pop(model, None)) is not None:
            first.over.set()

    def _takes(self, model: str, who: object) -> bool:
        if self._known(model):
            return True
        return self._running.setdefault(model, _First(who, asyncio.Event())).who is who


async def _within(seconds: float, over: asyncio.Event) -> bool:
    """Wait for this; false if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    return True


def _refused(model: str) -> RateLimited:
    message = (
        f"What a request to model {model} costs is not known yet, so those under a budget run one at a time, "
        "and another one still runs. Please try again in 1s."
    )
    return RateLimited(message, headers={"retry-after": "1", "retry-after-ms": "1000"})
