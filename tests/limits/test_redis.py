"""Limits of several gateways: nothing above the limit while Redis is there, a share of it while it is not."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import pytest
from redis import Redis

from gateway.allowances import Budget, Limits
from gateway.core.errors import GatewayError, RateLimited
from gateway.limits.redis_limiter import BOTH, LOST
from gateway.limits.rules import Amount
from tests import services
from tests.conftest import ROOT
from tests.limits import house
from tests.limits.house import House, Model, key
from tests.services import Server

pytestmark = pytest.mark.database

BOUND = 20.0  # seconds until something must have happened
QUICK = 0.05  # seconds for a round trip, as in production
PREFIX = "{modal-gateway}:limits:"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def count(home: House, caller: object, most: int = 1000) -> int:
    """How many requests are let in until one is refused."""
    for number in range(most):
        try:
            (await home.lease(caller)).settle(Amount(10))  # type: ignore[arg-type]
        except RateLimited:
            return number
    raise AssertionError("there is no limit")


def up(*homes: House) -> bool:
    return all(home.limiter._link.up for home in homes)  # type: ignore[attr-defined]


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that the test may break."""
    with services.redis() as server:
        yield server


@pytest.fixture
def client(own: Server) -> Iterator[Redis]:
    with Redis.from_url(house.url(own)) as client:
        yield client


@pytest.fixture
async def pair(own: Server, client: Redis) -> AsyncIterator[tuple[House, House]]:
    """Two gateways that know of each other."""
    async with AsyncExitStack() as stack:
        homes = [await stack.enter_async_context(house.in_redis(own, patience=QUICK)) for _ in range(2)]
        await until(lambda: client.zcard(PREFIX + "gateways") == 2)
        await until(lambda: all(home.limiter._local.share == 2 for home in homes))  # type: ignore[attr-defined]
        yield homes[0], homes[1]


RACE = """
import asyncio, sys
from redis import Redis
from gateway.allowances import Limits
from gateway.core.errors import GatewayError
from tests.limits import house

async def lease(home, caller):
    try:
        await home.lease(caller)
        return 1
    except GatewayError:
        return 0

async def main(port):
    server = house.Server([], port, None)
    caller = house.key(Limits(requests_per_minute=100))
    async with house.in_redis(server, patience=30) as home:
        assert home.limiter._link.up
        home.clock.redis.incr("here")
        await asyncio.to_thread(home.clock.redis.blpop, "go", 30)
        print(sum(await asyncio.gather(*(lease(home, caller) for _ in range(50)))))

asyncio.run(main(int(sys.argv[1])))
"""


