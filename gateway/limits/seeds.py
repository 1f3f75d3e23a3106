"""What a budget's period has spent before this process counted: asked of the ledger once, again if it fails.

Rule: one question for all budgets that one answer tells of, and all questions side by side, so that nobody
waits longer than ``PATIENCE``. A ledger that does not answer refuses nobody: its figure counts as nothing,
one line says so, and it is asked again beside the requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from gateway.limits.limiter import Limiter, Unseeded
from gateway.limits.rules import Amount, Kind, Quota, Scope, bounds

Seed: TypeAlias = Callable[[Kind, str, float], Awaitable[Amount]]
"""Kind and id of a scope, and a beginning in seconds since 1970, to what it has spent from then on."""

PATIENCE = 2.0  # seconds
FAILED = 1000  # budgets without an answer that are remembered

About: TypeAlias = tuple[Kind, str, float]
"""What ``Seed`` is asked."""

Wanted: TypeAlias = tuple[Scope, Quota]

log = logging.getLogger("gateway")


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Question:
    """Lives while somebody waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: bool = False
    amount: Amount | None = None  # None if there was no answer


class Seeds:
    """Sows what the ledger says into a limiter."""

    def __init__(self, limiter: Limiter, seed: Seed) -> None:
        self._limiter = limiter
        self._seed = seed
        self._open: WeakValueDictionary[About, _Question] = WeakValueDictionary()
        self._failed: dict[tuple[Kind, str, str], Wanted] = {}

    async def sow(self, unseeded: Unseeded, time: float) -> None:
        """Ask for these and pass on the answers; ``time`` in seconds since 1970."""
        abouts = _abouts(unseeded.quotas, time)
        questions = [self._question(about) for about, _ in abouts]  # before anybody can have an answer
        await asyncio.gather(*map(self._sow, questions, abouts))
        for question, (_, wanted) in zip(questions, abouts, strict=True):
            if question.amount is None and len(self._failed) < FAILED:
                self._failed.update(_named(wanted))

    async def again(self, time: float) -> None:
        """Ask once more for what failed, until one fails again."""
        for about, wanted in _abouts(self._failed.values(), time):
            question = self._question(about)
            await self._sow(question, (about, wanted))
            if question.amount is None:
                return
            for name in _named(wanted):
                self._failed.pop(name, None)

    def _question(self, about: About) -> _Question:
        question = self._open.get(about)
        if question is None:
            question = self._open[about] = _Question()
        return question

    async def _sow(self, question: _Question, of: tuple[About, list[Wanted]]) -> None:
        """Whoever comes first asks for all that wait."""
        about, wanted = of
        async with question.lock:
            if not question.asked:
                question.amount = await self._answer(about)
                question.asked = True
        for scope, quota in wanted:
            spent = question.amount[quota.index] if question.amount is not None else 0
            await self._limiter.seed(scope, quota, about[2], spent)

    async def _answer(self, about: About) -> Amount | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._seed(*about)
        except Exception:
            message = "The ledger does not say what %s %s has spent; its budget begins at nothing for now."
            log.warning(message, *about[:2], exc_info=True)
            return None


def _abouts(quotas: Iterable[Wanted], time: float) -> list[tuple[About, list[Wanted]]]:
    """What to ask about, and for which budgets each answer is."""
    found: dict[About, list[Wanted]] = defaultdict(list)
    for scope, quota in quotas:
        found[scope.kind, scope.id, bounds(quota.period, time)[0]].append((scope, quota))
    return list(found.items())


def _named(wanted: Iterable[Wanted]) -> dict[tuple[Kind, str, str], Wanted]:
    return {(scope.kind, scope.id, quota.name): (scope, quota) for scope, quota in wanted}
