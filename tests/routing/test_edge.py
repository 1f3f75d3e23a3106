"""A target before an edge without a queue, over real sockets: who asks for a container, and who waits."""

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from gateway.core import modal
from gateway.core.call import PromptCall
from gateway.core.errors import NoContainer, UpstreamTimeout
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.routing.visit import Visit as Passage
from gateway.upstreams.kinds import build
from gateway.upstreams.prompt import PromptConfig
from tests.routing.test_target import refusal, until
from tests.serve.house import Container, Visit, container, faster, soon

pytestmark = pytest.mark.slow


class Edge:
    """Answers 503 until it is ``ready``, 429 to more than ``room`` at once; notes who asked when."""

    def __init__(self, *, polls: int = 0, room: int = 1000, latency: float = 0.0) -> None:
        self.polls = polls  # refusals before a container is ready
        self.room = room
        self.latency = latency  # seconds until it says anything
        self.breaks: set[int] = set()  # questions, counted from 1, that it answers 502
        self.asked: list[tuple[float, str]] = []  # when, by the loop's clock, and the prompt
        self.generated: list[str] = []
        self.go = asyncio.Event()  # answers wait for it
        self.go.set()
        self._running = 0

    async def __call__(self, visit: Visit) -> None:
        prompt = visit.json.get("prompt", "")
        self.asked.append((asyncio.get_running_loop().time(), prompt))
        number = len(self.asked)
        if self.latency:
            await asyncio.sleep(self.latency)
        if number in self.breaks:
            await visit.answer(b"<html>", status="502 Bad Gateway", kind="text/html")
        elif number <= self.polls:
            await visit.answer(b"", status="503 Service Unavailable", kind="text/plain")
        elif self._running >= self.room:
            await visit.answer(b"", status="429 Too Many Requests", kind="text/plain")
        else:
            self._running += 1
            await self.go.wait()
            self.generated.append(prompt)
            self._running -= 1
            await visit.answer({"prompt": "hello"})

    @property
    def gaps(self) -> list[float]:
        """Seconds between two questions."""
        times = [at for at, _ in self.asked]
        return [later - earlier for earlier, later in pairwise(times)]


