"""Slots: never more than there are, none lost whatever is cancelled when, and shared fairly between keys."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Overloaded
from gateway.routing.slots import Slots

LONG = 3600.0  # seconds; no test waits so long
KEYS = "abc"


async def turns(count: int = 10) -> None:
    """Let whatever can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


class Crowd:
    """Calls of several keys that take slots, run until they are told to end, and give them back."""

    def __init__(self, limit: int, places: int) -> None:
        self.slots = Slots(limit, places)
        self.limit, self.places = limit, places
        self.running: list[tuple[str, asyncio.Future[bool]]] = []  # set to whether the upstream was full
        self.tasks: list[asyncio.Task[None]] = []
        self.served: list[str] = []  # keys, in the order in which they got a slot after waiting
        self.again = 0  # calls that wait for a slot once more
        self.turned_away: list[str] = []

    async def call(self, key: str) -> None:
        slots = self.slots
        if not slots.take(key):
            try:
                await slots.wait(key, LONG)
            except Overloaded:
                self.turned_away.append(key)
                return
            self.served.append(key)
        while True:
            gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self.running.append((key, gate))
            try:
                full = await gate
            except BaseException:
                slots.free(key)
                raise
            finally:
                self.running.remove((key, gate))
            if not full or slots.taken < 2:
                slots.free(key)
                return
            slots.refused(key)
            self.again += 1
            try:
                await slots.wait(key, LONG, first=True)
            finally:
                self.again -= 1

    def check(self) -> None:
        """What holds at every moment."""
        assert len(self.running) <= self.slots.taken <= self.limit
        assert self.slots.waiting <= self.places + self.again

    async def act(self, action: str, number: int, group: asyncio.TaskGroup) -> None:
        if action == "ask":
            self.tasks.append(group.create_task(self.call(KEYS[number % len(KEYS)])))
        elif action == "cancel" and self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
        elif action in ("end", "full") and self.running:
            gate = self.running[number % len(self.running)][1]
            if not gate.done():
                gate.set_result(action == "full")
        elif action == "settle":
            await turns()
            assert not self.slots.waiting or self.slots.full  # no slot lies idle while somebody waits
        else:
            await asyncio.sleep(0)


ACTIONS = st.sampled_from(["ask", "ask", "ask", "cancel", "end", "end", "full", "step", "settle"])
SCHEDULES = st.lists(st.tuples(ACTIONS, st.integers(0, 50)), max_size=60)


@given(SCHEDULES, st.integers(1, 4), st.integers(0, 6))
def test_no_slot_is_lost_or_given_twice(schedule: Sequence[tuple[str, int]], limit: int, places: int) -> None:
    async def play() -> None:
        crowd = Crowd(limit, places)
        async with asyncio.TaskGroup() as group:
            for action, number in schedule:
                await crowd.act(action, number, group)
                crowd.check()
            await turns()
            while crowd.running or crowd.slots.waiting:
                assert crowd.running  # else somebody waits for a slot that nobody will give back
                for _, gate in crowd.running:
                    if not gate.done():
                        gate.set_result(False)
                await turns()
        assert (crowd.slots.taken, crowd.slots.waiting) == (0, 0)
        assert crowd.slots.take("a")

    asyncio.run(play())


class Queue:
    """Waiters of several keys; ``got`` and ``refused`` are who was told what, in that order.

    ``first`` are the priorities of those keys whose is not 0.
    """

    def __init__(self, slots: Slots, group: asyncio.TaskGroup, **first: int) -> None:
        self.first = first
        self.slots = slots
        self.group = group
        self.waiting: list[tuple[str, int]] = []
        self.got: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []

    async def ask(self, *keys: str) -> None:
        for key in keys:
            self.group.create_task(self._wait((key, len(self.waiting) + len(self.got))))
            await turns(2)

    async def free(self, key: str) -> tuple[str, int]:
        """Give a slot of this key back; who gets it."""
        before = len(self.got)
        self.slots.free(key)
        await turns(3)
        [got] = self.got[before:]
        return got

    async def _wait(self, who: tuple[str, int]) -> None:
        self.waiting.append(who)
        try:
            await self.slots.wait(who[0], LONG, priority=self.first.get(who[0], 0))
            self.got.append(who)
        except Overloaded:
            self.refused.append(who)
        finally:
            self.waiting.remove(who)


