"""Clients that leave: the container's connection is closed, whatever the gateway was waiting for."""

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from gateway.auth import ANYONE
from gateway.core.errors import Unauthorized, UpstreamError
from gateway.http.exchange import Message, Presence
from gateway.keys.running import Running
from tests.serve.house import Desk, House, Line, Scripted, Visit, deployed, house, soon
from tests.serve.test_chat import ASK, greet, post


async def leave(at: House, after: Callable[[asyncio.StreamReader], Awaitable[Any]], **fields: Any) -> None:
    """Send a request, wait for ``after``, and hang up."""
    body = json.dumps({**ASK, **fields}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    try:
        await soon(after(reader))
    finally:
        writer.close()


class Silence:
    """A container that says a few pieces, then nothing, and notices when it is left."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, visit: Visit) -> None:
        if self.pieces:
            await visit.start_stream()
            for piece in self.pieces:
                await visit.event({"prompt": piece})
        self.asked.set()
        await soon(visit.until_closed())
        self.left.set()


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stop": "x"}, {"n": 2}, {"n": 2, "stream": True}])
async def test_leaving_before_the_first_byte_closes_the_container(fields: dict[str, Any]) -> None:
    silence = Silence()
    async with house(silence) as at:
        await leave(at, lambda _: silence.asked.wait(), **fields)
        await soon(silence.left.wait())


@pytest.mark.parametrize("fields", [{"stream": True}, {"stop": "x"}, {"n": 2, "stream": True}])
async def test_leaving_in_mid_answer_closes_the_container(fields: dict[str, Any]) -> None:
    silence = Silence("hello", " world")
    async with house(silence) as at:

        async def after(reader: asyncio.StreamReader) -> None:
            await silence.asked.wait()
            if fields.get("stream"):
                await reader.readuntil(b"world")

        await leave(at, after, **fields)
        await soon(silence.left.wait())


async def test_leaving_the_queue_gives_the_place_to_the_next() -> None:
    silence, go = Silence(), asyncio.Event()

    async def silent_once(visit: Visit) -> None:
        await (greet(visit) if silence.asked.is_set() else silence(visit))

    bounds = {"max_concurrency": 1, "max_queue": 1}
    async with house(silent_once, upstream=bounds) as at, asyncio.TaskGroup() as group:
        group.create_task(leave(at, lambda _: go.wait()))
        await soon(silence.asked.wait())
        # Of two more one has to be refused, and then the other one is known to have the place in the queue.
        two = [group.create_task(leave(at, lambda reader: reader.readexactly(1))) for _ in range(2)]
        refused, waiting = await soon(asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED))
        assert (len(refused), len(waiting)) == (1, 1)
        waiting.pop().cancel()
        await soon(_metric(at, 'modal_gateway_client_disconnects_total{model="m"} 1.0'))
        again = [group.create_task(post(at)) for _ in range(2)]
        await soon(asyncio.wait(again, return_when=asyncio.FIRST_COMPLETED))
        go.set()
        assert sorted([(await soon(each)).status_code for each in again]) == [200, 429]
        assert len(at.container.visits) == 2


async def test_metrics_count_those_who_left() -> None:
    silence = Silence()
    async with house(silence) as at:
        await leave(at, lambda _: silence.asked.wait())
        await soon(silence.left.wait())
        await soon(_metric(at, 'modal_gateway_client_disconnects_total{model="m"} 1.0'))
        await soon(_metric(at, "modal_gateway_requests_in_flight 0.0"))


async def _metric(at: House, line: str) -> None:
    import httpx

    async with httpx.AsyncClient() as client:
        while line not in (await client.get(f"http://127.0.0.1:{at.port}/metrics")).text.splitlines():
            pass


# --- in the same turn of the event loop as a failure ---


class Hanging(Line):
    """A request whose client hangs up as soon as that is looked for, and sets ``gone`` just before."""

    gone: asyncio.Event

    async def receive(self) -> Message:
        if not self._parts:
            self.gone.set()
            self.left.set()
        return await super().receive()


async def test_whoever_leaves_when_a_choice_fails_gets_no_other_call() -> None:
    gone = asyncio.Event()
    failing, spare = Scripted("a", [gone.wait, UpstreamError("no", retry="elsewhere")]), Scripted("b")
    desk = Desk(deployed(failing, spare, balance="round_robin"))
    line = Hanging(body=json.dumps({**ASK, "n": 2}).encode())
    line.gone = gone
    await soon(desk.take(line))
    [record] = desk.records
    assert (record.client_left, record.calls, spare.calls, line.said) == (True, 1, [], [])


async def test_work_that_ends_just_when_it_is_ended_says_why() -> None:
    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        with Presence(silent) as presence:
            presence.end(Unauthorized("revoked"))

    with pytest.raises(Unauthorized):
        await asyncio.gather(work())


async def test_a_request_that_took_a_while_is_freed_when_it_ends() -> None:
    """All that it holds would wait for the search for cycles otherwise, with that of every other request."""
    slow, freed = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> weakref.ref[Presence]:
        with Presence(receive, partial(Running().enter, ANYONE)) as presence:
            presence.slow = lambda _: slow.set()
            await soon(slow.wait())
            return weakref.ref(presence, lambda _: freed.set())

    gc.disable()
    try:
        held = await asyncio.get_running_loop().create_task(work())
        await soon(freed.wait())
        assert held() is None
    finally:
        gc.enable()
