"""Keeping models warm in their hours: by the platform's minimum, or by requests, in one task a model."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli.serving import share
from gateway.core.call import PromptCall
from gateway.core.errors import UpstreamUnavailable
from gateway.lifespan import close_all
from gateway.models import deployment
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.routing.visit import Visit as Seen
from gateway.settings import settings_from
from gateway.upstreams.demo import DemoUpstream
from gateway.upstreams.modal_sdk import ModalUpstream
from gateway.upstreams.openai import OpenAIUpstream
from gateway.upstreams.prompt import PromptUpstream
from gateway.warming.hours import Due, Warm
from gateway.warming.schedules import (
    ByMinimum,
    ByRequests,
    Keeper,
    Keeps,
    Rota,
    Schedule,
    keeping_beside,
    schedules,
)
from tests.conftest import ROOT
from tests.serve.house import Scripted, Visit, container, deployed, faster, house, soon
from tests.serve.test_admin import there

HOURS = Warm(cron="0 8 * * *", until="18:00").hours
DAY = datetime(2026, 11, 20, tzinfo=UTC)


class Wall:
    """A clock on the wall that only sleeping moves; at ``end`` it stands still."""

    def __init__(self, begin: float, end: float) -> None:
        self.now = begin
        self.end = end
        self.ended = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)
        if self.now >= self.end:
            self.ended.set()
            await asyncio.Event().wait()

    @property
    def shown(self) -> str:
        return (DAY + timedelta(seconds=round(self.now - DAY.timestamp()))).strftime("%H:%M:%S")


class Platform(Scripted):
    """Takes a minimum of containers; ``said`` is when which. Fails the first ``failures`` times."""

    def __init__(self, wall: Wall, *, failures: int = 0, error: type[Exception] = RuntimeError) -> None:
        super().__init__("m")
        self.said: list[tuple[str, int]] = []
        self._wall = wall
        self._failures = failures
        self._error = error
        self.told: list[bool] = []

    async def keep(self, containers: int) -> None:
        self.said.append((self._wall.shown, containers))
        if len(self.said) <= self._failures:
            raise self._error("not now")


async def a_day(wall: Wall, keeper: Callable[[], Keeper], target: Any = None) -> None:
    """Runs a schedule until the wall clock's end, then ends it as a process that leaves does."""
    schedule = Schedule("m", HOURS, keeper(), target)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(schedule.run(wall, wall.sleep))
        await soon(wall.ended.wait())
        task.cancel()


def wall(begin: str, end: str) -> Wall:
    return Wall(*((DAY + timedelta(hours=int(t[:2]), minutes=int(t[3:]))).timestamp() for t in (begin, end)))


async def test_a_platform_is_told_the_minimum_in_the_hours_and_none_outside() -> None:
    clock = wall("07:00", "32:00")
    platform = Platform(clock)
    await a_day(clock, lambda: ByMinimum(platform, 2, platform.told.append))
    assert platform.said[0] == ("07:00:00", 0)  # what an earlier process may have left
    kept = [when for when, containers in platform.said if containers == 2]
    assert (kept[0], kept[1]) == ("08:00:00", "08:10:00")  # told again: a deployment forgets it
    released = [when for when, containers in platform.said[1:] if containers == 0]
    assert released == ["18:00:00"]
    assert platform.told == [False, *[True] * len(kept), False]
    assert len(platform.said) == 2 + len(kept)


async def test_a_process_that_starts_within_the_hours_keeps_them_and_lets_go_when_it_ends() -> None:
    clock = wall("12:00", "12:05")
    platform = Platform(clock)
    await a_day(clock, lambda: ByMinimum(platform, 1, platform.told.append))
    assert platform.said == [("12:00:00", 1), (platform.said[-1][0], 0)]


async def test_outside_the_hours_an_ending_process_says_nothing() -> None:
    clock = wall("19:00", "19:30")
    platform = Platform(clock)
    await a_day(clock, lambda: ByMinimum(platform, 1, platform.told.append))
    assert platform.said == [("19:00:00", 0)]


