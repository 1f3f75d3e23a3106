"""What goes on beside the requests goes on, whatever fails, and says so once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.allowances import NO_LIMITS, Budget
from gateway.limits import leases, redis_limiter, redis_link
from gateway.limits.memory import Memory
from gateway.limits.redis_limiter import Shared, shared
from gateway.limits.redis_link import Link
from gateway.limits.rules import Amount, Quota, Scope
from gateway.limits.scopes import Scopes
from gateway.limits.steady import steadily
from tests.limits.house import Books, Clock, House, key
from tests.serve.house import soon


async def test_a_failure_is_said_once_until_it_has_gone_well_again(caplog: pytest.LogCaptureFixture) -> None:
    steps, over = iter("xx.xx."), asyncio.Event()

    async def step() -> None:
        match next(steps, None):
            case None:
                over.set()
            case "x":
                raise ValueError("on purpose")

    async with asyncio.TaskGroup() as group:
        going = group.create_task(steadily("a chore", 0.0, step))
        await soon(over.wait())
        going.cancel()
    assert [record.getMessage() for record in caplog.records] == ["a chore failed; it goes on"] * 2


class Strange(Link):
    """A link whose answers are none, at first."""

    up = False

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()

    async def ask(self, call: bytes) -> list[int]:
        self.asked += 1
        if self.asked < 3:
            return []
        self.answered.set()
        return [1, 0, 0, 5]

    @property
    def waiting(self) -> int:
        return 0

    @asynccontextmanager
    async def running(self, greet: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
        yield


async def test_signs_of_life_do_not_end_with_an_answer_that_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_limiter, "BEAT", 0.0)
    clock, link = Clock(), Strange()
    limiter = Shared(link, Memory(clock.monotonic, clock.time), "one", clock.monotonic)
    async with limiter.running():
        await soon(link.answered.wait())
    assert caplog.text.count("a sign of life to Redis failed") == 1


class Broken(Memory):
    """Takes no seeds for a while."""

    broken = False

    async def seed(self, scope: Scope, quota: Quota, since: float, amount: int) -> None:
        if self.broken:
            type(self).broken = False
            raise ValueError("on purpose")
        await super().seed(scope, quota, since, amount)


async def test_the_ledger_is_asked_again_after_whatever_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "AGAIN", 0.0)
    clock, books = Clock(), Books(failing=True, spent={("key", "key_1"): Amount(95)})
    limiter = Broken(clock.monotonic, clock.time)
    home = House(clock, books, limiter, leases.Leases(limiter, Scopes({}), books.seed, clock.time))
    caller = key(NO_LIMITS, Budget(tokens=100))
    (await home.lease(caller)).settle(Amount())
    Broken.broken, books.failing = True, False
    async with home.leases.running(), asyncio.timeout(10):
        while home.used()["key", "tokens", "month"] < 95:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)
    await home.refusal(caller)


async def test_a_server_that_answers_nonsense_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_link, "AGAIN", 0.0)
    came = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.release()
        while asked := await reader.read(65536):
            writer.write(b":1\r\n" * asked.count(b"*"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    clock, url = Clock(), f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, shared(url, Memory(clock.monotonic, clock.time), clock.monotonic).running():
        for _ in range(5):
            await soon(came.acquire())
    [told] = caplog.records
    assert told.getMessage().startswith("Redis fails (") and told.exc_info
