"""A house for each kind of limiter; the same laws hold in both."""

from collections.abc import AsyncIterator

import pytest
from redis import Redis

from tests.limits import house
from tests.limits.house import House
from tests.services import Server, redis_server

__all__ = ["redis_server"]

TEAMS = {
    "lab": house.Allowance(limits=house.Limits(requests_per_minute=2)),
    "many": house.Allowance(limits=house.Limits(concurrent=100)),
    "paid": house.Allowance(budgets=(house.Budget(dollars=0.75), house.Budget(gpu_seconds=0.75))),
}


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.database)])
async def home(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    if request.param == "memory":
        yield house.in_memory(TEAMS)
        return
    server: Server = request.getfixturevalue("redis_server")
    with Redis.from_url(house.url(server)) as redis:
        redis.flushall()
    async with house.in_redis(server, TEAMS) as home:
        yield home
