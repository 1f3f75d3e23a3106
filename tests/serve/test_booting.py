"""What a page is told of a container that starts: for how long it has, and for how long it probably will."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.routing.lifecycle import Lifecycle
from gateway.routing.visit import Bounds
from tests.serve.house import BOUND, HELLO, Scripted, Visit, faster, house, soon
from tests.serve.test_admin import JSON, WARM, call, in_turn, rows, there
from tests.serve.test_gpu_seconds import Gated, Time, Works, model, rest

SLEEPY = Bounds(8, 8, 1000.0, poll=0.0, window=20.0, sleeps=True)


def test_how_long_it_boots_is_counted_from_the_first_question() -> None:
    life = Lifecycle(60.0, sleeps=True)
    assert life.booting_for(0.0) is None
    life.sent(10.0)
    life.refused(10.5)
    assert life.booting_for(12.0) == 2.0
    life.ended(12.0)
    life.sent(13.0)
    assert life.booting_for(14.0) == 4.0 and life.until_warm(14.0) is None
    life.answered(14.0)
    life.ended(14.0)
    assert life.booting_for(14.0) is None
    life.sent(100.0)  # it has slept meanwhile
    life.refused(100.0)
    assert (life.booting_for(101.0), life.until_warm(101.0)) == (1.0, 3.0)


async def absent(visit: Visit) -> None:
    await visit.answer(b"no container", status="503 Service Unavailable", kind="text/plain")


async def test_it_is_told_while_it_boots_and_no_longer() -> None:
    async with house(in_turn(absent, absent, absent, there), aliases=["gpt-4"]) as at:
        assert timed(await one(at)) == ("unknown", None, None, None)
        await call(at, "POST", WARM + "?wait=false", headers=JSON)

        async def until(state: str) -> dict[str, Any]:
            async with asyncio.timeout(BOUND):
                while (row := await one(at))["state"] != state:
                    pass
            return row

        with faster(20) as bound:
            booting = await soon(until("booting"), bound)
            assert booting["booting_for"] >= 0 and booting["until_warm"] is None
            assert booting["aliases"] == ["gpt-4"]
            warm = await soon(until("warm"), bound)
        assert timed(warm)[:3] == ("warm", None, None)


@pytest.mark.parametrize(
    ("took", "sleeps", "told"), [(6.0, True, 6000), (0.5, True, None), (6.0, False, None)]
)
async def test_the_first_request_after_a_start_tells_that_it_waited_for_a_container(
    took: float, sleeps: bool, told: int | None
) -> None:
    """Nothing was known of the upstream when it came; what booted shows with the answer."""
    time = Time()
    upstream = Scripted("u", [time.passing(took), *HELLO], [time.passing(3.0), *HELLO])
    bounds = Bounds(8, 8, 1000.0, window=20.0, sleeps=sleeps)
    works = Works(time, model(time, upstream, bounds=bounds))
    first, second = dict((await works.ask()).said[0]["headers"]), await works.ask()
    assert first[b"x-gateway-upstream-state"] == b"unknown"
    assert first.get(b"x-gateway-boot-ms") == (None if told is None else b"%d" % told)
    assert not any(name == b"x-gateway-boot-ms" for name, _ in second.said[0]["headers"])
    assert [each.booted for each in works.records] == [(told or 0) / 1000, 0.0]
    assert works.counted('modal_gateway_boot_wait_seconds_count{model="m"} 1.0') == (told is not None)


async def test_all_who_were_sent_before_the_first_boot_was_over_have_waited_for_it() -> None:
    time, upstream = Time(), Gated()
    works = Works(time, model(time, upstream, bounds=SLEEPY))
    async with asyncio.TaskGroup() as group:
        for _ in range(3):  # at 0, 0.5 and 1 s, of which nothing is known yet
            group.create_task(works.ask())
            await rest()
            time.now += 0.5
        time.now = 6.0
        upstream.answer()
        await rest()
        group.create_task(works.ask())
        await rest()
        time.now = 8.0
        while upstream.waiting:
            upstream.answer()
            await rest()
    assert [each.state for each in works.records] == ["unknown"] * 3 + ["warm"]
    assert [each.booted for each in works.records] == [6.0, 7.5, 7.0, 0.0]


async def one(at: Any) -> dict[str, Any]:
    [row] = await rows(at)
    return row


def timed(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("state", "booting_for", "until_warm", "usual_boot"))
