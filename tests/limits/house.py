"""Limits on a clock of their own, counted in this process or in Redis.

Rule: a test moves time itself. Redis has its own clock, whose distance to the system's it keeps as a value:
moving that is how its time passes here.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex

from redis import Redis

from gateway.allowances import NO_LIMITS, Allowance, Budget, Limits
from gateway.auth import Caller
from gateway.core.errors import GatewayError
from gateway.limits.leases import Lease, Leases
from gateway.limits.limiter import Limiter
from gateway.limits.memory import Memory
from gateway.limits.redis_limiter import shared
from gateway.limits.rules import Amount, Kind
from gateway.limits.scopes import Scopes
from tests.services import Server

NOON = 1_794_657_600.0  # 2026-11-14 12:00 UTC, a Saturday
FOREVER = 1e8  # seconds: no lease ends by itself, however far the clock is moved
PATIENT = 5.0  # seconds for Redis, so that a busy machine is no outage


@dataclass
class Clock:
    now: float = 1000.0  # monotonic
    date: float = NOON
    redis: Redis | None = None

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.date

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.date += seconds
        if self.redis is not None:
            for name in ("now", "offset"):
                self.redis.hincrby("{modal-gateway}:limits:clock", name, round(seconds * 1000))


@dataclass(frozen=True)
class Model:
    name: str = "small"
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    priced: bool = True
    timed: bool = True


MODEL = Model()
TEN = Amount(10)


@dataclass
class Books:
    """What the ledger says: by kind and id; it can fail, and wait until ``slow`` is set."""

    spent: dict[tuple[Kind, str], Amount] = field(default_factory=dict)
    asked: list[tuple[Kind, str, float]] = field(default_factory=list)
    failing: bool = False
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.slow.set()

    async def seed(self, kind: Kind, id: str, since: float) -> Amount:
        self.asked.append((kind, id, since))
        self.called.set()
        await self.slow.wait()
        if self.failing:
            raise OSError("no database")
        return self.spent.get((kind, id), Amount())


@dataclass
class House:
    clock: Clock
    books: Books
    limiter: Limiter
    leases: Leases
    name: str = field(default_factory=lambda: token_hex(4))  # no two requests anywhere have the same id
    requests: int = 0

    async def lease(
        self, caller: Caller, model: Model = MODEL, wanted: Amount = TEN, least: int | None = None
    ) -> Lease:
        self.requests += 1
        id = f"req_{self.name}{self.requests}"
        return await self.leases.lease(caller, model, wanted, id, least=least)

    async def refusal(
        self, caller: Caller, model: Model = MODEL, wanted: Amount = TEN, least: int | None = None
    ) -> GatewayError:
        """The error of a request that must not be let in."""
        try:
            await self.lease(caller, model, wanted, least)
        except GatewayError as error:
            return error
        raise AssertionError("it was let in")

    def used(self) -> Mapping[tuple[str, str, str], int]:
        """Used by kind of scope, measure and period; what is reserved with it."""
        return {(row.kind, row.measure, row.period): row.used + row.reserved for row in self.leases.rows()}


def key(limits: Limits = NO_LIMITS, *budgets: Budget, team: str | None = None, id: str = "key_1") -> Caller:
    return Caller("ci", id=id, limits=limits, budgets=budgets, team=team)


def in_memory(teams: Mapping[str, Allowance] | None = None, *, share: int = 1, seeded: bool = True) -> House:
    clock, books = Clock(), Books()
    limiter = Memory(clock.monotonic, clock.time, share=share, seeded=seeded)
    return House(clock, books, limiter, Leases(limiter, Scopes(teams or {}), books.seed, clock.time))


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


@asynccontextmanager
async def in_redis(
    server: Server,
    teams: Mapping[str, Allowance] | None = None,
    *,
    patience: float = PATIENT,
    lives: float = FOREVER,
) -> AsyncIterator[House]:
    with Redis.from_url(url(server)) as redis:
        clock, books = Clock(redis=redis), Books()
        local = Memory(clock.monotonic, clock.time)
        limiter = shared(url(server), local, clock.monotonic, timeout=patience, lives=lives)
        leases = Leases(limiter, Scopes(teams or {}), books.seed, clock.time)
        async with leases.running():
            yield House(clock, books, limiter, leases)
