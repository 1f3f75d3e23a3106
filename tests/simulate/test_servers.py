"""A simulated Server: nothing waits, and a refusal starts a container."""

from __future__ import annotations

import asyncio

from gateway.simulate.options import Mode, Options
from tests.simulate.apps import ANSWER, held, whole
from tests.simulate.simulated import AT_ONCE, LONG, client, simulated
from tests.upstreams.fake import serving

BODY = b'{"prompt": "hello"}'


async def test_requests_are_refused_without_a_word_while_none_is_ready() -> None:
    options = Options(Mode.server, LONG)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        for _ in range(3):
            answer = await http.post("/", content=BODY)
            assert (answer.status_code, answer.content) == (503, b"")
            assert "content-type" not in answer.headers
        assert (edge.state["containers"], len(app.requests)) == ({"booting": 1, "ready": 0}, 0)
        assert (edge.counts.boots, edge.counts.refused, edge.counts.requests) == (1, {"503": 3}, 0)


async def test_what_is_above_the_concurrency_is_refused() -> None:
    release = asyncio.Event()
    options = Options(Mode.server, AT_ONCE, max_inputs=1)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(http.post("/", content=BODY))
            await app.visited(requests=1)
            second = await http.post("/", content=BODY)
            assert (second.status_code, second.content) == (429, b"")
            release.set()
        assert first.result().content == ANSWER


async def test_an_answer_is_awaited_without_a_redirect() -> None:
    release = asyncio.Event()
    options = Options(Mode.server, AT_ONCE, edge_timeout=0, function_timeout=0)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(http.post("/", content=BODY))
            await app.visited(requests=1)
            release.set()
        assert answer.result().status_code == 200


async def test_a_request_may_shorten_the_boot_that_it_starts() -> None:
    options = Options(Mode.server, LONG)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY, headers={"x-simulate": "boot=0.01"})
        await edge.until(lambda: edge.state["containers"]["ready"])
        assert (await http.post("/", content=BODY)).content == ANSWER


async def test_an_idle_server_scales_to_zero() -> None:
    options = Options(Mode.server, AT_ONCE, idle=0.05)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY)
        await edge.until(lambda: edge.lines[-1].event == "scaled to zero")
        assert (await http.post("/", content=BODY)).status_code == 503
