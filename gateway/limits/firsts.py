"""The first requests to a model, one after the other, where a budget has to know what they cost.

Rule: while nobody has seen a request to the model end well, nothing can be reserved for the next, so only one
of those that a budget in dollars or GPU seconds bounds may run. Others wait, within ``PATIENCE``. Knows
nothing of what they take, nor of other processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.core.errors import RateLimited

PATIENCE = 30.0  # seconds for which a request waits for the one before it


class _First(NamedTuple):
    who: object
    over: asyncio.Event


class Firsts:
    """``known``: whether it is known what requests to a model of this name take."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self._running: dict[str, _First] = {}  # by model

    async def turn(self, model: str, who: object) -> None:
        """Wait until this request may run. Raises ``RateLimited``."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._takes(model, who):
                    await self._running[model].over.wait()
        except TimeoutError:
            raise _refused(model) from None

    def take(self, model: str, who: object) -> None:
        """As ``turn`` for one that runs already: others may wait for it, so it waits for none."""
        if not self._takes(model, who):
            raise _refused(model)

    def leave(self, who: object, but: str | None = None) -> None:
        """This request runs on no model any more but this one."""
        for model in [name for name, first in self._running.items() if first.who is who and name != but]:
            self._running.pop(model).over.set()

    def _takes(self, model: str, who: object) -> bool:
        if self._known(model):
            return True
        return self._running.setdefault(model, _First(who, asyncio.Event())).who is who


def _refused(model: str) -> RateLimited:
    message = (
        f"What a request to model {model} costs is not known yet, so those under a budget run one at a time, "
        "and another one still runs. Please try again in 1s."
    )
    return RateLimited(message, headers={"retry-after": "1", "retry-after-ms": "1000"})
