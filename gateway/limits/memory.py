"""Limits counted in this process.

Rule: plain arithmetic between two awaits of others, so that no two requests race. Of several processes that
do not know of each other each gives its ``share``: a limit divided by their number, at least 1. What nobody
used for a while is forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.limits.limiter import Answer, Claim, Grant, Level, Refusal, Row, Unseeded
from gateway.limits.rules import Amount, Kind, Quota, Scope
from gateway.limits.tally import Tally

SWEEP = 60.0  # seconds between two looks for what can be forgotten
IDLE = 3600.0  # seconds after which budgets are forgotten too; they are seeded again


class Memory:
    """``monotonic`` and ``time``: clocks in seconds; ``share``: the number of processes like this one."""

    def __init__(self, monotonic: Callable[[], float], time: Callable[[], float], *, share: int = 1) -> None:
        self.share = share
        self._monotonic = monotonic
        self._time = time
        self._tallies: dict[tuple[Kind, str], Tally] = {}
        self._sweep_at = monotonic() + SWEEP

    async def take(self, claim: Claim) -> Answer:
        return self.consider(claim)

    def consider(self, claim: Claim) -> Answer:
        """Reserve in all scopes, or say what speaks against it."""
        now = self._monotonic()
        worst: Refusal | None = None
        unseeded: list[tuple[Scope, Quota]] = []
        for scope in claim.scopes:
            tally = self._tally(scope)
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
            levels += self._tally(scope).reserve(scope, claim, now, self.share)
        return Grant(claim, now, levels)

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
        now = self._monotonic()
        for scope in scopes:
            self._tally(scope).settle(scope, grant, spent, now)

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

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def _tally(self, scope: Scope) -> Tally:
        tally = self._tallies.get((scope.kind, scope.id))
        if tally is None:
            tally = self._tallies[scope.kind, scope.id] = Tally(scope)
        return tally

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP
        for name in [name for name, tally in self._tallies.items() if tally.idle(now, IDLE)]:
            del self._tallies[name]
