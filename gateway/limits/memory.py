"""Limits counted in this process.

Rule: plain arithmetic between two awaits of others, so that no two requests race. Of several processes that
do not know of each other each gives its ``share``: a limit divided by their number, at least 1. What nobody
used for a while is forgotten, sooner where there is much of it, but never so that anybody gets it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from gateway.limits.limiter import Answer, Claim, Grant, Level, Refusal, Row, Standing, Unseeded
from gateway.limits.rules import Amount, Kind, Quota, Scope
from gateway.limits.tally import Tally

SWEEP = 60.0  # seconds between two looks for what can be forgotten
IDLE = 3600.0  # seconds after which budgets are forgotten too, where they are seeded again
RECENT = 10.0  # seconds in which nothing is forgotten: whoever came may be waiting for the ledger
MOST = 10_000  # keys, teams and models: from there on budgets that were not used lately are forgotten sooner
LOOKS = 2  # at those that were not met for longest, before one more is counted


class Memory:
    """``monotonic`` and ``time``: clocks in seconds; ``share``: the number of processes like this one.

    ``seeded``: a ledger knows what budgets have spent. Without one they are kept until their periods end.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        time: Callable[[], float],
        *,
        share: int = 1,
        seeded: bool = True,
    ) -> None:
        self.share = share
        self.lost = 0  # nobody else is told anything
        self._seeded = seeded
        self._monotonic = monotonic
        self._time = time
        self._tallies: OrderedDict[tuple[Kind, str], Tally] = OrderedDict()  # met last at the end
        self._sweep_at = monotonic() + SWEEP

    async def take(self, claim: Claim) -> Answer:
        return self.consider(claim)

    def consider(self, claim: Claim) -> Answer:
        """Reserve in all scopes, or say what speaks against it."""
        now = self._monotonic()
        worst: Refusal | None = None
        unseeded: list[tuple[Scope, Quota]] = []
        for scope in claim.scopes:
            tally = self._tallies.get(scope.whose) or self._tally(scope)
            if scope.quotas and not claim.lenient and (unknown := tally.unseeded(scope)):
                unseeded += unknown
                continue
            refusal = tally.objection(scope, claim, now, self.share)
            if refusal is not None and (worst is None or refusal.wait > worst.wait):
                worst = refusal
        if worst is not None:
            return worst
        return Unseeded(tuple(unseeded)) if unseeded else self._grant(claim, now)

    def record(self, claim: Claim) -> Grant:
        """Reserve what somebody else has granted."""
        return self._grant(claim, self._monotonic())

    def _grant(self, claim: Claim, now: float) -> Grant:
        if now >= self._sweep_at:
            self._sweep(now)
        levels: list[Level] = []
        for scope in claim.scopes:
            tally = self._tallies.get(scope.whose) or self._tally(scope)
            levels += tally.reserve(scope, claim, now, self.share)
            self._tallies.move_to_end(scope.whose)
        return Grant(claim, now, levels)

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
        now = self._monotonic()
        for scope in scopes:
            tally = self._tallies.get(scope.whose) or self._tally(scope)
            tally.settle(scope, grant, spent, now)

    def charge(self, id: str, whom: tuple[Kind, str], spent: Amount, time: float) -> None:
        self.charged(whom, spent, time)

    def charged(self, whom: tuple[Kind, str], spent: Amount, time: float) -> Scope | None:
        """Charge; the budgets in which it counts, None if nobody has met them lately."""
        tally = self._tallies.get(whom)
        quotas = tally.charge(spent, time) if tally is not None else ()
        return Scope(*whom, whom[1], (), None, quotas) if quotas else None

    async def seed(self, scope: Scope, quota: Quota, since: float, amount: int) -> None:
        self._tally(scope).seed(quota, since, -(-amount // self.share))

    def learn(self, scope: Scope, quota: Quota, since: float, standing: tuple[int, int]) -> None:
        """What all processes together have spent in the period that began at ``since``, and reserved."""
        self._tally(scope).learn(quota, since, standing, self.share)

    def rows(self) -> list[Row]:
        now, time = self._monotonic(), self._time()
        return [row for tally in self._tallies.values() for row in tally.rows(now, time, self.share)]

    def budgets(self) -> Iterator[Standing]:
        time = self._time()
        return (each for tally in self._tallies.values() for each in tally.budgets(time, self.share))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def _tally(self, scope: Scope) -> Tally:
        tally = self._tallies.get(scope.whose)
        if tally is None:
            now = self._monotonic()
            if len(self._tallies) >= MOST:
                self._make_room(now)
            tally = self._tallies[scope.whose] = Tally(scope, now)
        return tally

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP
        for name in [name for name, tally in self._tallies.items() if self._spare(tally, now, IDLE)]:
            del self._tallies[name]

    def _make_room(self, now: float) -> None:
        """Forget who was not met for longest; who cannot be forgotten is asked about later."""
        for _ in range(LOOKS):
            name = next(iter(self._tallies))
            if self._spare(self._tallies[name], now, RECENT):
                del self._tallies[name]
            else:
                self._tallies.move_to_end(name)

    def _spare(self, tally: Tally, now: float, after: float) -> bool:
        """Whether it can be forgotten, if nobody met it for so many seconds."""
        return tally.idle(now, after) and (self._seeded or tally.over(self._time()))