@pytest.mark.parametrize("kind", [UpstreamUnavailable, RuntimeError])
async def test_a_failure_is_logged_and_tried_again(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    clock = wall("08:00", "08:09")
    platform = Platform(clock, failures=2, error=kind)
    with caplog.at_level(logging.WARNING):
        await a_day(clock, lambda: ByMinimum(platform, 1, platform.told.append))
    assert platform.said[:3] == [("08:00:00", 1), ("08:01:00", 1), ("08:02:00", 1)]
    assert [(when, least) for when, least in platform.said[3:] if least] == []
    assert [line for line in caplog.messages if line.startswith("models.m.warm")] == caplog.messages
    assert len(caplog.messages) == 2


class Broken:
    """Hours that cannot be told the first ``failures`` times."""

    def __init__(self, failures: int) -> None:
        self.asked = 0
        self._failures = failures

    def due(self, now: float) -> Due:
        self.asked += 1
        if self.asked <= self._failures:
            raise ZeroDivisionError
        return HOURS.due(now)


async def test_hours_that_cannot_be_told_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = wall("08:00", "08:09")
    platform = Platform(clock)
    hours: Any = Broken(2)
    keeper = ByMinimum(platform, 1, platform.told.append)
    with caplog.at_level(logging.WARNING):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Schedule("m", hours, keeper, target=None).run(clock, clock.sleep))  # type: ignore[arg-type]
            await soon(clock.ended.wait())
            task.cancel()
    assert platform.said[0] == ("08:02:00", 1)
    assert [line for line in caplog.messages if line.startswith("models.m.warm")] == caplog.messages
    assert len(caplog.messages) == 2


async def test_others_are_woken_before_they_fall_asleep() -> None:
    clock = wall("07:00", "08:04")
    upstream = Scripted("m")
    [target] = deployed(upstream).upstreams
    await a_day(clock, lambda: ByRequests(target, 100.0), target)
    assert upstream.woken == 3  # at 0, 80 and 160 s
    await target.aclose()


async def test_an_upstream_that_cannot_be_woken_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = wall("08:00", "08:03")
    upstream = Scripted("m", [UpstreamUnavailable("no connection")])
    [target] = deployed(upstream).upstreams
    with caplog.at_level(logging.WARNING):
        await a_day(clock, lambda: ByRequests(target, 300.0), target)
    assert upstream.woken == 3
    assert set(caplog.messages) == {"models.m.warm: no connection"}
    await target.aclose()


# --- who runs it ---

UPSTREAMS = (PromptUpstream, OpenAIUpstream, DemoUpstream)
ALWAYS = {"cron": "* * * * *", "until": "2h"}


def test_each_model_with_hours_is_kept_by_what_its_kind_can() -> None:
    config = {"kind": "demo", "scaledown_window": 50}
    data = {name: {"upstream": config, "warm": ALWAYS} for name in ("a", "b")}
    models = settings_from({"models": {**data, "c": {"upstream": config}}}, {}).models
    clock = Wall(0.0, 0.0)
    upstreams = {"a": Scripted("a"), "b": Platform(clock), "c": Scripted("c")}
    first, second = schedules(models, [deployed(each, name=name) for name, each in upstreams.items()])
    assert isinstance(first.keeper, ByRequests) and first.keeper.every == 40
    assert isinstance(second.keeper, ByMinimum)


async def test_in_its_hours_a_model_that_another_process_keeps_is_not_called_cold() -> None:
    warm = {"cron": "0 8 * * *", "until": "18:00"}
    told = settings_from({"models": {"m": {"upstream": {"kind": "demo"}, "warm": warm}}}, {})
    clock = wall("12:00", "18:02")
    inner = Platform(clock)
    target = Target(inner, Bounds(4, 4, 5.0, window=50.0, sleeps=True), clock)
    [known] = schedules(share(told, 2).models, [Deployment(deployed(inner).spec, [target])])
    states: dict[str, str] = {}

    async def sleep(seconds: float) -> None:
        states[clock.shown] = target.state()
        await clock.sleep(seconds)

    async with aclosing(target.events(PromptCall("x", {}, stream=True), Seen())) as batches:
        async for _ in batches:
            pass
    async with asyncio.TaskGroup() as group:
        task = group.create_task(known.run(clock, sleep))
        await soon(clock.ended.wait())
        task.cancel()
    assert {state for when, state in states.items() if when < "18:00:00"} == {"warm"}
    assert target.state() == "cold"
    assert inner.said == []