def test_4_processes_with_50_requests_each_on_a_limit_of_100(own: Server, client: Redis) -> None:
    command = [sys.executable, "-c", RACE, str(own.port)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        end = time.monotonic() + 60
        while int(client.get("here") or 0) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        client.rpush("go", *range(4))
        admitted = [int(process.communicate(timeout=BOUND)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sum(admitted) == 100


def stop(server: Server, client: Redis) -> Callable[[], None]:
    server.signal(signal.SIGSTOP)
    return lambda: server.signal(signal.SIGCONT)


def kill(server: Server, client: Redis) -> Callable[[], None]:
    server.signal(signal.SIGKILL)
    server.stop()
    return server.start


def readonly(server: Server, client: Redis) -> Callable[[], None]:
    client.replicaof("127.0.0.1", 1)
    return lambda: client.replicaof("NO", "ONE")  # type: ignore[no-any-return]


def full(server: Server, client: Redis) -> Callable[[], None]:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)  # type: ignore[no-any-return]


def slow(server: Server, client: Redis) -> Callable[[], None]:
    client.client_pause(int(BOUND) * 1000, all=False)
    return lambda: client.client_unpause()  # type: ignore[no-any-return]


@pytest.mark.parametrize("fail", [stop, kill, readonly, full, slow])
async def test_while_redis_fails_each_gateway_gives_its_share(
    pair: tuple[House, House], own: Server, client: Redis, fail: Callable[..., Callable[[], None]]
) -> None:
    caller = key(Limits(requests_per_minute=20, concurrent=2))
    (await pair[0].lease(caller)).settle(Amount(10))
    mend = fail(own, client)
    try:
        waits, admitted = [], []
        for home in pair:
            started = time.monotonic()
            admitted.append(await count(home, caller))
            waits.append(time.monotonic() - started)
        assert admitted == [9, 10]  # the first has had one already
        assert max(waits) < 0.5  # one of all these requests waited for a round trip
    finally:
        await asyncio.to_thread(mend)
    await until(lambda: up(*pair))
    # What was granted meanwhile counts, also where nothing of before was kept.
    assert [await count(home, caller) for home in pair] == [0, 0]
    for home in pair:
        home.clock.now += BOTH
    pair[1].clock.advance(LOST)
    pair[0].clock.now += LOST
    assert await count(pair[0], caller) + await count(pair[1], caller) == 20


async def test_while_redis_fails_each_gateway_gives_its_share_of_a_budget(
    pair: tuple[House, House], own: Server
) -> None:
    caller = key(Limits(), Budget(tokens=100))
    (await pair[0].lease(caller, wanted=Amount(40))).settle(Amount(40))
    (await pair[1].lease(caller, wanted=Amount(2))).settle(Amount(2))
    own.signal(signal.SIGSTOP)
    for home, left in zip(pair, (10, 28), strict=True):
        await home.refusal(caller, wanted=Amount(left + 1))
        (await home.lease(caller, wanted=Amount(left))).settle(Amount(left))
    own.signal(signal.SIGCONT)
    await until(lambda: up(*pair))
    for home in pair:
        home.clock.now += BOTH
    assert "spent 80 tokens" in (await pair[0].refusal(caller, wanted=Amount(21))).message
    await pair[1].lease(caller, wanted=Amount(20))


async def test_an_outage_without_requests_is_noticed_within_a_second(
    pair: tuple[House, House], own: Server
) -> None:
    own.signal(signal.SIGSTOP)
    started = time.monotonic()
    await until(lambda: not pair[0].limiter._link.up)  # type: ignore[attr-defined]
    assert time.monotonic() - started < 1.5


async def test_a_gateway_starts_and_serves_without_redis(own: Server) -> None:
    own.stop()
    async with house.in_redis(own, patience=QUICK) as home:
        assert await count(home, key(Limits(requests_per_minute=5))) == 5
        assert "spent" in (await home.refusal(key(Limits(), Budget(tokens=5)))).message
        home.clock.redis = None
        own.start()
        await until(lambda: up(home))
        assert await count(home, key(Limits(requests_per_minute=5))) == 0


async def test_leases_outlive_a_redis_that_lost_everything(own: Server, client: Redis) -> None:
    caller = key(Limits(concurrent=2, requests_per_minute=10), Budget(tokens=100))
    async with house.in_redis(own) as one, house.in_redis(own) as other:
        lease = await one.lease(caller, wanted=Amount(60))
        client.flushall()
        for home in (one, other):  # each hears of it with its next sign of life
            await until(lambda home=home: home.limiter._both_until > 0)  # type: ignore[misc]
        await until(lambda: client.zcard(PREFIX + "key:key_1:leases") == 1)
        assert "reserved by running requests 60" in (await other.refusal(caller, wanted=Amount(50))).message
        second = await other.lease(caller, wanted=Amount(10))
        await other.refusal(caller)
        lease.settle(Amount(60))
        second.settle(Amount(10))
        await until(lambda: client.zcard(PREFIX + "key:key_1:leases") == 0)
        await one.lease(caller)


async def test_a_gateway_that_dies_loses_its_leases_and_one_that_lives_keeps_them(
    own: Server, client: Redis
) -> None:
    caller = key(Limits(concurrent=1), Budget(tokens=100))
    async with house.in_redis(own, lives=30) as dead:
        await dead.lease(caller, wanted=Amount(90))
    async with house.in_redis(own, lives=30) as one, house.in_redis(own, lives=30) as other:
        await one.refusal(caller)
        one.clock.advance(31)
        lease = await one.lease(caller, wanted=Amount(90))
        for _ in range(3):
            ends = client.zscore(PREFIX + "key:key_1:leases", lease._id)
            one.clock.advance(20)
            await until(lambda ends=ends: client.zscore(PREFIX + "key:key_1:leases", lease._id) > ends)  # type: ignore[misc]
        await other.refusal(caller)
        lease.settle(Amount(1))
        await until(lambda: client.zcard(PREFIX + "key:key_1:leases") == 0)
        await other.lease(caller, wanted=Amount(99))


async def test_a_request_that_is_cancelled_while_redis_is_asked_leaves_nothing(
    own: Server, client: Redis
) -> None:
    caller = key(Limits(concurrent=1))
    async with house.in_redis(own) as home:
        (await home.lease(caller)).settle(Amount())
        own.signal(signal.SIGSTOP)
        asking = asyncio.get_running_loop().create_task(home.lease(caller))
        await until(lambda: bool(home.limiter._link._wake) and not home.limiter._link._asked)  # type: ignore[attr-defined]
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        own.signal(signal.SIGCONT)
        await home.lease(caller)


async def test_a_clock_that_is_set_gives_nobody_more(own: Server, client: Redis) -> None:
    caller = key(Limits(requests_per_minute=3))
    async with house.in_redis(own) as home:
        for hours in (1, -1):
            assert await count(home, caller) == 3
            client.hincrby(PREFIX + "clock", "offset", hours * 3_600_000)  # as if TIME were set
            assert await count(home, caller) == 0
            home.clock.advance(61)


async def test_sums_are_exact_where_a_lua_number_is_not(own: Server, client: Redis) -> None:
    caller = key(Limits(), Budget(gpu_seconds=1e9, per="total"))
    odd = 2**53 + 1
    async with house.in_redis(own) as home:
        home.books.spent["key", "key_1"] = Amount(0, 0, odd)
        for _ in range(3):
            (await home.lease(caller, wanted=Amount(0, 0, odd))).settle(Amount(0, 0, odd))
        home.leases.charge("idle_1", [("key", "key_1")], Amount(0, 0, 1))
    assert client.hget(PREFIX + "key:key_1:book", "spent:gpu/total") == b"%d" % (4 * odd + 1)
    assert client.hget(PREFIX + "key:key_1:held", "sum:3") == b"0"


async def test_it_runs_on_a_cluster() -> None:
    with services.redis("--cluster-enabled", "yes") as server, Redis.from_url(house.url(server)) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        await until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        async with house.in_redis(server, {"lab": house.Allowance(limits=Limits(concurrent=5))}) as home:
            caller = key(Limits(requests_per_minute=2, tokens_per_minute=100), Budget(dollars=1), team="lab")
            assert await count(home, caller) == 2
            assert up(home)


async def test_nothing_is_kept_of_whom_nobody_hears(own: Server, client: Redis) -> None:
    caller = key(Limits(concurrent=1, requests_per_minute=5), Budget(tokens=10_000))
    async with house.in_redis(own) as home:
        for _ in range(5):
            (await home.lease(caller)).settle(Amount(10))
            await until(lambda: client.zcard(PREFIX + "key:key_1:leases") == 0)
    forever = {name.decode() for name in client.scan_iter() if client.ttl(name) < 0}
    assert forever <= {PREFIX + "clock", PREFIX + "gateways"}
    assert client.zcard(PREFIX + "gateways") == 0
    assert client.hgetall(PREFIX + "key:key_1:held") == {b"sum:1": b"0", b"sum:4": b"0"}


async def test_errors_of_an_outage_are_never_about_the_key(pair: tuple[House, House], own: Server) -> None:
    own.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        caller = key(Limits(concurrent=10))
        tasks = [group.create_task(_outcome(pair[0], caller)) for _ in range(50)]
    assert sorted(task.result() for task in tasks) == [200] * 5 + [429] * 45


async def _outcome(home: House, caller: object) -> int:
    try:
        await home.lease(caller)  # type: ignore[arg-type]
    except GatewayError as error:
        return error.status
    return 200


async def test_models_and_keys_of_any_name_are_kept_apart(own: Server) -> None:
    async with house.in_redis(own) as home:
        for name in ("a}b{c", "a:leases", "a b\r\n", "ü"):
            model = Model(name, limits=Limits(requests_per_minute=1))
            await home.lease(key(id=name), model)
            await home.refusal(key(id=name), model)


NIGHT = 20 * 3600  # seconds


def sleep(client: Redis, seconds: int) -> None:
    """So much time passes for Redis, in which nobody calls it."""
    client.hincrby(PREFIX + "clock", "offset", seconds * 1000)


async def test_time_passes_while_no_gateway_runs(own: Server, client: Redis) -> None:
    caller = key(Limits(requests_per_day=2, requests_per_minute=100))
    async with house.in_redis(own) as home:
        assert await count(home, caller) == 2
    sleep(client, NIGHT)
    async with house.in_redis(own) as home:
        error = await home.refusal(caller)
        assert 86_400 - NIGHT < int(error.headers["retry-after"]) < 86_400 - NIGHT + 400
    sleep(client, NIGHT)
    async with house.in_redis(own) as one, house.in_redis(own) as other:
        assert await count(one, caller) == 2
        sleep(client, NIGHT)  # now it is a clock that was set
        assert await count(other, caller) == 0


async def test_time_passes_while_all_gateways_are_dead(own: Server, client: Redis) -> None:
    caller = key(Limits(requests_per_day=2))
    async with house.in_redis(own) as home:
        assert await count(home, caller) == 2
        left = client.zrange(PREFIX + "gateways", 0, -1, withscores=True)
    client.hdel(PREFIX + "clock", "alone")  # it was killed and has said nothing
    client.zadd(PREFIX + "gateways", dict(left))
    sleep(client, 2 * NIGHT)
    async with house.in_redis(own) as home:
        assert await count(home, caller) == 2


async def test_time_passes_while_redis_itself_stands_still(own: Server, client: Redis) -> None:
    caller = key(Limits(requests_per_day=2))
    async with house.in_redis(own, patience=QUICK) as home:
        assert await count(home, caller) == 2
        own.signal(signal.SIGSTOP)
        await until(lambda: not up(home))
        home.clock.now += 2 * NIGHT
        own.signal(signal.SIGCONT)
        sleep(client, 2 * NIGHT)
        await until(lambda: up(home))
        home.clock.now += BOTH
        assert await count(home, caller) == 2
