"""A mock model server that speaks the prompt contract and costs next to nothing.

    python -m tests.bench.upstream PORT

Rule: every byte is made before it is needed, and one timer a pace serves all its streams, so that what a
client sees of the rhythm is the rhythm. The path names the pace (``PACES``), ``max_tokens`` the number of
events. The text of event ``i`` holds ``i``: a client can tell that none is lost, doubled or out of order.
Knows nothing about gateways; its HTTP is the subset that well-behaved clients need.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any

from tests.bench.process import run

TURN = 0.001  # seconds between two turns of a wheel; the event loops know no shorter timers
LINE = 16  # events; the last of each line ends with a line feed, where stop strings often begin

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EVENTS = re.compile(rb'"max_tokens": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')

WHOLE_TEXT = " ".join(f"word{number:03d}" for number in range(100))
_WHOLE = (
    b'{"prompt":"%s","finish_reason":"stop","usage":{"prompt_tokens":90,"completion_tokens":200}}'
    % WHOLE_TEXT.encode()
)
_WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_WHOLE) + _WHOLE
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(slots=True, frozen=True)
class Pace:
    """``burst`` events in one write, every ``interval`` seconds."""

    burst: int
    interval: float


PACES: Mapping[str, Pace] = {
    "short": Pace(100, 0.001),
    "burst": Pace(100, 0.04),  # slow enough that no server is so busy that it finds two bursts in one read
    "paced": Pace(1, 0.02),
}


@cache
def text(events: int) -> bytes:
    """The text of a stream of so many events, as the inside of a JSON string."""
    return b"".join(map(_event_text, range(events)))


def _event_text(index: int) -> bytes:
    return b"w%05d" % index + (b"\\n" if index % LINE == LINE - 1 else b" ")


@cache
def frames(burst: int, events: int) -> tuple[bytes, ...]:
    """What is written at each turn of a stream of so many events: chunks of a chunked body."""
    lines = [b'data: {"prompt":"%s"}\n\n' % _event_text(index) for index in range(events)]
    bursts = [b"".join(lines[start : start + burst]) for start in range(0, events, burst)]
    bursts[-1] += (
        b'data: {"prompt":"","finish_reason":"stop","usage":{"prompt_tokens":90,"completion_tokens":%d}}\n\n'
        b"data: [DONE]\n\n" % events
    )
    chunks = [b"%x\r\n%s\r\n" % (len(data), data) for data in bursts]
    chunks[-1] += b"0\r\n\r\n"
    return tuple(chunks)


class Wheel:
    """All streams of one pace, spread evenly over its interval."""

    def __init__(self, pace: Pace, loop: asyncio.AbstractEventLoop) -> None:
        self.pace = pace
        self._loop = loop
        self._slots: list[dict[Connection, None]] = [{} for _ in range(round(pace.interval / TURN))]
        self._slot = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Connection) -> dict[Connection, None]:
        """Begin to step this stream; the slot that is given back is where to take it out."""
        slot = min(self._slots, key=len)
        slot[stream] = None
        if self._timer is None:
            self._due = monotonic() + TURN
            self._timer = self._loop.call_later(TURN, self._turn)
        return slot

    def _turn(self) -> None:
        """Step what is due. Turns that come late are made up for: the due times do not drift."""
        now = monotonic()
        while self._due <= now:
            for stream in tuple(self._slots[self._slot]):
                stream.step()
            self._slot = (self._slot + 1) % len(self._slots)
            self._due += TURN
        self._timer = self._loop.call_later(TURN, self._turn) if any(self._slots) else None


class Connection(asyncio.Protocol):
    """One client: a request at a time, each with ``Content-Length`` or without a body."""

    def __init__(self, wheels: Mapping[bytes, Wheel]) -> None:
        self._wheels = wheels
        self._received = b""
        self._slot: dict[Connection, None] = {}
        self._frames: tuple[bytes, ...] = ()
        self._next = 0

    def connection_made(self, transport: Any) -> None:  # uvloop's transports are not asyncio's
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._slot.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        declared = _LENGTH.search(self._received, 0, end)
        size = end + 4 + (int(declared[1]) if declared else 0)
        if len(self._received) >= size:
            request, self._received = self._received[:size], self._received[size:]
            self._answer(request, request[end + 4 :])

    def _answer(self, request: bytes, body: bytes) -> None:
        if not _STREAM.search(body):
            self._transport.write(_WHOLE_ANSWER)
            return
        wheel = self._wheels[request.split(b" ", 2)[1].strip(b"/")]
        events = _EVENTS.search(body)
        self._frames = frames(wheel.pace.burst, int(events[1]) if events else 100)
        self._next = 0
        self._transport.write(_STREAM_HEAD)
        self._slot = wheel.add(self)

    def step(self) -> None:
        """Write the next burst; after the last one the stream is over."""
        self._transport.write(self._frames[self._next])
        self._next += 1
        if self._next == len(self._frames):
            del self._slot[self]


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    wheels = {name.encode(): Wheel(pace, loop) for name, pace in PACES.items()}
    server = await loop.create_server(lambda: Connection(wheels), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    run(serve(int(sys.argv[1])))
