"""One upstream as the gateway keeps it: who gets a slot, how a container is waited for, who asks for one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core.call import PromptCall
from gateway.core.errors import GatewayError, NoContainer, Overloaded, UpstreamError
from gateway.core.events import Batch
from gateway.routing.circuit import FAILURES, SHORTEST
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.routing.visit import Visit as Passage
from tests.serve.house import HELLO, Scripted, soon

CALL = PromptCall("hi", {})
COLD = NoContainer("cold", retry="elsewhere")


def target(inner: Scripted, bounds: Bounds) -> Target:
    return Target(inner, bounds, time.monotonic)


async def run(upstream: Target, passage: Passage | None = None) -> list[Batch]:
    return [batch async for batch in upstream.events(CALL, passage or Passage())]


async def until(met: Callable[[], bool]) -> None:
    """Let the other tasks run until this is so."""
    while not met():  # noqa: ASYNC110 - of these things nobody tells
        await asyncio.sleep(0)


async def refusal(awaitable: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await soon(awaitable)
    return caught.value


async def test_only_so_many_calls_run_at_once_first_come_first_served() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    inner = Scripted("a", *([gate.wait, *HELLO] for gate in gates))
    upstream = target(inner, Bounds(2, 8, 60.0))
    ended: list[int] = []

    async def one(index: int) -> None:
        await run(upstream)
        ended.append(index)

    async with asyncio.TaskGroup() as group:
        for index in range(4):
            group.create_task(one(index))
        await soon(until(lambda: upstream.pending == 4))
        for index, gate in enumerate(gates):
            assert len(inner.calls) == min(4, 2 + index)
            gate.set()
            met = (index + 1, min(4, 3 + index))
            await soon(until(lambda met=met: (len(ended), len(inner.calls)) == met))
    assert ended == [0, 1, 2, 3]
    assert upstream.pending == 0


@pytest.mark.parametrize("places", [0, 1, 3])
async def test_only_so_many_calls_may_wait(places: int) -> None:
    go = asyncio.Event()
    upstream = target(Scripted("a", [go.wait, *HELLO]), Bounds(1, places, 60.0))
    async with asyncio.TaskGroup() as group:
        for _ in range(1 + places):
            group.create_task(run(upstream))
        await soon(until(lambda: upstream.pending == 1 + places))
        error = await refusal(run(upstream))
        assert isinstance(error, Overloaded)
        assert (error.status, error.code, error.headers["retry-after"]) == (429, "queue_full", "5")
        assert upstream.pending == 1 + places
        go.set()
    assert upstream.pending == 0


async def test_who_waited_too_long_is_refused_and_leaves_the_queue() -> None:
    go = asyncio.Event()
    inner = Scripted("a", [go.wait, *HELLO])
    upstream = target(inner, Bounds(1, 1, 0.001))
    async with asyncio.TaskGroup() as group:
        group.create_task(run(upstream))
        await soon(inner.asked.wait())
        for _ in range(2):
            assert "in time" in (await refusal(run(upstream))).message
        assert upstream.pending == 1
        go.set()
    assert len(inner.calls) == 1


async def test_a_waiter_that_is_cancelled_gives_its_place_to_the_next() -> None:
    go = asyncio.Event()
    inner = Scripted("a", [go.wait, *HELLO], HELLO)
    upstream = target(inner, Bounds(1, 2, 60.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(run(upstream))
        await soon(inner.asked.wait())
        leaving, staying = group.create_task(run(upstream)), group.create_task(run(upstream))
        await soon(until(lambda: upstream.pending == 3))
        leaving.cancel()
        await asyncio.wait([leaving])
        assert upstream.pending == 2
        another = group.create_task(run(upstream))  # the queue has a place again
        await soon(until(lambda: upstream.pending == 3))
        go.set()
        assert await soon(staying) == await soon(another) == list(HELLO)
    assert upstream.pending == 0


@pytest.mark.parametrize("called", [True, False])
async def test_a_waiter_that_is_cancelled_as_a_slot_comes_free_hands_it_on(called: bool) -> None:
    upstream = target(Scripted("a"), Bounds(1, 2, 60.0))
    async with asyncio.TaskGroup() as group:
        holder = upstream.events(CALL, Passage())
        await anext(holder)
        leaving, staying = group.create_task(run(upstream)), group.create_task(run(upstream))
        await soon(until(lambda: upstream.pending == 3))
        if called:  # the slot is the first one's, which could not run since
            await holder.aclose()
            leaving.cancel()
        else:  # the first one is leaving, and could not say so yet
            leaving.cancel()
            await holder.aclose()
        assert await soon(staying) == list(HELLO)
    assert leaving.cancelled()
    assert upstream.pending == 0


@pytest.mark.parametrize("ending", ["answer", "failure", "closed"])
async def test_a_slot_lives_as_long_as_its_call(ending: str) -> None:
    turn = [[], UpstreamError("x")] if ending == "failure" else [[], *HELLO]
    upstream = target(Scripted("a", turn), Bounds(1, 0, 60.0))
    events = upstream.events(CALL, Passage())
    assert upstream.pending == 0
    await anext(events)
    assert upstream.pending == 1
    if ending == "closed":
        await events.aclose()
    else:
        with pytest.raises(UpstreamError if ending == "failure" else StopAsyncIteration):
            while True:
                await anext(events)
    assert upstream.pending == 0


async def test_a_container_is_waited_for_in_the_slot() -> None:
    pending: list[int] = []

    async def look() -> None:
        pending.append(upstream.pending)

    inner = Scripted("a", [COLD], [COLD], [look, *HELLO])
    upstream = target(inner, Bounds(1, 0, 60.0, first_event=60.0, poll=0.0))
    assert await soon(run(upstream)) == list(HELLO)
    assert (len(inner.calls), pending, upstream.pending) == (3, [1], 0)


async def test_a_container_is_not_waited_for_by_who_is_impatient() -> None:
    inner = Scripted("a", [COLD], HELLO)
    refused = await refusal(run(target(inner, Bounds(1, 0, 60.0)), Passage(patient=False)))
    assert (type(refused), refused.headers) == (NoContainer, {"retry-after": "5"})
    assert len(inner.calls) == 1


async def test_a_container_is_not_waited_for_where_no_other_look_fits() -> None:
    inner = Scripted("a", [COLD], HELLO)
    bounds = Bounds(1, 0, 60.0, first_event=0.01, poll=60.0)
    assert isinstance(await refusal(run(target(inner, bounds))), NoContainer)
    assert len(inner.calls) == 1


async def test_a_container_is_waited_for_until_the_deadline() -> None:
    inner = Scripted("a", [COLD])
    upstream = target(inner, Bounds(1, 0, 60.0, first_event=0.3, poll=0.001))
    assert isinstance(await refusal(run(upstream)), NoContainer)
    assert len(inner.calls) > 1
    assert upstream.pending == 0


async def test_other_failures_are_not_waited_for() -> None:
    inner = Scripted("a", [UpstreamError("broken")], HELLO)
    upstream = target(inner, Bounds(1, 0, 60.0, first_event=60.0, poll=0.0))
    assert (await refusal(run(upstream))).message == "broken"


async def test_who_will_not_wait_does_not_wait_for_a_container_that_goes_while_it_queues() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    inner = Scripted("a", *([[], gate.wait, *HELLO] for gate in gates), [COLD])
    upstream = target(inner, Bounds(2, 8, 60.0, first_event=60.0, poll=60.0))
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(upstream)) for _ in gates]
        await soon(until(lambda: upstream.state() == "saturated"))
        patient = group.create_task(run(upstream))
        await soon(until(lambda: upstream.slots.waiting == 1))
        impatient = group.create_task(refusal(run(upstream, Passage(patient=False))))
        await soon(until(lambda: upstream.slots.waiting == 2))
        gates[0].set()  # its slot is the patient one's, which finds no container
        await soon(until(lambda: len(inner.calls) == 3))
        gates[1].set()
        assert isinstance(await soon(impatient), NoContainer)
        assert len(inner.calls) == 3
        patient.cancel()
        assert [await soon(task) for task in running] == [[[], *HELLO]] * 2
    assert upstream.pending == 0


@pytest.mark.parametrize("events", [0, 3])
async def test_answers_that_break_off_open_the_circuit_wherever_they_do(events: int) -> None:
    broken = UpstreamError("broken", retry="elsewhere")
    upstream = target(Scripted("a", [*[HELLO[0][:1]] * events, broken]), Bounds(8, 8, 60.0))  # type: ignore[index]
    for number in range(30):
        assert upstream.closed() == (number < FAILURES)
        await refusal(run(upstream))


async def test_an_answer_whose_reader_had_enough_is_a_success() -> None:
    broken = UpstreamError("broken", retry="elsewhere")
    inner = Scripted("a", *[[broken], [*HELLO, *HELLO]] * FAILURES)
    upstream = target(inner, Bounds(8, 8, 60.0))
    for _ in range(FAILURES):
        await refusal(run(upstream))
        events = upstream.events(CALL, Passage())
        await anext(events)
        await events.aclose()
    assert upstream.closed()


async def test_a_trial_that_begins_to_answer_makes_room_for_the_next() -> None:
    go = asyncio.Event()
    broken = UpstreamError("broken", retry="elsewhere")
    inner = Scripted("a", *[[broken]] * FAILURES, [[], go.wait, *HELLO])
    now = 0.0
    upstream = Target(inner, Bounds(8, 8, 60.0), lambda: now)
    for _ in range(FAILURES):
        await refusal(run(upstream))
    now = SHORTEST
    async with asyncio.TaskGroup() as group:
        trial = group.create_task(run(upstream))
        await soon(until(lambda: upstream.closed() and upstream.pending == 1))
        go.set()
        await soon(trial)
    await refusal(run(Target(Scripted("b", [broken]), Bounds(8, 8, 60.0), lambda: now)))
    assert upstream.closed()


async def test_a_call_that_leaves_ends_nobody_elses_trial() -> None:
    go = asyncio.Event()
    broken = UpstreamError("broken", retry="elsewhere")
    inner = Scripted("a", *[[broken]] * FAILURES, [go.wait, *HELLO])
    now = 0.0
    upstream = Target(inner, Bounds(8, 8, 60.0), lambda: now)
    for _ in range(FAILURES):
        await refusal(run(upstream))
    assert not upstream.closed()
    now = SHORTEST
    async with asyncio.TaskGroup() as group:
        trial, other = group.create_task(run(upstream)), group.create_task(run(upstream))
        await soon(until(lambda: upstream.pending == 2))
        other.cancel()
        await asyncio.wait([other])
        assert not upstream.closed()
        trial.cancel()
        await asyncio.wait([trial])
        assert upstream.closed()
