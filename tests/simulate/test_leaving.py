"""A client that leaves what it sent ends the input, and the app sees that; a result URL may be left."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import httpx
import pytest

from gateway.simulate.call import AHEAD
from gateway.simulate.options import Boot, Options
from tests.serve.house import faster
from tests.simulate.apps import ANSWER, held, streamed
from tests.simulate.simulated import AT_ONCE, LONG, Simulated, client, simulated, visit
from tests.upstreams.fake import LAST_CHUNK, Peer, chunk, head, serving, soon

BODY = b'{"prompt": "hello"}'
AMPLE = 0.6  # seconds of an edge timeout within which an answer begins, on a busy machine too


async def leave(asking: asyncio.Task[httpx.Response]) -> None:
    asking.cancel()
    await asyncio.wait({asking})


async def nothing_left(edge: Simulated) -> None:
    await edge.until(lambda: edge.counts.cancelled == 1)
    assert edge.state["inputs"] == {"queued": 0, "running": 0, "open": 0}


async def test_leaving_the_queue() -> None:
    async with (
        serving(streamed()) as app,
        simulated(app.url, Options(boot=LONG)) as edge,
        client(edge) as http,
    ):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(http.post("/", content=BODY))
            await edge.until(lambda: edge.counts.requests == 1)
            await leave(asking)
        await nothing_left(edge)
        assert app.requests == []


@pytest.mark.parametrize("begun", [False, True])
async def test_leaving_a_container(begun: bool) -> None:
    script = streamed() if begun else held(asyncio.Event())
    async with (
        serving(script) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(http.post("/", content=BODY))
            await app.visited(requests=1)
            await leave(asking)
        await app.left()
        await nothing_left(edge)


async def test_a_result_url_may_be_left_and_asked_again() -> None:
    release = asyncio.Event()
    options = Options(boot=AT_ONCE, edge_timeout=AMPLE)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY)
        result_url = answer.headers["location"]
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(http.get(result_url))
            await edge.until(lambda: edge.counts.polls == 1)
            await leave(asking)
        await edge.until(lambda: edge.lines[-1].event == "result URL left")
        release.set()
        assert (await http.get(result_url)).content == ANSWER
        assert (edge.counts.generations, edge.counts.cancelled, edge.counts.answered) == (1, 0, 1)


async def test_a_result_that_its_reader_leaves_is_gone_but_runs_to_its_end() -> None:
    begin, end = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await begin.wait()
        await peer.send(head() + chunk(b"data: 0\n\n"))
        await end.wait()
        for _ in range(3):
            await peer.send(chunk(b"x" * AHEAD))
        await peer.send(LAST_CHUNK)
        await peer.gone()

    options = Options(boot=AT_ONCE, edge_timeout=AMPLE)
    async with serving(script) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY)
        result_url = answer.headers["location"]
        begin.set()
        async with http.stream("GET", result_url) as answer:
            assert await anext(answer.aiter_raw()) == b"data: 0\n\n"
        await edge.until(lambda: edge.lines[-1].event == "result URL left")
        assert (await http.get(result_url)).status_code == 404
        assert edge.state["inputs"]["running"] == 1
        end.set()
        await app.left()
        assert edge.state["inputs"] == {"queued": 0, "running": 0, "open": 1}
        assert edge.counts.cancelled == 0


async def test_hundreds_that_leave_at_random_leave_nothing_behind() -> None:
    draw = random.Random(7)

    async def paced(peer: Peer) -> None:
        await peer.request()
        await peer.send(head())
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0.01)  # the pace of a model
            await peer.send(chunk(b"data: {}\n\n"))
        await peer.send(LAST_CHUNK)
        await peer.gone()

    async def for_a_while(edge: Simulated, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await visit(edge, BODY)

    options = Options(boot=Boot(0.05, 0.05), idle=0.02, max_inputs=10, edge_timeout=0.03)
    async with serving(paced) as app, simulated(app.url, options) as edge:
        stays = [draw.uniform(0, 2) if number % 10 else None for number in range(300)]  # some to the end
        with faster(1):  # so that on a busy machine not all leave before anything else happens
            await soon(asyncio.gather(*(for_a_while(edge, seconds) for seconds in stays)))
        await edge.until(lambda: edge.state["inputs"]["running"] == edge.state["inputs"]["queued"] == 0)
        await app.left()
        counts, unfetched = edge.counts, edge.state["inputs"]["open"]
        assert counts.requests == counts.answered + counts.cut + counts.cancelled + unfetched
        assert counts.cancelled and counts.answered
        assert (await soon(visit(edge, BODY)))[0] == 200
