"""Streams that stay alive while the model is silent, and that say nothing out of order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.encode import PING
from gateway.http.exchange import Exchange, Message
from gateway.http.rhythm import Rhythm
from gateway.http.stream import EVENT_STREAM, Filler, LiveAnswer
from tests.serve.house import HELLO, Desk, Line, Scripted, deployed, faster, soon

FILLER = Filler(EVENT_STREAM, lambda: b"[opening]", b"[ping]", lambda: b"[pause]")
NEVER = 1e6  # seconds


@asynccontextmanager
async def stream_to(line: Line, rhythm: Rhythm) -> AsyncIterator[LiveAnswer]:
    """An answer that has proved slow."""
    async with LiveAnswer(Exchange(line.send, "req_1"), dict, FILLER, rhythm) as stream:
        stream.keep()
        yield stream


async def test_nothing_is_promised_before_the_grace_is_over() -> None:
    line = Line()
    async with stream_to(line, Rhythm(NEVER, 0, 0)) as stream:
        for _ in range(10):  # turns of the loop, in which every timer that is due fires
            await asyncio.sleep(0)
        assert not stream.started
    assert line.said == []


async def test_silence_before_the_first_event_opens_the_stream_after_the_grace() -> None:
    line = Line()
    async with stream_to(line, Rhythm(0, NEVER, NEVER)) as stream:
        await soon(line.until(b"[opening]"))
        assert stream.started
        await stream.write(b"hello")
        await stream.end(b"done")
    assert line.body == b"[opening]hellodone"


async def test_silence_after_an_event_is_filled_with_pings_whether_the_grace_is_over_or_not() -> None:
    line = Line()
    async with stream_to(line, Rhythm(NEVER, 0, NEVER)) as stream:
        await stream.write(b"hello")
        await soon(line.until(b"[ping][ping]"))
        await stream.write(b"world")
        await soon(line.until(b"world[ping][ping]"))
    assert line.body.startswith(b"[opening]hello[ping][ping]")
    assert b"[pause]" not in line.body


async def test_silence_after_the_opening_is_filled_with_pings() -> None:
    line = Line()
    async with stream_to(line, Rhythm(0, 0, NEVER)):
        await soon(line.until(b"[opening][ping][ping]"))


async def test_long_silence_is_filled_with_chunks_again_and_again() -> None:
    line = Line()
    async with stream_to(line, Rhythm(NEVER, 0, 0.002)) as stream:
        await stream.write(b"hello")
        await soon(line.until(b"[pause]"))
        await soon(line.until(b"[pause][ping]"))  # a pause is a chunk: pings do again for a while
        while line.body.count(b"[pause]") < 2:
            await soon(line.until(line.body + b"["))
    assert line.body.count(b"[opening]") == 1


async def test_a_chunk_that_is_due_waits_for_no_ping() -> None:
    line = Line()
    async with stream_to(line, Rhythm(0, NEVER, 0.001)):
        await soon(line.until(b"[opening][pause][pause]"))


async def test_nothing_is_filled_in_while_events_come() -> None:
    line = Line()
    async with stream_to(line, Rhythm(0, NEVER, NEVER)) as stream:
        for _ in range(5):
            await stream.write(b"x")
            await asyncio.sleep(0)
        await stream.end(b"")
    assert line.body == b"[opening]xxxxx"


async def test_no_timer_outlives_the_stream() -> None:
    line = Line()
    async with stream_to(line, Rhythm(0, 0, 0)) as stream:
        await soon(line.until(b"[pause]"))
        await stream.end(b"done")
    for _ in range(10):
        await asyncio.sleep(0)
    assert line.body.endswith(b"done")


async def test_no_task_outlives_the_stream() -> None:
    line = Slow()
    before = asyncio.all_tasks()
    async with stream_to(line, Rhythm(0, NEVER, NEVER)):
        await soon(line.opening.wait())
    assert asyncio.all_tasks() <= before


class Slow(Line):
    """A client that takes the headers, and then nothing until ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.opening = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.opening.set()
            await self.go.wait()
        await super().send(message)


@pytest.mark.parametrize("what", ["write", "end", "fail"])
async def test_nothing_overtakes_the_opening(what: str) -> None:
    line = Slow()
    async with stream_to(line, Rhythm(0, NEVER, NEVER)) as stream, asyncio.TaskGroup() as group:
        await soon(line.opening.wait())
        group.create_task(getattr(stream, what)(b"next"))
        for _ in range(10):
            await asyncio.sleep(0)
        line.go.set()
    assert [message["type"] for message in line.said][:1] == ["http.response.start"]
    assert line.body == b"[opening]next"


# --- the whole endpoint ---


async def test_a_silent_model_keeps_its_client() -> None:
    go = asyncio.Event()
    desk = Desk(deployed(Scripted("a", [go.wait, *HELLO])), first_byte_grace=8)
    line = desk.line(stream=True)
    with faster(500) as bound:
        async with asyncio.TaskGroup() as group:
            group.create_task(desk.take(line))
            await soon(line.until(b'"role":"assistant"'), bound)
            await soon(line.until(PING), bound)
            await soon(line.until(b'"delta":{"content":""}'), bound)
            go.set()
    assert line.body.endswith(b"data: [DONE]\n\n")
    assert line.body.count(b'"role"') == 1


async def test_a_model_that_falls_silent_keeps_its_client() -> None:
    go = asyncio.Event()
    [last] = HELLO
    desk = Desk(deployed(Scripted("a", [[last[0]], go.wait, last])), first_byte_grace=600)  # type: ignore[index,list-item]
    line = desk.line(stream=True)
    with faster(500) as bound:
        async with asyncio.TaskGroup() as group:
            group.create_task(desk.take(line))
            await soon(line.until(b'"hello"'), bound)
            await soon(line.until(PING), bound)
            go.set()
    assert line.body.endswith(b"data: [DONE]\n\n")
