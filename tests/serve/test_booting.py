"""What a page is told of a container that starts: for how long it has, and for how long it probably will."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.routing.lifecycle import Lifecycle
from tests.serve.house import BOUND, Visit, faster, house, soon
from tests.serve.test_admin import JSON, WARM, call, in_turn, rows, there


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


async def one(at: Any) -> dict[str, Any]:
    [row] = await rows(at)
    return row


def timed(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("state", "booting_for", "until_warm", "usual_boot"))
