"""One asks, the rest wait: whatever is cancelled when, nobody is forgotten and never do two ask."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.coldstart import SLOWER, ColdStart
from tests.routing.test_slots import turns
from tests.serve.house import faster, soon


class Crowd:
    """Calls that wait for a container; who asks does so until ``gate`` says whether it found one."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.start = ColdStart(1.0)
        self.group = group
        self.gate: asyncio.Future[bool] | None = None  # of who asks
        self.tasks: list[asyncio.Task[str]] = []

    async def one(self) -> str:
        me = object()
        if not self.start.begin(me) and not await self.start.wait(me):
            return "let go"
        assert self.gate is None  # nobody else asks
        self.gate = asyncio.get_running_loop().create_future()
        found = False
        try:
            found = await self.gate
        finally:
            self.gate = None
            self.start.ready() if found else self.start.resign(me)
        return "found" if found else "gave up"

    def act(self, action: str, number: int) -> None:
        if action == "come":
            self.tasks.append(self.group.create_task(self.one()))
        elif action == "cancel" and self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
        elif action in ("found", "gave up") and self.gate is not None and not self.gate.done():
            self.gate.set_result(action == "found")

    @property
    def waiting(self) -> int:
        return sum(not task.done() for task in self.tasks)

    async def finish(self) -> None:
        await turns()
        while self.waiting:
            assert self.gate is not None  # else all wait for somebody who is not there
            if not self.gate.done():
                self.gate.set_result(True)
            await turns()


ACTIONS = st.sampled_from(["come", "come", "come", "cancel", "cancel", "found", "gave up", "step", "settle"])


@given(st.lists(st.tuples(ACTIONS, st.integers(0, 50)), max_size=60))
def test_whoever_leaves_somebody_asks_as_long_as_anybody_waits(schedule: Sequence[tuple[str, int]]) -> None:
    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(group)
            for action, number in schedule:
                crowd.act(action, number)
                if action == "step":
                    await asyncio.sleep(0)
                elif action == "settle":
                    await turns()
                    assert (crowd.waiting > 0) == (crowd.gate is not None) == (crowd.start.asker is not None)
            await crowd.finish()
        assert crowd.start.asker is None
        assert crowd.start.begin(crowd)  # the next one starts anew

    asyncio.run(play())


async def test_a_container_lets_all_go_at_once() -> None:
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(group)
        for _ in range(20):
            crowd.act("come", 0)
        await turns()
        crowd.act("found", 0)
        await turns()
        assert [task.result() for task in crowd.tasks] == ["found", *["let go"] * 19]


async def test_who_leaves_hands_the_part_to_who_has_waited_longest() -> None:
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(group)
        for _ in range(4):
            crowd.act("come", 0)
        await turns()
        for leaving in (1, 0):  # one that waits, then who asks: the part falls to the third
            crowd.act("cancel", leaving)
        await turns()
        crowd.act("gave up", 0)
        await turns()
        assert crowd.tasks[2].result() == "gave up"
        assert not crowd.tasks[3].done()
        await crowd.finish()
        assert crowd.tasks[3].result() == "found"


async def test_who_leaves_as_the_part_is_handed_on_hands_it_further() -> None:
    start = ColdStart(1.0)
    assert start.begin(start)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(start.wait(number)) for number in range(3)]
        await turns()
        start.resign(start)  # the first has the part, and could not run since
        waiting[0].cancel()
        await turns()
        assert waiting[0].cancelled()
        assert waiting[1].result() is True
        start.ready()
        assert await waiting[2] is False


async def test_who_does_not_ask_hands_nothing_on() -> None:
    start = ColdStart(1.0)
    assert start.begin("first")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(start.wait("second"))
        await turns()
        start.resign("third")
        await turns()
        assert not waiting.done()
        start.resign("first")
        assert await waiting
        assert start.asker == "second"


# --- a question that an edge keeps ---


class Kept:
    """An edge keeps the question of who asks, while so many wait; notes when they are let go."""

    def __init__(self, group: asyncio.TaskGroup, waiting: int, latency: float) -> None:
        self.start = ColdStart(1.0)
        self.start.begin(self)
        self.start.refused(self, latency)
        self.gone: list[float] = []  # seconds from the question
        self.news = asyncio.Event()
        self.tasks = [group.create_task(self._wait(number)) for number in range(waiting)]

    def ask(self) -> None:
        self.began = asyncio.get_running_loop().time()
        self.start.asked()

    async def until(self, gone: int, bound: float) -> None:
        while len(self.gone) < gone:
            self.news.clear()
            await soon(self.news.wait(), bound)

    async def _wait(self, number: int) -> None:
        assert not await self.start.wait(number)
        self.gone.append(asyncio.get_running_loop().time() - self.began)
        self.news.set()


@pytest.mark.parametrize("latency", [0.0, 0.1, 2.0])
async def test_it_lets_one_go_then_two_then_four(latency: float) -> None:
    async with asyncio.TaskGroup() as group:
        kept = Kept(group, 30, latency)
        await turns()
        with faster(20) as bound:
            kept.ask()
            await kept.until(30, bound)
    first = max(1.0, SLOWER * latency)
    for number, at in enumerate(kept.gone):
        step = (number + 1).bit_length() - 1  # 1, 2 and 3, 4 to 7, ...
        assert at >= first + step - 0.001
    assert kept.start.asker is kept  # who comes later waits too, until there is an answer
    kept.start.ready()


async def test_a_refusal_begins_anew_with_one() -> None:
    async with asyncio.TaskGroup() as group:
        kept = Kept(group, 12, 0.0)
        await turns()
        with faster(20) as bound:
            kept.ask()
            await kept.until(3, bound)
            kept.start.refused("one of them", 0.5)
            again = asyncio.get_running_loop().time() - kept.began
            await kept.until(4, bound)
            assert kept.gone[3] >= again + SLOWER * 0.5 - 0.001
            await kept.until(5, bound)
            assert kept.gone[4] >= kept.gone[3] + 0.9
            kept.start.ready()
            await turns()
        assert len(kept.gone) == 12


async def test_nobody_is_let_go_once_who_asks_was_refused() -> None:
    async with asyncio.TaskGroup() as group:
        kept = Kept(group, 3, 0.0)
        await turns()
        with faster(20):
            kept.ask()
            kept.start.refused(kept, 0.0)
            await asyncio.sleep(5.0)
        assert kept.gone == []
        kept.ask()
        kept.start.ready()
