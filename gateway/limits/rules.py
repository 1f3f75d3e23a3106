"""What is counted of whom, as frozen values: rates, budgets, and the calendar they follow.

Rule: pure. A rate holds in any span of its length: time is cut into steps, and the step that is only partly
inside still counts in full. Budgets begin anew at midnight UTC, weeks on Monday. Knows nothing of who counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Literal, NamedTuple, TypeAlias

from gateway.allowances import Budget, Limits, Period

Kind: TypeAlias = Literal["key", "team", "model"]
Spent: TypeAlias = Literal["tokens", "cost", "gpu"]

BILLION = 1_000_000_000


class Amount(NamedTuple):
    """What a request takes beside its place: tokens, billionths of a dollar, nanoseconds of GPU."""

    tokens: int = 0
    cost: int = 0
    gpu: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.cost + other.cost, self.gpu + other.gpu)

    def less(self, other: Amount) -> Amount:
        """What is left without the other; nothing where that is more."""
        tokens, cost, gpu = self.tokens - other.tokens, self.cost - other.cost, self.gpu - other.gpu
        return Amount(max(tokens, 0), max(cost, 0), max(gpu, 0))


NOTHING = Amount()


@dataclass(slots=True, frozen=True)
class Rate:
    """At most ``limit`` in any ``step * steps`` seconds, counted in steps of ``step`` seconds."""

    name: str
    measure: Literal["requests", "tokens"]
    period: Literal["minute", "day"]
    limit: int
    step: int
    steps: int


@dataclass(slots=True, frozen=True)
class Quota:
    """At most ``limit`` in a calendar period, in the unit of `Amount`; ``index`` is its place there."""

    name: str
    measure: Spent
    period: Period
    limit: int
    index: int


@dataclass(slots=True, frozen=True)
class Places:
    """At most ``limit`` requests at the same time."""

    limit: int
    name: str = "concurrent"
    measure: Literal["concurrent"] = "concurrent"


Rule: TypeAlias = Rate | Places | Quota


@dataclass(slots=True, frozen=True, eq=False)
class Scope:
    """All that is counted of one key, team or model; ``name`` is for people.

    ``further``: budgets that a running request meets later than the others; it takes no second place.
    """

    kind: Kind
    id: str
    name: str
    rates: tuple[Rate, ...]
    places: Places | None
    quotas: tuple[Quota, ...]
    further: bool = False
    whose: tuple[Kind, str] = field(init=False)
    measures: tuple[int, ...] = field(init=False)  # places in an ``Amount`` of what its budgets are in

    def __post_init__(self) -> None:
        object.__setattr__(self, "whose", (self.kind, self.id))
        object.__setattr__(self, "measures", tuple({quota.index for quota in self.quotas}))


def scope(of: tuple[Kind, str, str], limits: Limits, quotas: tuple[Quota, ...]) -> Scope | None:
    """Of this kind, id and name; None if nothing of it is bounded."""
    rates = []
    if limits.requests_per_minute is not None:
        rates.append(Rate("requests_per_minute", "requests", "minute", limits.requests_per_minute, 1, 60))
    if limits.tokens_per_minute is not None:
        rates.append(Rate("tokens_per_minute", "tokens", "minute", limits.tokens_per_minute, 1, 60))
    if limits.requests_per_day is not None:
        rates.append(Rate("requests_per_day", "requests", "day", limits.requests_per_day, 300, 288))
    places = Places(limits.concurrent) if limits.concurrent is not None else None
    if not rates and places is None and not quotas:
        return None
    return Scope(*of, tuple(rates), places, quotas)


def quotas(budgets: Iterable[Budget], *, priced: bool, timed: bool) -> tuple[Quota, ...]:
    """Those that can apply; of two with the same measure and period the smaller one.

    A model without a price spends no dollars, one whose GPU time nobody counts no GPU seconds.
    """
    found: dict[str, Quota] = {}
    for budget in budgets:
        quota = _quota(budget)
        if (quota.measure == "cost" and not priced) or (quota.measure == "gpu" and not timed):
            continue
        other = found.get(quota.name)
        if other is None or quota.limit < other.limit:
            found[quota.name] = quota
    return tuple(found.values())


def _quota(budget: Budget) -> Quota:
    if budget.dollars is not None:
        limit = max(1, round(budget.dollars * BILLION))
        return Quota(f"cost/{budget.per}", "cost", budget.per, limit, 1)
    if budget.gpu_seconds is not None:
        limit = max(1, round(budget.gpu_seconds * BILLION))
        return Quota(f"gpu/{budget.per}", "gpu", budget.per, limit, 2)
    return Quota(f"tokens/{budget.per}", "tokens", budget.per, budget.tokens or 1, 0)


def bounds(period: Period, now: float) -> tuple[float, float]:
    """First second of the period that ``now`` is in, and of the one after it; since 1970."""
    if period == "total":
        return 0.0, inf
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday.timestamp(), (monday + timedelta(days=7)).timestamp()
    first = day.replace(day=1)
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()
