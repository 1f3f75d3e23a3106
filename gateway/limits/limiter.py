"""What a limiter is asked and what it answers. Two of them keep this promise; one test suite holds both.

Rule: a claim is granted in all its scopes or in none. What was granted is settled once. Nothing here waits
longer than a bounded moment, and nothing is refused because a limiter is broken.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gateway.allowances import Period
from gateway.core.value import value
from gateway.limits.rules import Amount, Kind, Quota, Rate, Rule, Scope


class Claim(NamedTuple):
    """One request's wish. ``time``: seconds since 1970.

    With ``lenient`` what nobody knows to be spent of a budget counts as nothing.
    """

    id: str
    scopes: tuple[Scope, ...]
    amount: Amount
    time: float
    lenient: bool = False


@value
class Level:
    """A rate after a claim was granted; ``limit`` is the part of it that counts here."""

    kind: Kind
    rate: Rate
    limit: int
    used: int


class Grant(NamedTuple):
    """What was reserved. ``at`` is of the limiter's monotonic clock; ``shared``: the other gateways know."""

    claim: Claim
    at: float
    levels: list[Level]
    shared: bool = False


class Refusal(NamedTuple):
    """The rule that keeps a claim waiting longest.

    ``limit`` is the part of it that counts here; ``used`` without and ``held`` what running requests have
    reserved; ``wait`` in seconds, infinite where waiting will not help.
    """

    scope: Scope
    rule: Rule
    limit: int
    used: int
    held: int
    wanted: int
    wait: float


class Unseeded(NamedTuple):
    """Budgets of which nobody knows what their period has spent so far."""

    quotas: tuple[tuple[Scope, Quota], ...]


Answer: TypeAlias = Grant | Refusal | Unseeded


class Row(NamedTuple):
    """One rule as it stands, in the units of `Amount`."""

    kind: Kind
    id: str
    name: str
    measure: Literal["requests", "tokens", "concurrent", "cost", "gpu"]
    period: Literal["now", "minute"] | Period
    used: int
    reserved: int  # of budgets, by running requests
    limit: int


Standing: TypeAlias = tuple[Scope, Quota, int, int, int]
"""A budget as it stands: what is spent, what running requests have reserved, the limit that counts here."""


def row(of: Standing) -> Row:
    """The same with names."""
    scope, quota, used, reserved, limit = of
    return Row(scope.kind, scope.id, scope.name, quota.measure, quota.period, used, reserved, limit)


class Limiter(Protocol):
    """Counts claims."""

    @property
    def lost(self) -> int:
        """Things that should have been told to others and never will be."""

    async def take(self, claim: Claim) -> Answer:
        """Reserve in all scopes or in none."""

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
        """Free these scopes of a grant, and count what was really spent in place of what was reserved."""

    def charge(self, id: str, whom: tuple[Kind, str], spent: Amount, time: float) -> None:
        """Count what was spent without a lease at ``time``, seconds since 1970; once for each ``id``."""

    async def seed(self, scope: Scope, quota: Quota, since: float, amount: int) -> None:
        """At least this was spent in the period that began at ``since``, seconds since 1970."""

    def rows(self) -> list[Row]:
        """Every rule that was met lately."""

    def budgets(self) -> Iterable[Standing]:
        """Those that are budgets; to be read at once."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """What has to go on beside the requests goes on inside."""