@given(st.integers(1, 5), st.lists(st.sampled_from(KEYS), max_size=20), st.data())
def test_a_slot_goes_to_the_key_that_holds_fewest_first_come_first_served(
    limit: int, asking: list[str], data: st.DataObject
) -> None:
    async def play() -> None:
        slots = Slots(limit, 100)
        held = ["a"] * limit
        assert [slots.take("a") for _ in range(limit + 1)] == [True] * limit + [False]
        async with asyncio.TaskGroup() as group:
            queue = Queue(slots, group)
            await queue.ask(*asking)
            while queue.waiting:
                ended = held.pop(data.draw(st.integers(0, limit - 1)))
                waiting, counts = list(queue.waiting), Counter(held)
                key, number = await queue.free(ended)
                assert counts[key] == min(counts[other] for other, _ in waiting)
                assert number == min(each for other, each in waiting if other == key)
                held.append(key)

    asyncio.run(play())


@pytest.mark.parametrize("limit", [1, 2, 8])
async def test_a_key_that_floods_delays_another_by_one_slot_at_most(limit: int) -> None:
    slots = Slots(limit, 1000)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group)
        assert all(slots.take("flood") for _ in range(limit))
        await queue.ask(*["flood"] * 50, "other")
        freed = [await queue.free("flood"), await queue.free("flood")]
        assert ("other", 50) in freed
        assert limit == 1 or freed[0] == ("other", 50)
        while queue.waiting:
            await queue.free(queue.got[-1][0])


async def test_keys_that_hold_as_many_take_turns() -> None:
    slots = Slots(1, 100)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group)
        assert slots.take("z")
        await queue.ask(*"aaabbbc")
        served = ["z"]
        while queue.waiting:
            served.append((await queue.free(served[-1]))[0])
        assert served[1:] == list("abcabab")


# --- a full queue ---


async def test_the_newest_of_the_key_that_fills_the_queue_gives_way() -> None:
    slots = Slots(1, 4)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group)
        assert slots.take("flood")
        await queue.ask(*["flood"] * 4, "other")
        assert queue.refused == [("flood", 3)]
        await queue.ask("other", "other")  # one more gives way, and then both keys have as many
        assert [key for key, _ in queue.refused] == ["flood", "flood", "other"]
        await queue.ask("flood")
        assert [key for key, _ in queue.refused] == ["flood", "flood", "other", "flood"]
        assert slots.waiting == 4
        while queue.waiting:
            await queue.free("flood" if not queue.got else queue.got[-1][0])


@given(st.integers(1, 6), st.lists(st.sampled_from(KEYS), max_size=30))
def test_a_full_queue_is_shared_fairly_and_never_overflows(places: int, asking: list[str]) -> None:
    async def play() -> None:
        slots = Slots(1, places)
        assert slots.take("z")
        async with asyncio.TaskGroup() as group:
            queue = Queue(slots, group)
            for key in asking:
                before = Counter(waiter for waiter, _ in queue.waiting)
                refused = len(queue.refused)
                await queue.ask(key)
                assert slots.waiting == len(queue.waiting) <= places
                if len(queue.refused) > refused:
                    [(turned_away, _)] = queue.refused[refused:]
                    assert sum(before.values()) == places
                    assert turned_away == key or before[turned_away] > before[key] + 1
                    assert turned_away != key or before[key] + 1 >= max(before.values())
            holder = "z"
            while queue.waiting:
                holder = (await queue.free(holder))[0]

    asyncio.run(play())


