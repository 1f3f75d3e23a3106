"""Streams cut at every byte: a character survives, and a short answer never looks like a complete one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.core.call import Call
from gateway.core.events import Finish
from gateway.upstreams import Upstream
from tests.upstreams import fake
from tests.upstreams.calling import ask, chat, chatting, outcome, prompting
from tests.upstreams.conformance import chunks, delta
from tests.upstreams.fake import Peer, soon

TEXT = "é 你好🎉\u2028z"
VALUES = ({"prompt": "é 你"}, {"prompt": "好🎉\u2028z"}, {"finish_reason": "stop"})
EVENTS = b"".join(map(fake.event, VALUES)) + fake.event("[DONE]")


@dataclass(frozen=True)
class Stream:
    kind: str  # of upstream
    type: str  # content type
    body: bytes


STREAMS = {
    "prompt, events": Stream("prompt", "text/event-stream", EVENTS),
    "prompt, CRLF": Stream("prompt", "text/event-stream", EVENTS.replace(b"\n", b"\r\n")),
    "prompt, lines": Stream(
        "prompt", "application/x-ndjson", b"".join(fake.event(value)[6:-1] for value in VALUES)
    ),
    "prompt, text": Stream("prompt", "text/plain", TEXT.encode()),
    "openai, events": Stream(
        "openai",
        "text/event-stream",
        delta("é 你") + delta("好🎉\u2028z") + delta(None, "stop") + fake.event("[DONE]"),
    ),
}
FRAMES = ("chunks", "length", "close")


def framed(stream: Stream, how: str) -> bytes:
    """The response, its body delimited by chunks of 20 bytes, by its length, or by the connection's end."""
    first = f"HTTP/1.1 200 OK\r\ncontent-type: {stream.type}\r\n".encode()
    if how == "length":
        return first + b"content-length: %d\r\n\r\n" % len(stream.body) + stream.body
    if how == "close":
        return first + b"connection: close\r\n\r\n" + stream.body
    parts = [stream.body[at : at + 20] for at in range(0, len(stream.body), 20)]
    return first + b"transfer-encoding: chunked\r\n\r\n" + chunks(*parts) + fake.LAST_CHUNK


@asynccontextmanager
async def calling(stream: Stream, url: str) -> AsyncIterator[tuple[Upstream, Call]]:
    if stream.kind == "prompt":
        async with prompting(url) as prompt:
            yield prompt, ask()
    else:
        async with chatting(url) as server:
            yield server, chat()


@pytest.mark.parametrize("name", STREAMS)
async def test_any_cut_between_reads_gives_the_same_text(name: str) -> None:
    """In two parts at every byte, and byte by byte."""
    stream = STREAMS[name]
    cuts = [(at,) for at in range(1, len(stream.body))] + [tuple(range(1, len(stream.body)))]
    waiting = iter(cuts)

    async def script(peer: Peer) -> None:
        while await peer.request():
            at = next(waiting)
            await peer.send(fake.head(stream.type))
            for start, stop in zip((0, *at), (*at, len(stream.body)), strict=True):
                await peer.send(fake.chunk(stream.body[start:stop]))
                await asyncio.sleep(0)  # so that each part is mostly a read of its own
            await peer.send(fake.LAST_CHUNK)

    async with fake.serving(script) as server, calling(stream, server.url) as (upstream, call):
        for at in cuts:
            got = await soon(outcome(upstream, call))
            assert got.text == TEXT, f"cut at {at}"
            assert got.finish.reason == "stop"


@pytest.mark.parametrize("broken", ["fin", "reset"])
@pytest.mark.parametrize(
    ("name", "how"),
    # Text that only the end of its connection delimits cannot tell that end from a break.
    [(name, how) for name in STREAMS for how in FRAMES if (name, how) != ("prompt, text", "close")],
)
async def test_a_connection_that_breaks_at_any_byte_never_gives_a_short_answer(
    name: str, how: str, broken: str
) -> None:
    stream = STREAMS[name]
    answer = framed(stream, how)
    places = iter(range(len(answer)))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer[: next(places)])
        getattr(peer, broken)()

    async with fake.serving(script) as server, calling(stream, server.url) as (upstream, call):
        for at in range(len(answer)):
            got = await soon(outcome(upstream, call))
            assert TEXT.startswith(got.text)
            if got.error is None:
                assert got.text == TEXT, f"broken at {at}: a short answer"
                assert isinstance(got.events[-1], Finish)
            else:
                assert got.failure.status in (502, 504)
        assert len(server.requests) == len(answer)
