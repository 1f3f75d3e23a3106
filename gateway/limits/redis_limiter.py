"""Limits counted in Redis, for several workers and gateways together.

Rule: one round trip decides. Everything is recorded in this process too, so that it can go on alone: while
Redis fails, each gateway gives its share, a limit divided by the gateways that were last known to live. When
Redis is back it learns what was granted meanwhile, and until all gateways will have told, both count. A
gateway that dies loses its leases when they end; one that lives renews them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import NamedTuple

from gateway.limits.limiter import Answer, Claim, Grant, Level, Row, Standing, Unseeded
from gateway.limits.memory import Memory
from gateway.limits.redis_calls import SCRIPT, Calls, Reply, budgets, refusal, rows, standing, standings
from gateway.limits.redis_link import BATCH, TIMEOUT, Exchange, Link, Unreachable
from gateway.limits.rules import NOTHING, Amount, Kind, Quota, Scope
from gateway.limits.steady import steadily

LIVES = 30.0  # seconds a lease lives without being renewed
BEAT = 0.5  # seconds between two signs of life of a gateway
BOTH = 5.0  # seconds after an outage in which other gateways may still be telling what they granted
LOST = 61.0  # seconds after which windows of a minute that were lost do not matter any more
SEEN = 8192  # scopes whose standing is remembered


class _Live(NamedTuple):
    """A lease that goes on, in these scopes; ``renewed`` in seconds of the monotonic clock."""

    grant: Grant
    scopes: tuple[Scope, ...]
    renewed: float


class Shared:
    """``name`` tells this process from all others; ``monotonic`` is a clock in seconds."""

    def __init__(
        self, link: Link, local: Memory, name: str, monotonic: Callable[[], float], *, lives: float = LIVES
    ) -> None:
        self._link = link
        self._local = local
        self._calls = Calls(name, lives)
        self._monotonic = monotonic
        self._renew_after = lives / 3
        self._live: dict[str, _Live] = {}
        self._seen: dict[tuple[Kind, str], tuple[Scope, Sequence[int]]] = {}
        self._born: int | None = None
        self._heard_at = 0.0  # when Redis answered a sign of life, once it did
        self._both_until = 0.0

    @property
    def lost(self) -> int:
        return self._link.lost

    async def take(self, claim: Claim) -> Answer:
        sent = self._link.up
        try:
            reply = await self._link.ask(self._calls.take(claim))
        except Unreachable:
            return self._alone(claim, sent)
        except asyncio.CancelledError:
            self._undo(claim)
            raise
        self._notice(reply[2])
        if reply[0] == 1:
            return self._granted(claim, reply)
        if reply[0] == 0:
            return refusal(claim, reply)
        pairs = zip(reply[3::2], reply[4::2], strict=True)
        return Unseeded(tuple((claim.scopes[at - 1], claim.scopes[at - 1].quotas[n - 1]) for at, n in pairs))

    def _alone(self, claim: Claim, sent: bool) -> Answer:
        answer = self._local.consider(claim)
        if isinstance(answer, Grant):
            self._live[claim.id] = _Live(answer, claim.scopes, answer.at)
        elif sent:
            self._undo(claim)
        return answer

    def _granted(self, claim: Claim, reply: Reply) -> Answer:
        stood = standing(claim, reply)
        if self._monotonic() < self._both_until:
            answer = self._local.consider(claim._replace(lenient=True))
            if not isinstance(answer, Grant):
                self._undo(claim)
                return answer
            grant = answer
        else:
            grant = self._local.record(claim)
        levels = []
        if len(self._seen) > SEEN:
            self._seen.clear()
        for scope, figures in stood:
            if not scope.further:
                self._seen[scope.kind, scope.id] = (scope, figures)
            levels += [
                Level(scope.kind, rate, rate.limit, used)
                for rate, used in zip(scope.rates, figures, strict=False)
            ]
            since = self._calls.since(scope, claim.time)
            for quota, begun, stands in zip(scope.quotas, since, budgets(scope, figures), strict=True):
                self._local.learn(scope, quota, begun, stands)
        grant = grant._replace(levels=levels, shared=True)
        self._live[claim.id] = _Live(grant, claim.scopes, grant.at)
        return grant

    def _undo(self, claim: Claim) -> None:
        """Free what Redis may have granted to somebody who will not use it."""
        grant = Grant(claim, self._monotonic(), [], shared=True)
        self._link.tell(self._calls.settle(grant, NOTHING, claim.scopes, 0.0))

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
        if not scopes:
            return
        self._local.settle(grant, spent, scopes)
        live = self._live.pop(grant.claim.id, None)
        left = tuple(scope for scope in live.scopes if scope not in scopes) if live else ()
        if live and left:
            self._live[grant.claim.id] = live._replace(scopes=left)
        self._link.tell(self._calls.settle(grant, spent, scopes, self._monotonic() - grant.at))

    def charge(self, id: str, whom: tuple[Kind, str], spent: Amount, time: float) -> None:
        scope = self._local.charged(whom, spent, time)
        if scope is not None:
            grant = Grant(Claim(id, (scope,), NOTHING, time), self._monotonic(), [], shared=True)
            self._link.tell(self._calls.settle(grant, spent, (scope,), 0.0))

    async def seed(self, scope: Scope, quota: Quota, since: float, amount: int) -> None:
        await self._local.seed(scope, quota, since, amount)
        call = self._calls.seed(scope, quota, since, amount)
        try:
            await self._link.ask(call)
        except Unreachable:
            self._link.tell(call)

    def rows(self) -> list[Row]:
        """As Redis said last; as this process knows while there is no Redis."""
        local = self._local.rows()
        if not self._link.up:
            return local
        seen = [row for scope, figures in self._seen.values() for row in rows(scope, figures)]
        known = {(row.kind, row.id) for row in local}
        return [row for row in seen if (row.kind, row.id) in known]

    def budgets(self) -> Iterable[Standing]:
        """As ``rows``."""
        local = self._local.budgets()
        if not self._link.up:
            return local
        known = {scope.whose for scope, *_ in local}
        seen = (self._seen[whose] for whose in known if whose in self._seen)
        return (each for scope, figures in seen for each in standings(scope, figures))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._link.running(self._greet):
            signs = steadily("a sign of life to Redis", BEAT, self._beat)
            beating = asyncio.get_running_loop().create_task(signs)
            try:
                yield
            finally:
                beating.cancel()
                await asyncio.wait({beating})
                await asyncio.shield(self._leave())

    async def _leave(self) -> None:
        """Until all that was told has arrived, if Redis takes it."""
        with suppress(Unreachable):
            await self._link.ask(self._calls.leave())
            while self._link.waiting:
                await self._link.ask(self._calls.leave())

    async def _greet(self, exchange: Exchange) -> None:
        """Redis is there, perhaps again: tell it what goes on here."""
        silent = self._monotonic() - self._heard_at if self._born is not None else 0.0
        [reply] = await exchange([self._calls.beat(silent)])
        if self._born is not None:
            self._both_until = max(self._both_until, self._monotonic() + BOTH)
        self._heard(reply)
        calls = self._renewals(0.0)
        for start in range(0, len(calls), BATCH):
            await exchange(calls[start : start + BATCH])

    async def _beat(self) -> None:
        with suppress(Unreachable):
            self._heard(await self._link.ask(self._calls.beat()))
            for call in self._renewals(self._renew_after):
                self._link.tell(call)

    def _heard(self, reply: Reply) -> None:
        """How many gateways live; after an outage not all have called again yet."""
        self._notice(reply[2])
        self._heard_at = self._monotonic()
        least = self._local.share if self._monotonic() < self._both_until else 1
        self._local.share = max(least, reply[3])

    def _notice(self, born: int) -> None:
        """Whether Redis has lost everything since it was asked last."""
        if self._born is not None and born != self._born:
            self._both_until = self._monotonic() + LOST
            for call in self._renewals(0.0):
                self._link.tell(call)
        self._born = born

    def _renewals(self, age: float) -> list[bytes]:
        """Calls that renew what was not renewed for so many seconds."""
        now, calls = self._monotonic(), []
        for id, live in self._live.items():
            if now - live.renewed >= age:
                self._live[id] = live._replace(renewed=now)
                calls.append(self._calls.renew(live.grant, live.scopes, now - live.grant.at))
        return calls


def shared(
    url: str,
    local: Memory,
    monotonic: Callable[[], float],
    *,
    timeout: float = TIMEOUT,
    lives: float = LIVES,
) -> Shared:
    """The limiter over the Redis at ``url``, which goes on with ``local`` while that fails.

    ``timeout``: seconds of a round trip; ``lives``: seconds that leases of a gateway which died last.
    """
    return Shared(Link(url, SCRIPT, timeout=timeout), local, token_hex(8), monotonic, lives=lives)
