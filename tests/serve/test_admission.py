"""How many calls an upstream gets, who waits for that and how long, and what becomes of those who do not
stay to the end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from gateway.app import build_app
from gateway.core.call import PromptCall
from gateway.core.errors import GatewayError, NoContainer, Overloaded, UpstreamError
from gateway.core.events import Batch
from gateway.routing.target import Bounds, Target
from gateway.routing.target import Visit as Passage
from gateway.settings import settings_from
from tests.serve.house import (
    HELLO,
    Desk,
    House,
    Scripted,
    Visit,
    container,
    deployed,
    faster,
    house,
    listening,
    soon,
)
from tests.serve.test_chat import ASK, greet, post

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
    upstream = target(inner, Bounds(1, 0, 60.0, first_event=0.03, poll=0.001))
    assert isinstance(await refusal(run(upstream)), NoContainer)
    assert len(inner.calls) > 1
    assert upstream.pending == 0


async def test_other_failures_are_not_waited_for() -> None:
    inner = Scripted("a", [UpstreamError("broken")], HELLO)
    upstream = target(inner, Bounds(1, 0, 60.0, first_event=60.0, poll=0.0))
    assert (await refusal(run(upstream))).message == "broken"


# --- from the config ---


async def test_the_config_bounds_the_calls_and_the_queue() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(visit: Visit) -> None:
        arrived.set()
        await soon(go.wait())
        await greet(visit)

    async with (
        house(hold, upstream={"max_concurrency": 1, "max_queue": 1}) as at,
        asyncio.TaskGroup() as group,
    ):
        first = group.create_task(post(at))
        await soon(arrived.wait())
        two = [group.create_task(post(at)) for _ in range(2)]
        await soon(asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED))
        assert len(at.container.visits) == 1
        go.set()
        codes = sorted([(await soon(each)).status_code for each in (first, *two)])
        assert codes == [200, 200, 429]
        assert len(at.container.visits) == 2


async def test_the_config_bounds_the_time_in_the_queue() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(visit: Visit) -> None:
        arrived.set()
        await soon(go.wait())
        await greet(visit)

    bounds = {"max_concurrency": 1, "queue_timeout": 0.01}
    async with house(hold, upstream=bounds) as at, asyncio.TaskGroup() as group:
        first = group.create_task(post(at))
        await soon(arrived.wait())
        late = await soon(post(at))
        assert late.status_code == 429
        assert "in time" in late.json()["error"]["message"]
        go.set()
        assert (await first).status_code == 200


class Cold:
    """A container that is not ready for the first ``times`` visits of ``/m``."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.paths: list[str] = []
        self.posted: list[str] = []

    async def __call__(self, visit: Visit) -> None:
        self.paths.append(visit.path)
        if visit.method == "POST":
            self.posted.append(visit.path)
        if visit.path == "/m" and self.paths.count("/m") <= self.times:
            await visit.answer(b"", status="503 Service Unavailable", kind="text/plain")
        else:
            await greet(visit)


async def cold_answer(script: Cold, cold: str) -> httpx.Response:
    """The answer of a model with a fallback, whose container is not ready; an hour of waiting is a moment."""
    async with container(script) as behind:
        url = f"http://127.0.0.1:{behind.port}"
        upstream = {"connect_timeout": 3600, "first_event_timeout": 3600, "idle_timeout": 3600}
        models = {
            "m": {"upstream": {"url": url + "/m", **upstream}, "cold": cold, "fallback": ["spare"]},
            "spare": {"upstream": {"url": url + "/spare", **upstream}},
        }
        config = {"auth": {"mode": "none"}, "models": models}
        async with listening(build_app(settings_from(config, {}))) as port, httpx.AsyncClient() as client:
            with faster(50) as bound:
                ask = client.post(House(port, behind).url + "/chat/completions", json=ASK, timeout=None)
                return await soon(ask, bound)


async def test_a_model_that_waits_is_asked_again_until_its_container_is_ready() -> None:
    script = Cold(1)
    assert (await cold_answer(script, "wait")).status_code == 200
    assert script.paths == ["/m", "/m"]


async def test_a_model_that_falls_back_does_so_at_once() -> None:
    script = Cold(1)
    assert (await cold_answer(script, "fallback")).status_code == 200
    assert script.posted == ["/spare"]
    assert "/m" in script.paths  # it was asked for a container


async def test_a_model_that_fails_when_cold_tells_the_client() -> None:
    script = Cold(1)
    answer = await cold_answer(script, "fail")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "upstream_cold"
    assert answer.headers["retry-after"] == "5"
    assert script.posted == []
    assert "/m" in script.paths


async def test_the_end_of_the_server_closes_the_connections_to_the_containers() -> None:
    closed = asyncio.Event()

    async def watched(visit: Visit) -> None:
        await greet(visit)
        await soon(visit.until_closed())
        closed.set()

    async with container(watched) as behind:
        config = {
            "auth": {"mode": "none"},
            "models": {"m": {"upstream": {"url": f"http://127.0.0.1:{behind.port}"}}},
        }
        async with listening(build_app(settings_from(config, {}))) as port:
            assert (await post(House(port, behind))).status_code == 200
            assert not closed.is_set()  # the connection is kept for the next call
        await soon(closed.wait())


# --- those who do not stay ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_before_any_answer_is_counted_as_499(stream: bool) -> None:
    silent = Scripted("a", [asyncio.Event().wait])
    desk = Desk(deployed(silent))
    line = desk.line(stream=stream)
    async with asyncio.TaskGroup() as group:
        served = group.create_task(desk.take(line))
        await soon(silent.asked.wait())
        line.left.set()
        await soon(served)
    assert line.said == []
    [record] = desk.records
    assert (record.status, record.code, record.client_left) == (499, None, True)
    assert desk.counted('modal_gateway_requests_total{model="m",route="chat",status="499"} 1.0')


async def test_an_answer_that_the_end_of_the_server_cancels_is_a_503() -> None:
    silent = Scripted("a", [asyncio.Event().wait])
    desk = Desk(deployed(silent))
    line = desk.line()
    async with asyncio.TaskGroup() as group:
        served = group.create_task(desk.take(line))
        await soon(silent.asked.wait())
        served.cancel()
    assert served.cancelled()
    assert (line.status, line.error["code"]) == (503, "shutting_down")
    [record] = desk.records
    assert (record.status, record.code, record.client_left) == (503, "shutting_down", False)
    assert desk.counted('modal_gateway_requests_total{model="m",route="chat",status="503"} 1.0')
    assert desk.counted('modal_gateway_errors_total{code="shutting_down",model="m"} 1.0')
