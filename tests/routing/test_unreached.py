"""Calls that reach no container: nothing ran for them, so nothing is booked, and nothing idles after them."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.core import modal
from gateway.core.call import PromptCall
from gateway.core.decode.edge import failure_of
from gateway.core.decode.failure import Place
from gateway.core.errors import GatewayError, NoContainer, Saturated, UpstreamError, UpstreamUnavailable
from gateway.core.gpu import SECOND, Payer
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.routing.visit import Visit as Passage
from gateway.upstreams.connections import failed
from gateway.upstreams.kinds import build
from gateway.upstreams.modal_sdk.errors import Where
from gateway.upstreams.modal_sdk.errors import failed as of_sdk
from gateway.upstreams.prompt import PromptConfig
from tests.routing.test_target import refusal, until
from tests.serve.house import HELLO, Scripted, Step, Visit, container, soon

CALL = PromptCall("hi", {})
BOUNDS = Bounds(8, 8, 60.0, poll=0.0, window=60.0, inputs=4)
ANN = Payer("k1", "ann", None, "m")


async def run(upstream: Target, passage: Passage | None = None) -> None:
    async for _ in upstream.events(CALL, passage or Passage()):
        pass


async def booked(url: str) -> tuple[GatewayError, int]:
    """Why a call to this address failed, and what was booked for it and after it."""
    inner = build("m", PromptConfig(url=url), model="m", at="models.m.upstream")
    upstream, passage = Target(inner, BOUNDS, time.monotonic), Passage(payer=ANN)
    try:
        error = await refusal(run(upstream, passage))
        assert upstream.containers() == (1 if error.reached else 0)
        return error, passage.gpu + sum(tail.gpu for tail in upstream.idled(all=True))
    finally:
        await upstream.aclose()


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


async def test_a_connection_that_is_refused_is_booked_nothing() -> None:
    with nobody() as url:
        error, gpu = await booked(url)
    assert (error.code, gpu) == ("upstream_unavailable", 0)


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        (modal.MISSING_CREDENTIALS, False),
        (modal.INVALID_CREDENTIALS, False),
        (modal.STOPPED, False),
        (modal.UNKNOWN, False),
        (modal.DISABLED.format(workspace="acme"), False),
        (modal.TIMED_OUT, True),
        (modal.TERMINATED, True),
        (modal.LOST_TRACK, True),
        ("no such page", True),  # of the app itself, for all that is known
    ],
)
async def test_a_text_of_the_edge_is_booked_if_a_container_ran(text: str, reached: bool) -> None:
    async def edge(visit: Visit) -> None:
        await visit.answer(text.encode(), status="404 Not Found", kind="text/plain")

    async with container(edge) as behind:
        _, gpu = await booked(f"http://127.0.0.1:{behind.port}/")
    assert (gpu > 0) == reached


async def test_a_call_that_the_edge_took_is_booked_whatever_is_said_of_its_result() -> None:
    async def edge(visit: Visit) -> None:
        if visit.method == "POST":
            await visit.send(b"HTTP/1.1 303 See Other\r\nlocation: /result\r\ncontent-length: 0\r\n\r\n")
        else:
            await visit.answer(modal.STOPPED.encode(), status="404 Not Found", kind="text/plain")

    async with container(edge) as behind:
        error, gpu = await booked(f"http://127.0.0.1:{behind.port}/")
    assert error.code == "upstream_stopped" and gpu > 0


def test_what_fails_before_there_is_a_connection_has_reached_nothing() -> None:
    place = Place("models.m.upstream")
    for exc in (OSError(), ConnectionRefusedError(), socket.gaierror(), TimeoutError()):
        assert not failed(exc, place).reached
    assert not failure_of(place, 429, {}, b"").reached
    assert failure_of(place, 429, {}, b'{"error": {"message": "full", "code": "busy"}}').reached
    assert failure_of(place, 503, {}, b"").reached  # a container is started
    where = Where("models.m.upstream", "app.f", "app and function")
    for ran in (False, True):
        assert of_sdk(OSError(), where, ran=ran).reached == ran


# --- on a clock that a test moves ---


def missed(kind: type[UpstreamError] = UpstreamUnavailable) -> UpstreamError:
    error = kind("none", retry="elsewhere")
    error.reached = False
    return error


class At:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    async def later(self) -> None:
        """Ten seconds pass."""
        self.now += 10


def of(clock: At, *turns: list[Step]) -> Target:
    return Target(Scripted("u", *turns), BOUNDS, clock)


def idle(upstream: Target) -> list[int]:
    return [tail.gpu // SECOND for tail in upstream.idled()]


@pytest.mark.parametrize("error", [missed(), Saturated("full")])
async def test_the_next_call_pays_for_itself_alone(error: GatewayError) -> None:
    clock = At()
    upstream, first, second = of(clock, [clock.later, error], [clock.later, *HELLO]), Passage(), Passage()
    await refusal(run(upstream, first))
    clock.now += 1000
    assert idle(upstream) == []
    await run(upstream, second)
    clock.now += 1000
    assert (first.gpu, second.gpu, idle(upstream)) == (0, 10 * SECOND, [60])


@pytest.mark.parametrize("after", [missed(), missed(Saturated)])
async def test_a_container_that_was_being_started_is_booked_whatever_comes_of_it(after: GatewayError) -> None:
    clock, passage = At(), Passage()
    upstream = of(clock, [clock.later, NoContainer("none", retry="elsewhere")], [clock.later, after])
    await refusal(run(upstream, passage))
    clock.now += 1000
    assert (passage.gpu, idle(upstream)) == (20 * SECOND, [60])


async def test_who_leaves_before_anybody_has_asked_with_success_is_booked_nothing() -> None:
    clock, go, waiting = At(), asyncio.Event(), Passage()
    upstream = Target(
        Scripted("u", [go.wait, missed()]), Bounds(8, 8, 60.0, refuses=True, window=60.0, inputs=4), clock
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(refusal(run(upstream)))
        waits = group.create_task(run(upstream, waiting))
        await soon(until(lambda: upstream.slots.taken == 2))
        await clock.later()
        waits.cancel()
        await asyncio.wait([waits])
        go.set()
    clock.now += 1000
    assert (waiting.gpu, idle(upstream)) == (0, [])


async def test_who_leaves_what_was_sent_is_booked() -> None:
    clock, passage = At(), Passage()
    upstream = of(clock, [asyncio.Event().wait])
    async with asyncio.TaskGroup() as group:
        runs = group.create_task(run(upstream, passage))
        await soon(until(lambda: upstream.slots.taken == 1))
        await clock.later()
        runs.cancel()
    clock.now += 1000
    assert (passage.gpu, idle(upstream)) == (10 * SECOND, [60])