@asynccontextmanager
async def before(edge: Edge, bounds: Bounds) -> AsyncIterator[tuple[Target, Container]]:
    """A target whose upstream is this edge, with a clock of its own: the loop's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what other tests left
        gc.collect()  # in between, that would hold up a clock that runs fast
    async with container(edge) as behind:
        config = PromptConfig(url=f"http://127.0.0.1:{behind.port}/", connect_timeout=3600)
        inner = build("m", config, model="m", at="models.m.upstream")
        loop = asyncio.get_running_loop()
        upstream = Target(inner, bounds, lambda: loop.time())  # which `faster` replaces
        try:
            yield upstream, behind
        finally:
            await upstream.aclose()


async def said(upstream: Target, prompt: str, passage: Passage | None = None) -> str:
    batches = [batch async for batch in upstream.events(PromptCall(prompt, {}), passage or Passage())]
    return "".join(getattr(event, "text", "") for batch in batches for event in batch)


ABOUT_A_SECOND = 0.8  # seconds: a question that was held up on its way is close to the next
PATIENT = Bounds(100, 1000, 3600.0, first_event=3600.0)


async def test_one_call_asks_each_second_and_all_are_answered_once() -> None:
    edge = Edge(polls=10)
    prompts = [f"call {number}" for number in range(200)]
    async with before(edge, PATIENT) as (upstream, _):
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(said(upstream, prompts[0]))]
                await soon(until(lambda: upstream.state() == "booting"), bound)
                calls += [group.create_task(said(upstream, prompt)) for prompt in prompts[1:]]
                answers = [await soon(call, bound) for call in calls]
    assert answers == ["hello"] * 200
    assert sorted(edge.generated) == sorted(prompts)
    assert [prompt for _, prompt in edge.asked[:11]] == [prompts[0]] * 11
    assert min(edge.gaps[:10]) >= ABOUT_A_SECOND
    assert len(edge.asked) == 10 + 200
    assert (upstream.pending, upstream.life.boots.count) == (0, 1)


async def test_who_asks_and_leaves_is_followed_by_another() -> None:
    edge = Edge(polls=6)
    async with before(edge, PATIENT) as (upstream, _):
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(said(upstream, "first"))
                await soon(until(lambda: upstream.state() == "booting"), bound)
                others = [group.create_task(said(upstream, f"other {number}")) for number in range(20)]
                await soon(until(lambda: len(edge.asked) == 3), bound)
                first.cancel()
                assert [await soon(other, bound) for other in others] == ["hello"] * 20
    askers = [prompt for _, prompt in edge.asked[:7]]
    assert askers[:3] == ["first"] * 3
    assert len(set(askers[4:])) == 1  # the fourth may still have been on its way
    assert "first" not in edge.generated
    assert min(edge.gaps[:6]) >= ABOUT_A_SECOND
    assert upstream.pending == 0


async def together(upstream: Target, count: int, bound: float) -> list[str | BaseException]:
    """What so many calls that come at once are told."""
    calls = (said(upstream, f"call {number}") for number in range(count))
    return await soon(asyncio.gather(*calls, return_exceptions=True), bound)


async def test_one_call_asks_an_edge_that_takes_longer_than_a_second_to_refuse() -> None:
    crowd, polls = 60, 6
    edge = Edge(polls=crowd + polls, latency=1.3)
    async with before(edge, PATIENT) as (upstream, _):
        with faster(10) as bound:
            assert await together(upstream, crowd, bound) == ["hello"] * crowd
    times = [at for at, _ in edge.asked]
    assert min(edge.gaps[crowd : crowd + polls - 1]) >= ABOUT_A_SECOND
    assert times[crowd] - times[crowd - 1] >= ABOUT_A_SECOND
    assert len(edge.asked) == crowd + polls + crowd


@pytest.mark.parametrize("state", ["unknown", "cold", "booting"])
async def test_the_first_of_a_crowd_asks_alone_where_the_edge_is_known_to_refuse(state: str) -> None:
    edge = Edge(polls={"unknown": 0, "cold": 1, "booting": 1000}[state])
    known = state == "unknown"
    bounds = Bounds(100, 1000, 3600.0, first_event=3600.0, window=5.0, sleeps=True, refuses=known)
    async with before(edge, bounds) as (upstream, _):
        with faster(10) as bound:
            if state == "cold":
                assert await soon(said(upstream, "x"), bound) == "hello"
                await asyncio.sleep(6.0)  # its container has gone
            elif state == "booting":
                async with asyncio.TaskGroup() as group:
                    leaves = group.create_task(said(upstream, "x"))
                    await soon(until(lambda: upstream.state() == "booting"), bound)
                    leaves.cancel()
            assert upstream.state() == state
            edge.asked.clear()
            edge.polls = 4
            assert await together(upstream, 60, bound) == ["hello"] * 60
    assert len({prompt for _, prompt in edge.asked[:5]}) == 1
    assert len(edge.asked) == 4 + 60


async def test_a_crowd_goes_with_the_first_answer_where_a_container_was_there() -> None:
    edge = Edge()
    async with before(edge, Bounds(100, 1000, 3600.0, first_event=3600.0, refuses=True)) as (upstream, _):
        began = asyncio.get_running_loop().time()
        impatient = said(upstream, "impatient", Passage(patient=False))
        answers = await soon(asyncio.gather(*(said(upstream, "x") for _ in range(20)), impatient))
        assert answers == ["hello"] * 21
        assert asyncio.get_running_loop().time() - began < 1.0
        assert len(edge.asked) == 21


async def test_a_failure_of_who_asks_costs_no_other_call() -> None:
    edge = Edge(polls=8)
    edge.breaks = {3, 5, 6}
    async with before(edge, PATIENT) as (upstream, _):
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(together(upstream, 1, bound))
                await soon(until(lambda: upstream.state() == "booting"), bound)
                rest = group.create_task(together(upstream, 40, bound))
    answers = [*first.result(), *rest.result()]
    assert sorted(map(str, answers))[:3] == ["The upstream failed."] * 3
    assert answers.count("hello") == 38
    assert len(edge.asked) == 8 + 38
    assert min(edge.gaps[:7]) >= ABOUT_A_SECOND
    assert upstream.pending == 0


async def test_nobody_asks_once_all_have_left_and_the_next_call_starts_anew() -> None:
    edge = Edge(polls=1000)
    async with before(edge, PATIENT) as (upstream, _):
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(said(upstream, "x")) for _ in range(10)]
                await soon(until(lambda: len(edge.asked) >= 12), bound)
                for call in calls:
                    call.cancel()
            assert upstream.pending == 0
            asked = len(edge.asked)
            await asyncio.sleep(3)
            assert len(edge.asked) <= asked + 1
            edge.polls = len(edge.asked) + 2
            assert await soon(said(upstream, "new"), bound) == "hello"
    assert edge.generated == ["new"]


async def test_a_call_that_an_edge_has_no_room_for_waits_for_one_that_ends() -> None:
    edge = Edge(room=1)
    edge.go.clear()
    async with before(edge, PATIENT) as (upstream, _), asyncio.TaskGroup() as group:
        calls = [group.create_task(said(upstream, f"call {number}")) for number in range(3)]
        await soon(until(lambda: upstream.slots.taken == 1 and upstream.slots.waiting == 2))
        edge.go.set()
        assert [await soon(call) for call in calls] == ["hello"] * 3
    assert sorted(edge.generated) == ["call 0", "call 1", "call 2"]
    assert upstream.pending == 0


async def test_calls_that_meet_a_full_container_after_a_long_boot_wait_for_it() -> None:
    edge = Edge(polls=6, room=1)
    edge.go.clear()
    async with before(edge, Bounds(8, 8, 4.0, first_event=3600.0)) as (upstream, _):
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(said(upstream, "first"))
                await soon(until(lambda: upstream.state() == "booting"), bound)
                rest = group.create_task(together(upstream, 5, bound))
                await soon(until(lambda: upstream.slots.waiting > 0), bound)
                edge.go.set()
                assert await rest == ["hello"] * 5
                assert await first == "hello"
    assert upstream.pending == 0


async def test_the_time_behind_a_full_container_is_time_in_the_queue() -> None:
    go = asyncio.Event()
    running = 0

    async def one_at_a_time(visit: Visit) -> None:
        nonlocal running
        if len(behind.visits) <= 3 or running:
            status = "503 No" if len(behind.visits) <= 3 else "429 Full"
            await visit.answer(b"", status=status, kind="text/plain")
            return
        running += 1
        await visit.start_stream()
        await visit.event({"prompt": "hel"})
        await go.wait()
        running -= 1
        await visit.event({"prompt": "lo", "finish_reason": "stop"})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with before(Edge(), Bounds(8, 8, 60.0, first_event=6.0)) as (upstream, behind):
        behind.script = one_at_a_time
        passages = [Passage(), Passage()]
        with faster(10) as bound:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(said(upstream, "x", passage)) for passage in passages]
                await soon(until(lambda: upstream.slots.waiting == 1), bound)
                await asyncio.sleep(8.0)  # longer than its first event may take
                go.set()
                assert [await soon(call, bound) for call in calls] == ["hello"] * 2
    short, long = sorted(passage.queued for passage in passages)
    assert short < 1.0
    assert 8.0 <= long < 20.0


async def test_a_call_that_an_edge_has_no_room_for_alone_fails() -> None:
    async with before(Edge(room=0), PATIENT) as (upstream, _):
        error = await refusal(said(upstream, "x"))
        assert (error.status, error.code) == (429, "upstream_rate_limited")
        assert int(error.headers["retry-after"]) > 0
        assert upstream.pending == 0


async def test_the_wait_for_a_container_ends_in_a_503_that_says_when_to_come_again() -> None:
    edge = Edge(polls=1000)
    async with before(edge, Bounds(8, 8, 60.0, first_event=4.0)) as (upstream, _):
        with faster(20) as bound, pytest.raises(NoContainer) as caught:
            began = asyncio.get_running_loop().time()
            await soon(said(upstream, "x"), bound)
        took = asyncio.get_running_loop().time() - began
    assert (caught.value.status, caught.value.code) == (503, "upstream_cold")
    assert 1 <= int(caught.value.headers["retry-after"]) <= 60
    assert 4.0 <= took < 8.0
    assert 2 <= len(edge.asked) <= 5


async def test_the_wait_for_a_container_and_for_its_first_event_share_one_deadline() -> None:
    edge = Edge(polls=3)
    edge.go.clear()
    async with before(edge, Bounds(8, 8, 60.0, first_event=5.0)) as (upstream, _):
        with faster(20) as bound, pytest.raises(UpstreamTimeout) as caught:
            began = asyncio.get_running_loop().time()
            await soon(said(upstream, "x"), bound)
        took = asyncio.get_running_loop().time() - began
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")
    assert 5.0 <= took < 8.0  # three seconds of them without a container
    assert upstream.pending == 0


# --- waking one without a call ---


async def test_to_wake_is_to_ask_each_second_until_a_container_answers() -> None:
    edge = Edge(polls=5)
    async with before(edge, PATIENT) as (upstream, behind):
        with faster(10) as bound:
            waking = upstream.wake()
            assert upstream.wake() is waking
            await soon(waking, bound)
            assert upstream.state() == "warm"
            assert await soon(said(upstream, "x"), bound) == "hello"
    assert [visit.method for visit in behind.visits] == ["GET"] * 6 + ["POST"]
    assert sum(edge.gaps[:5]) / 5 >= ABOUT_A_SECOND


async def test_who_waits_while_one_is_woken_asks_nothing() -> None:
    edge = Edge(polls=5)
    async with before(edge, PATIENT) as (upstream, behind):
        with faster(10) as bound:
            waking = upstream.wake()
            await soon(until(lambda: upstream.state() == "booting"), bound)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(said(upstream, "x")) for _ in range(20)]
                await soon(waking, bound)
                assert [await soon(call, bound) for call in calls] == ["hello"] * 20
    assert [visit.method for visit in behind.visits] == ["GET"] * 6 + ["POST"] * 20


async def test_a_wake_that_gives_up_leaves_the_asking_to_who_waits() -> None:
    edge = Edge(polls=6)
    async with before(edge, Bounds(8, 8, 60.0, first_event=5.0)) as (upstream, behind):
        with faster(20) as bound:
            waking = upstream.wake()
            await soon(until(lambda: len(edge.asked) == 3), bound)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(said(upstream, "x")) for _ in range(5)]
                with pytest.raises(NoContainer):
                    await soon(waking, bound)
                assert [await soon(call, bound) for call in calls] == ["hello"] * 5
    assert len(behind.visits) == 6 + 5


async def test_a_wake_that_is_promised_an_answer_waits_for_it() -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def promise(visit: Visit) -> None:
        if modal.CALL_PARAMETER not in visit.path:
            location = f"/?{modal.CALL_PARAMETER}=fc-1"
            head = f"HTTP/1.1 303 See Other\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            await visit.send(head.encode())
        else:
            asked.set()
            await go.wait()
            await visit.answer(b"no GET here", status="405 Method Not Allowed", kind="text/plain")

    async with container(promise) as behind:
        config = PromptConfig(url=f"http://127.0.0.1:{behind.port}/")
        inner = build("m", config, model="m", at="models.m.upstream")
        upstream = Target(inner, PATIENT, time.monotonic)
        waking = upstream.wake()
        await soon(asked.wait())
        assert upstream.state() != "warm"
        go.set()
        await soon(waking)
        assert upstream.state() == "warm"
        await upstream.aclose()
