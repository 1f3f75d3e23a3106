"""What a request meets of limits and budgets: one lease of all that bounds it, or an error that says why not.

Rule: all scopes or none. A lease is settled once, by a plain function that never fails, whatever became of
the request. With a fallback model the model's own scope changes: the first one's is charged with what ran on
it. Key and team keep what they reserved, and meet only those budgets that did not apply to the first model;
what is taken beyond that counts when it is settled. An estimate of tokens is cut to what is left and refuses
nobody. Knows nothing about HTTP, nor who counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway.auth import Caller
from gateway.limits import refusals
from gateway.limits.limiter import Answer, Claim, Grant, Limiter, Refusal, Row, Unseeded, row
from gateway.limits.rules import NOTHING, Amount, Kind, Scope
from gateway.limits.scopes import Bounded, Scopes
from gateway.limits.seeds import Seed, Seeds
from gateway.limits.steady import steadily

ALERT = 80  # percent of a budget
AGAIN = 30.0  # seconds between questions to a ledger that did not answer
CUTS = 3  # times that an estimate is cut: one rule may have less left than another

log = logging.getLogger("gateway")


class Lease:
    """What one request has reserved. Made by `Leases`."""

    __slots__ = ("_before", "_caller", "_grants", "_id", "_leases", "_model", "_moves")

    def __init__(self, leases: Leases, caller: Caller, model: str, id: str, grant: Grant | None) -> None:
        self._leases = leases
        self._caller = caller
        self._model = model
        self._id = id
        self._moves = 0
        self._before = NOTHING  # spent before it moved to this model
        self._grants = [(grant, grant.claim.scopes)] if grant is not None else []

    @property
    def model(self) -> str:
        """The model that it is at."""
        return self._model

    @property
    def headers(self) -> Mapping[str, str]:
        """``x-ratelimit-*`` as they were when the lease was granted."""
        if not self._moves and self._grants:  # most requests: all that was granted still counts
            grant, _ = self._grants[0]
            return refusals.limits(grant.levels, grant.at)
        levels, at = [], 0.0
        for grant, scopes in self._grants:
            kinds, at = [scope.kind for scope in scopes], grant.at
            levels += [level for level in grant.levels if level.kind in kinds]
        return refusals.limits(levels, at)

    async def move(self, model: Bounded, wanted: Amount, spent: Amount, *, least: int | None = None) -> None:
        """To a fallback model; ``spent`` by the request so far.

        Raises as `Leases.lease`; the lease is then what it was.
        """
        if model.name == self._model:
            return
        self._moves += 1
        bounds = self._new(model)
        id = f"{self._id}.{self._moves}"
        new = await self._leases.claim(id, bounds, wanted, least) if bounds else None
        kept = []
        for grant, scopes in self._grants:
            own, others = _split(scopes)
            self._leases.settle(grant, spent.less(self._before), own)
            kept.append((grant, others))
        self._grants = kept if new is None else [*kept, (new, bounds)]
        self._model, self._before = model.name, spent

    def settle(self, spent: Amount) -> None:
        """Free what was reserved and count ``spent``: once, however often it is called. Never raises."""
        grants, self._grants = self._grants, []
        for grant, scopes in grants:
            if not self._moves:
                self._leases.settle(grant, spent, scopes)
                continue
            own, others = _split(scopes)
            self._leases.settle(grant, spent.less(self._before), own)
            self._leases.settle(grant, spent, others)

    def _new(self, model: Bounded) -> tuple[Scope, ...]:
        """What bounds a request to this model and has reserved nothing yet."""
        held = [each for _, scopes in self._grants for each in scopes]
        met = {(each.kind, quota.name) for each in held for quota in each.quotas}
        found = []
        for each in self._leases.scopes.of(self._caller, model):
            if each.kind == "model":
                found.append(each)
            elif new := tuple(quota for quota in each.quotas if (each.kind, quota.name) not in met):
                found.append(replace(each, rates=(), places=None, quotas=new, further=True))
        return tuple(found)


def _split(scopes: tuple[Scope, ...]) -> tuple[tuple[Scope, ...], tuple[Scope, ...]]:
    """That of the model, and those of key and team."""
    own = tuple(scope for scope in scopes if scope.kind == "model")
    return own, tuple(scope for scope in scopes if scope.kind != "model")


class Leases:
    """All limits and budgets of this process."""

    def __init__(self, limiter: Limiter, scopes: Scopes, seed: Seed, time: Callable[[], float]) -> None:
        self.scopes = scopes
        self.refused: Counter[tuple[Kind, str]] = Counter()  # by kind of scope and name of the rule
        self._limiter = limiter
        self._seeds = Seeds(limiter, seed)
        self._time = time

    async def lease(
        self, caller: Caller, model: Bounded, wanted: Amount, id: str, *, least: int | None = None
    ) -> Lease:
        """Reserve a place and ``wanted`` of the key, its team and the model: of all of them, or none.

        ``id`` is the request's own; ``least``: the fewest tokens that do where ``wanted`` has an estimate.
        Raises ``RateLimited``, ``TokensLimited``, ``InsufficientQuota``, or ``Forbidden`` if its team is in
        no configuration.
        """
        bounds = self.scopes.of(caller, model)
        grant = await self.claim(id, bounds, wanted, least) if bounds else None
        return Lease(self, caller, model.name, id, grant)

    def nothing(self, caller: Caller, id: str) -> Lease:
        """Of a request that nothing bounded so far; it can be moved as any other."""
        return Lease(self, caller, "", id, None)

    async def claim(self, id: str, scopes: tuple[Scope, ...], wanted: Amount, least: int | None) -> Grant:
        """Reserve, once it is known what budgets have spent so far. Raises as ``lease``."""
        claim = Claim(id, scopes, wanted, self._time())
        answer = await self._limiter.take(claim)
        return answer if isinstance(answer, Grant) else await self._insist(claim, answer, least)

    async def _insist(self, claim: Claim, answer: Refusal | Unseeded, least: int | None) -> Grant:
        """Ask the ledger for what is not known, and for less where more was only estimated."""
        id, known = claim.id, await self._sown(claim, answer)
        for cut in range(1, CUTS + 1):
            if least is None or claim.amount.tokens <= least or isinstance(known, Grant):
                break
            if known.rule.measure != "tokens":
                break
            left = known.limit - known.used - known.held
            tokens = max(left, least) if cut < CUTS else least
            # what a limiter takes back of a claim that it refused must not hit the next one
            claim = claim._replace(id=f"{id}/{cut}", amount=claim.amount._replace(tokens=tokens))
            known = await self._sown(claim, await self._limiter.take(claim))
        if isinstance(known, Grant):
            return known
        self.refused[known.scope.kind, known.rule.name] += 1
        raise refusals.error(known, claim.time)

    async def _sown(self, claim: Claim, answer: Answer) -> Grant | Refusal:
        """The limiter's answer once it knows what was spent."""
        if isinstance(answer, Unseeded):
            await self._seeds.sow(answer, claim.time)
            answer = await self._limiter.take(claim._replace(lenient=True))
        assert not isinstance(answer, Unseeded)  # a lenient claim needs no seeds
        return answer

    def settle(self, grant: Grant, spent: Amount, scopes: tuple[Scope, ...]) -> None:
        """As `Lease.settle`, of these scopes."""
        if not scopes:
            return
        try:
            self._limiter.settle(grant, spent, scopes)
        except Exception:
            log.exception("a request could not be settled")

    def charge(self, id: str, whom: Sequence[tuple[Kind, str]], spent: Amount) -> None:
        """Count what these have spent outside of requests, such as a container that waits for some.

        ``id`` is unlike any other. Never raises, refuses nothing.
        """
        try:
            for each in whom:
                self._limiter.charge(id, each, spent, self._time())
        except Exception:
            log.exception("what was spent outside of requests could not be counted")

    def rows(self) -> list[Row]:
        """Every rule that was met lately, as it stands."""
        return self._limiter.rows()

    def budgets(self) -> list[Row]:
        """Those of the rows that are of budgets."""
        return list(map(row, self._limiter.budgets()))

    def alerts(self, shown: Callable[[Scope], bool]) -> tuple[int, list[Row]]:
        """How many budgets are nearly spent or reserved, and the rows of those that are ``shown``."""
        nearly, rows = 0, []
        for each in self._limiter.budgets():  # there may be very many
            scope, _, used, reserved, limit = each
            nearly += 100 * (used + reserved) >= ALERT * limit
            if shown(scope):
                rows.append(row(each))
        return nearly, rows

    @property
    def lost(self) -> int:
        """Calls to Redis that should have arrived and never will."""
        return self._limiter.lost

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What has to go on beside the requests goes on inside."""
        async with self._limiter.running():
            questions = steadily("asking the ledger again", AGAIN, self.ask_again)
            asking = asyncio.get_running_loop().create_task(questions)
            try:
                yield
            finally:
                asking.cancel()
                await asyncio.wait({asking})

    async def ask_again(self) -> None:
        """Ask the ledger once more for what it did not say."""
        await self._seeds.again(self._time())