def test_kind_modal_alone_takes_a_minimum() -> None:
    assert [kind for kind in (*UPSTREAMS, ModalUpstream) if issubclass(kind, Keeps)] == [ModalUpstream]


async def test_a_gateway_keeps_its_models_warm_while_it_runs() -> None:
    async with house(there, warm=ALWAYS) as at:
        await soon(at.container.visited.wait())
        assert [visit.method for visit in at.container.visits] == ["GET"]


class Woken(Scripted):
    """Says when it was."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.was_woken = asyncio.Event()

    async def wake(self) -> None:
        self.was_woken.set()


async def test_many_are_kept_at_once_and_none_is_left_behind() -> None:
    upstreams = [Woken(f"m-{index}") for index in range(3)]
    targets = [deployed(each).upstreams[0] for each in upstreams]
    hours = Warm(**ALWAYS).hours
    kept = [Schedule(each.name, hours, ByRequests(each, 60.0), each) for each in targets]
    before = asyncio.all_tasks()
    rota = Rota(lambda: DAY.timestamp())
    await rota.keep(kept)
    for each in upstreams:
        await soon(each.was_woken.wait())
    await rota.keep(())
    for each in targets:
        await each.aclose()
    assert asyncio.all_tasks() <= before


async def test_a_process_that_only_starts_workers_keeps_them_in_a_thread() -> None:
    reached = asyncio.Event()

    async def script(visit: Visit) -> None:
        reached.set()
        await there(visit)

    async with container(script) as behind:
        data = {"upstream": {"url": f"http://127.0.0.1:{behind.port}/"}, "template": "plain", "warm": ALWAYS}
        models = settings_from({"models": {"m": data}}, {}).models

        def make() -> list[Schedule]:
            return schedules(models, [deployment("m", models["m"], ROOT)])

        with keeping_beside(make, lambda: DAY.timestamp()) as look:
            await soon(reached.wait())
            look()
        assert len(behind.visits) == 1


async def test_a_schedule_that_did_not_change_goes_on_and_the_others_let_go() -> None:
    said: list[tuple[str, int]] = []

    class Kept(Woken):
        async def keep(self, containers: int) -> None:
            said.append((self.name, containers))
            self.was_woken.set()

    platforms = {name: Kept(name) for name in ("same", "longer", "gone")}
    targets = {name: Target(each, Bounds(1, 1, 1.0), lambda: 0.0) for name, each in platforms.items()}

    def schedule(name: str, until: str = "24h") -> Schedule:
        keeper = ByMinimum(platforms[name], 1, targets[name].kept)
        return Schedule(name, Warm(**{**ALWAYS, "until": until}).hours, keeper, targets[name])

    rota = Rota(lambda: DAY.timestamp())
    await rota.keep([schedule(name) for name in platforms])
    for each in platforms.values():
        await soon(each.was_woken.wait())
        each.was_woken.clear()
    said.clear()
    await rota.keep([schedule("same"), schedule("longer", "23h")])
    assert sorted(said) == [("gone", 0), ("longer", 0)]
    platforms["longer"].was_woken.clear()
    await soon(platforms["longer"].was_woken.wait())
    await rota.keep(())
    assert sorted(said[2:]) == [("longer", 0), ("longer", 1), ("same", 0)]


# --- the end of a process ---


class Leaving(Scripted):
    """Fails or hangs when it is closed, or is closed."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how
        self.closed = False

    async def aclose(self) -> None:
        if self.how == "fails":
            raise RuntimeError("on purpose")
        if self.how == "hangs":
            await asyncio.Event().wait()
        self.closed = True


async def test_one_upstream_that_cannot_be_closed_keeps_no_other_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstreams = [Leaving(how) for how in ("fails", "hangs", "closes", "closes")]
    with faster(100) as bound, caplog.at_level(logging.ERROR):
        await asyncio.wait_for(close_all(*upstreams), bound)
    assert [each.closed for each in upstreams] == [False, False, True, True]
    assert len(caplog.messages) == 2
