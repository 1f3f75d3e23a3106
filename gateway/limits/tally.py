"""What one key, team or model has used: sliding windows, places, and what budgets have spent and reserved.

Rule: arithmetic over times that are passed in; whole numbers. A window forgets a step only when no second of
it can lie in the span any more. Knows nothing of other scopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from gateway.limits.limiter import Claim, Grant, Level, Refusal, Row, Standing, row
from gateway.limits.rules import Amount, Quota, Rate, Scope, bounds

PLACE = 1.0  # seconds after which to ask again for what others hold: nobody knows when it comes free


class Window:
    """Sums by step, of the steps that may still lie in the span."""

    __slots__ = ("_oldest", "_step", "_steps", "_sums", "_until", "total")

    def __init__(self, rate: Rate) -> None:
        self.total = 0
        self._step = rate.step
        self._steps = rate.steps
        self._sums: dict[int, int] = {}  # by number of the step, ascending
        self._oldest = -rate.steps  # the first step that counts; the newest is ``steps`` later
        self._until = rate.step  # when the newest ends: most questions come before, and are no arithmetic

    def used(self, now: float) -> int:
        if now >= self._until:
            self._forget(now)
        return self.total

    def _forget(self, now: float) -> None:
        newest = int(now // self._step)
        self._oldest, self._until = newest - self._steps, (newest + 1) * self._step
        for number in [number for number in self._sums if number < self._oldest]:
            self.total -= self._sums.pop(number)

    def add(self, now: float, amount: int) -> int:
        """Count this now; what is used then."""
        if now >= self._until:
            self._forget(now)
        newest = self._oldest + self._steps  # not before what was counted already
        self._sums[newest] = self._sums.get(newest, 0) + amount
        self.total += amount
        return self.total

    def correct(self, now: float, at: float, excess: int) -> None:
        """Less than was counted at that time, or more: more counts now."""
        if excess > 0:
            self.add(now, excess)
        elif (number := int(at // self._step)) in self._sums:
            less = max(excess, -self._sums[number])
            self._sums[number] += less
            self.total += less

    def wait(self, now: float, amount: int) -> float:
        """Seconds until this much was forgotten."""
        for number, sum_ in self._sums.items():
            amount -= sum_
            if amount <= 0:
                return (number + self._steps + 1) * self._step - now
        return (self._oldest + 2 * self._steps + 1) * self._step - now


class Spending:
    """Of one budget in the period that began at ``since``."""

    __slots__ = ("amount", "quota", "since", "until")

    def __init__(self, quota: Quota, since: float, amount: int) -> None:
        self.quota = quota
        self.since, self.until = bounds(quota.period, since)
        self.amount = amount


class Tally:
    """Counters of one scope; ``scope`` as it was met last, ``now`` in seconds of the monotonic clock."""

    __slots__ = ("_held", "_leases", "_spent", "_windows", "running", "scope", "seen")

    def __init__(self, scope: Scope, now: float) -> None:
        self.scope = scope
        self.running = 0  # requests that have a place
        self._leases = 0
        self.seen = now
        self._windows: dict[str, Window] = {}
        self._spent: dict[str, Spending] = {}
        self._held = [0, 0, 0]

    def unseeded(self, scope: Scope) -> list[tuple[Scope, Quota]]:
        unknown = []
        for quota in scope.quotas:  # no comprehension: nearly always there is nothing to collect
            if quota.name not in self._spent:
                unknown.append((scope, quota))
        return unknown

    def seed(self, quota: Quota, since: float, amount: int) -> None:
        """At least this was spent; of a period that is over nobody asks any more."""
        known = self._spent.get(quota.name)
        if known is None or known.since < since:
            self._spent[quota.name] = Spending(quota, since, amount)
        elif known.since == since:
            known.amount = max(known.amount, amount)

    def learn(self, quota: Quota, since: float, standing: tuple[int, int], share: int) -> None:
        """What is spent and reserved, says who knows better; others' reserves are as good as spent."""
        spent, held = standing
        amount = -(-(spent + max(0, held - self._held[quota.index])) // share)
        known = self._spent.get(quota.name)
        if known is not None and known.since == since:
            known.amount = amount
        else:
            self._spent[quota.name] = Spending(quota, since, amount)

    def objection(self, scope: Scope, claim: Claim, now: float, share: int) -> Refusal | None:
        """What speaks against this claim: the rule that takes longest to change its mind."""
        worst: Refusal | None = None
        for rate in scope.rates:
            limit = rate.limit if share == 1 else max(1, rate.limit // share)
            wanted = 1 if rate.measure == "requests" else claim.amount.tokens
            window = self._windows.get(rate.name) or self._open(rate)
            used = window.used(now)
            if used + wanted > limit:
                wait = inf if wanted > limit else window.wait(now, used + wanted - limit)
                if worst is None or wait > worst.wait:
                    worst = Refusal(scope, rate, limit, used, 0, wanted, wait)
        if scope.places is not None:
            limit = max(1, scope.places.limit // share)
            if self.running >= limit and (worst is None or worst.wait < PLACE):
                worst = Refusal(scope, scope.places, limit, self.running, 0, 1, PLACE)
        for quota in scope.quotas:
            refusal = self._overspent(scope, quota, claim, share)
            if refusal is not None and (worst is None or refusal.wait > worst.wait):
                worst = refusal
        return worst

    def _overspent(self, scope: Scope, quota: Quota, claim: Claim, share: int) -> Refusal | None:
        spending = self._spent.get(quota.name)
        if spending is None or claim.time >= spending.until:
            # a new period begins with nothing, and what nobody knows is nothing
            spending = self._spent[quota.name] = Spending(quota, claim.time, 0)
        limit = max(1, quota.limit // share)
        held, wanted = self._held[quota.index], claim.amount[quota.index]
        if spending.amount + held + max(1, wanted) <= limit:
            return None
        fits = spending.amount + max(1, wanted) <= limit  # once what is reserved comes free
        wait = PLACE if fits else spending.until - claim.time
        return Refusal(scope, quota, limit, spending.amount, held, wanted, wait)

    def _open(self, rate: Rate) -> Window:
        window = self._windows[rate.name] = Window(rate)
        return window

    def reserve(self, scope: Scope, claim: Claim, now: float, share: int) -> list[Level]:
        """Count the claim, whatever speaks against it."""
        self.seen = now
        self._leases += 1
        if not scope.further:
            self.scope = scope
            self.running += 1
        levels = []
        for rate in scope.rates:
            window = self._windows.get(rate.name) or self._open(rate)
            used = window.add(now, 1 if rate.measure == "requests" else claim.amount.tokens)
            limit = rate.limit if share == 1 else max(1, rate.limit // share)
            levels.append(Level(scope.kind, rate, limit, used))
        for index in scope.measures:
            self._held[index] += claim.amount[index]
        return levels

    def settle(self, scope: Scope, grant: Grant, spent: Amount, now: float) -> None:
        reserved = grant.claim.amount
        self._leases -= 1
        self.running -= not scope.further
        self.seen = now
        for rate in scope.rates:
            if rate.measure == "tokens" and (window := self._windows.get(rate.name)) is not None:
                window.correct(now, grant.at, spent.tokens - reserved.tokens)
        for index in scope.measures:
            self._held[index] -= reserved[index]
        for quota in scope.quotas:
            spending = self._spent.get(quota.name)
            # what came in the period before belongs there, as in the ledger
            if spending is not None and spending.since <= grant.claim.time:
                spending.amount += spent[quota.index]

    def charge(self, spent: Amount, time: float) -> tuple[Quota, ...]:
        """Count what was spent without a lease; the budgets in which it counts."""
        for spending in self._spent.values():
            if spending.since <= time < spending.until:
                spending.amount += spent[spending.quota.index]
        return tuple(spending.quota for spending in self._spent.values())

    def idle(self, now: float, after: float) -> bool:
        """Whether only budgets would be lost by forgetting it, and nobody met them for ``after`` seconds."""
        if self._leases or (self._spent and now - self.seen < after):
            return False
        return not any(window.used(now) for window in self._windows.values())

    def over(self, time: float) -> bool:
        """Whether no budget goes on at ``time``, seconds since 1970."""
        return all(time >= spending.until for spending in self._spent.values())

    def rows(self, now: float, time: float, share: int) -> list[Row]:
        """Every rule of the scope as it stands."""
        scope, rows = self.scope, []
        whose = (scope.kind, scope.id, scope.name)
        for rate in scope.rates:
            window = self._windows.get(rate.name)
            used = window.used(now) if window else 0
            limit = max(1, rate.limit // share)
            rows.append(Row(*whose, rate.measure, rate.period, used, 0, limit))
        if scope.places is not None:
            limit = max(1, scope.places.limit // share)
            rows.append(Row(*whose, "concurrent", "now", self.running, 0, limit))
        return rows + [row(budget) for budget in self.budgets(time, share)]

    def budgets(self, time: float, share: int) -> Iterator[Standing]:
        """Its budgets as they stand."""
        for quota in self.scope.quotas:
            spending = self._spent.get(quota.name)
            spent = spending.amount if spending and time < spending.until else 0
            yield self.scope, quota, spent, self._held[quota.index], max(1, quota.limit // share)
