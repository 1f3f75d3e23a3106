"""A simulated Web Function: requests wait for a container, and are redirected while they wait."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.core import modal
from gateway.simulate.options import Boot, Options
from tests.simulate.apps import ANSWER, held, streamed, whole
from tests.simulate.simulated import AT_ONCE, LONG, client, simulated, visit
from tests.upstreams.fake import chunk, head, serving, soon

BODY = b'{"prompt": "hello"}'
SOON = 0.05  # seconds of an edge timeout that a test awaits
AMPLE = 0.6  # seconds of one within which an answer begins, on a busy machine too


async def test_a_cold_request_waits_for_the_boot_and_has_the_app_s_answer() -> None:
    async with (
        serving(whole()) as app,
        simulated(app.url, Options(boot=Boot(0.05, 0.05))) as edge,
        client(edge) as http,
    ):
        answer = await http.post("/a%20b?c=1", content=BODY, headers={"x-mine": "1"})
        assert (answer.status_code, answer.content, answer.headers["x-app"]) == (200, ANSWER, "yes")
        [asked] = app.requests
        assert (asked.method, asked.path, asked.body) == ("POST", "/a%20b?c=1", BODY)
        assert asked.headers["x-mine"] == "1"
        assert [line.event for line in edge.lines] == [
            "request queued",
            "container booting",
            "container ready",
            "request started",
            "answered",
        ]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_methods_and_bodies_are_passed_on(method: str) -> None:
    async with (
        serving(whole()) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        body = BODY if method == "PUT" else b""
        assert (await http.request(method, "/x", content=body)).content == ANSWER
        assert (app.requests[0].method, app.requests[0].body) == (method, body)


async def test_a_chain_of_redirects_ends_with_the_one_generation() -> None:
    release = asyncio.Event()
    options = Options(boot=AT_ONCE, edge_timeout=SOON)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/x?y=1", content=BODY)
        for _ in range(5):
            assert (answer.status_code, answer.content) == (303, b"")
            location = answer.headers["location"]
            assert location.startswith(f"{edge.url}/x?y=1&{modal.CALL_PARAMETER}=fc-")
            answer = await http.get(location)
        release.set()
        while answer.status_code == 303:
            answer = await http.get(location)
        assert (answer.status_code, answer.content) == (200, ANSWER)
        assert (edge.counts.requests, edge.counts.generations, edge.counts.boots) == (1, 1, 1)
        again = await http.get(location)
        assert (again.status_code, again.text) == (404, modal.UNKNOWN)


async def test_a_result_is_asked_for_with_get_alone() -> None:
    async with serving(whole()) as app, simulated(app.url, Options()) as edge, client(edge) as http:
        answer = await http.post(f"/?{modal.CALL_PARAMETER}=fc-1", content=BODY)
        assert (answer.status_code, answer.text) == (400, modal.BAD_REDIRECT)
        answer = await http.get(f"/?{modal.CALL_PARAMETER}=fc-1")
        assert (answer.status_code, answer.text) == (404, modal.UNKNOWN)
        assert edge.counts.boots == 0


async def test_between_hops_the_input_runs_on_and_its_result_waits() -> None:
    release = asyncio.Event()
    options = Options(boot=AT_ONCE, edge_timeout=SOON)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY)
        release.set()
        await app.left()
        assert edge.state["inputs"]["open"] == 1
        assert (await http.get(answer.headers["location"])).content == ANSWER
        assert edge.state["inputs"]["open"] == 0


async def test_pieces_arrive_as_they_are_sent() -> None:
    gate = asyncio.Event()
    async with (
        serving(streamed(gate)) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
        http.stream("POST", "/", content=BODY) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 0\n\n"
        gate.set()
        assert await anext(pieces) == b"data: 1\n\n"
        assert [piece async for piece in pieces] == []


async def test_a_stream_that_the_app_cuts_has_no_end_here_either() -> None:
    async def script(peer):  # type: ignore[no-untyped-def]
        await peer.request()
        await peer.send(head() + chunk(b"data: 0\n\n"))

    async with (
        serving(script) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/", content=BODY)
        await edge.until(lambda: edge.counts.cut == 1)


async def test_a_stream_that_has_begun_is_not_redirected() -> None:
    gate = asyncio.Event()
    options = Options(boot=AT_ONCE, edge_timeout=AMPLE)
    async with (
        serving(streamed(gate)) as app,
        simulated(app.url, options) as edge,
        client(edge) as http,
        http.stream("POST", "/", content=BODY) as answer,
    ):
        other = await http.post("/", content=BODY, headers={"x-simulate": "fault=loop"})
        assert (answer.status_code, other.status_code) == (200, 303)  # the timeout passed meanwhile
        gate.set()
        assert b"data: 1" in await answer.aread()


async def test_the_function_s_time_ends_a_request_before_its_answer() -> None:
    options = Options(boot=AT_ONCE, function_timeout=SOON)
    async with (
        serving(held(asyncio.Event())) as app,
        simulated(app.url, options) as edge,
        client(edge) as http,
    ):
        answer = await http.post("/", content=BODY)
        assert (answer.status_code, answer.text) == (500, modal.TIMED_OUT)
        await app.left()


async def test_the_function_s_time_cuts_a_stream() -> None:
    options = Options(boot=AT_ONCE, function_timeout=AMPLE)
    async with serving(streamed()) as app, simulated(app.url, options) as edge, client(edge) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/", content=BODY)
        await app.left()


async def test_a_container_takes_no_more_than_its_inputs() -> None:
    release = asyncio.Event()
    options = Options(boot=AT_ONCE, max_inputs=1, max_containers=2)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(http.post("/", content=BODY)) for _ in range(5)]
            await edge.until(lambda: edge.counts.requests == 5)
            await app.visited(requests=2)
            inputs = edge.state["inputs"]
            assert (inputs["running"], inputs["queued"], edge.counts.generations) == (2, 3, 2)
            release.set()
        assert {answer.result().status_code for answer in answers} == {200}
        assert edge.counts.generations == 5


async def test_idle_containers_go_and_the_next_request_boots_again() -> None:
    options = Options(boot=AT_ONCE, idle=SOON)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY)
        await edge.until(lambda: edge.state["containers"]["ready"] == 0)
        assert edge.lines[-1].event == "scaled to zero"
        await http.post("/", content=BODY)
        assert edge.counts.boots == 2


async def test_three_hundred_clients_on_a_cold_start_are_all_answered_by_one_boot() -> None:
    options = Options(boot=Boot(0.5, 0.5), max_inputs=32, edge_timeout=0.1)
    async with serving(whole()) as app, simulated(app.url, options) as edge:
        answers = await soon(asyncio.gather(*(visit(edge, BODY) for _ in range(300))))
        assert set(answers) == {(200, ANSWER)}
        assert (edge.counts.boots, edge.counts.generations, len(app.requests)) == (1, 300, 300)
        assert edge.counts.redirects


async def test_the_same_seed_gives_the_same_ids_and_boots() -> None:
    seen = []
    for seed in (1, 1, 2):
        options = Options(boot=Boot(100, 200), edge_timeout=0, seed=seed)
        async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
            answer = await http.post("/", content=BODY)
            booting = next(line for line in edge.lines if line.event == "container booting")
            seen.append((urlsplit(answer.headers["location"]).query, booting.facts["seconds"]))
    assert seen[0] == seen[1] != seen[2]


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with serving(whole()) as app, simulated(app.url, Options(boot=LONG)) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(edge.url).port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n")
        assert await soon(reader.readuntil(b"\r\n")) == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        assert edge.counts.requests == 0
        writer.close()
