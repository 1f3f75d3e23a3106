"""One asks, the rest wait: whatever is cancelled when, nobody is forgotten and never do two ask."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.coldstart import ColdStart
from tests.routing.test_slots import turns


class Crowd:
    """Calls that wait for a container; who asks does so until ``gate`` says whether it found one."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.start = ColdStart()
        self.group = group
        self.gate: asyncio.Future[bool] | None = None  # of who asks
        self.tasks: list[asyncio.Task[str]] = []

    async def one(self) -> str:
        if not self.start.begin() and not await self.start.wait():
            return "let go"
        assert self.gate is None  # nobody else asks
        self.gate = asyncio.get_running_loop().create_future()
        found = False
        try:
            found = await self.gate
        finally:
            self.gate = None
            self.start.ready() if found else self.start.resign()
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
                    assert (crowd.waiting > 0) == (crowd.gate is not None) == crowd.start.under_way
            await crowd.finish()
        assert not crowd.start.under_way
        assert crowd.start.begin()  # the next one starts anew

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
    start = ColdStart()
    assert start.begin()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(start.wait()) for _ in range(3)]
        await turns()
        start.resign()  # the first has the part, and could not run since
        waiting[0].cancel()
        await turns()
        assert waiting[0].cancelled()
        assert waiting[1].result() is True
        start.ready()
        assert await waiting[2] is False