# --- priorities ---


async def test_a_free_slot_goes_to_the_highest_priority_and_among_equals_as_ever() -> None:
    slots = Slots(1, 100)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group, boss=5, batch=-5)
        assert slots.take("z")
        await queue.ask("batch", *"aab", *["boss"] * 3)
        served = ["z"]
        while queue.waiting:
            served.append((await queue.free(served[-1]))[0])
        assert served[1:] == ["boss", "boss", "boss", "a", "b", "a", "batch"]


async def test_a_priority_that_changes_counts_from_the_next_request_on() -> None:
    slots = Slots(1, 100)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group)
        assert slots.take("z")
        await queue.ask("a", "b")
        queue.first["b"] = 1
        await queue.ask("b")
        served = ["z"]
        while queue.waiting:
            served.append((await queue.free(served[-1]))[0])
        assert served[1:] == ["b", "b", "a"]


async def test_in_a_full_queue_a_lower_priority_gives_way_and_a_higher_never_does() -> None:
    slots = Slots(1, 3)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group, boss=5, batch=-5)
        assert slots.take("z")
        await queue.ask("batch", "a", "a", "boss")
        assert queue.refused == [("batch", 0)]
        await queue.ask("boss", "boss")
        assert [key for key, _ in queue.refused] == ["batch", "a", "a"]
        await queue.ask("a", "batch")  # all that wait go before them
        assert [key for key, _ in queue.refused] == ["batch", "a", "a", "a", "batch"]
        assert [key for key, _ in queue.waiting] == ["boss"] * 3
        while queue.waiting:
            await queue.free("z" if not queue.got else queue.got[-1][0])


# --- an upstream that is full before its limit ---


async def test_the_limit_yields_by_what_was_refused_and_comes_back_with_calls_that_end() -> None:
    slots = Slots(10, 10)
    assert all(slots.take("a") for _ in range(10))
    for left in (9, 8, 7):
        slots.refused("a")
        assert (slots.taken, slots.full) == (left, True)
    needed = 0
    while not (slots.taken == 10 and slots.full):
        slots.free("a")
        needed += 1
        while slots.take("a"):
            pass
        assert slots.taken <= 10
    assert 7 < needed <= 7 + 8 + 9 + 3  # one more for each round of the limit, not at once


async def test_the_limit_never_falls_below_one() -> None:
    slots = Slots(3, 10)
    for _ in range(5):
        assert slots.take("a")
        slots.refused("a")
    assert slots.take("a")
    assert not slots.take("a")
    slots.free("a")


async def test_who_was_refused_goes_first_of_its_key_even_where_the_queue_is_full() -> None:
    slots = Slots(3, 1)
    async with asyncio.TaskGroup() as group:
        queue = Queue(slots, group)
        assert all(slots.take("a") for _ in range(3))
        await queue.ask("a")
        slots.refused("a")
        again = group.create_task(slots.wait("a", LONG, first=True))
        await turns()
        assert (slots.taken, slots.waiting) == (2, 2)
        slots.free("a")
        await turns()
        assert again.done()
        assert queue.got == []
        await queue.free("a")


@pytest.mark.parametrize("evicted", [False, True])
async def test_who_leaves_as_it_is_told_costs_no_slot(evicted: bool) -> None:
    slots = Slots(1, 2)
    assert slots.take("a")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(slots.wait("b", LONG)) for _ in range(2)]
        await turns()
        if evicted:
            group.create_task(slots.wait("c", LONG))
            await asyncio.sleep(0)  # it has told the second, which did not run since
            tasks[1].cancel()
        else:
            slots.free("a")
            tasks[0].cancel()
        await turns()
        for key in "ab" if evicted else "":
            slots.free(key)
            await turns()
        assert slots.waiting == 0
    assert slots.taken == 1
    assert tasks[1 if evicted else 0].cancelled()
