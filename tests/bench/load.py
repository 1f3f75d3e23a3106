"""Clients that ask, check every answer to the last character, and note when it came.

Rule: an answer that is not exactly what the mock upstream said is a failure, whatever its speed. Parsing is
httptools' and one regular expression, so that the load stays cheap beside what it measures. Knows nothing
about processes or CPU.
"""

from __future__ import annotations

import asyncio
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

from httptools import HttpResponseParser

DONE = b"data: [DONE]\n\n"
CONNECTS = 50  # connections opened at once
PATIENCE = 60.0  # seconds after the window until every answer must have ended


@dataclass(slots=True)
class Tally:
    """What all connections of one load saw. Times are seconds; all but the last two only while recording."""

    recording: bool = False
    closing: bool = False  # ask no more
    answers: int = 0
    characters: int = 0  # of streamed text
    latencies: array[float] = field(default_factory=lambda: array("d"))  # of answers, to their end
    gaps: array[float] = field(default_factory=lambda: array("d"))  # between two reads of one stream
    intact: int = 0  # answers that were exactly what they should be
    failures: list[str] = field(default_factory=list)

    def over(self, asked: float, failure: str) -> None:
        """One answer has ended; ``failure`` is empty if it was right."""
        if failure:
            self.failures.append(failure)
            return
        self.intact += 1
        if self.recording:
            self.answers += 1
            self.latencies.append(perf_counter() - asked)


@dataclass(slots=True, frozen=True)
class Question:
    """One request, made once, and the text its answer must have.

    ``key`` is the JSON name before a streamed text: ``content``, or ``prompt`` straight from the upstream.
    """

    port: int
    request: bytes
    expected: bytes
    streamed: bool
    key: str = "content"


class Whole:
    """Reads one whole answer."""

    def __init__(self, question: Question, tally: Tally) -> None:
        self._expected = question.expected
        self._tally = tally
        self._body = b""
        self._asked = perf_counter()
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def body(self, data: bytes) -> None:
        self._body += data

    def end(self, status: int) -> None:
        right = status == 200 and self._expected in self._body
        self._tally.over(self._asked, "" if right else f"status {status}: {self._body[:300]!r}")
        self.over.set_result(right)

    def lost(self) -> None:
        self._tally.over(self._asked, "the connection was lost")
        self.over.set_result(False)


class Stream:
    """Reads one streamed answer."""

    def __init__(self, question: Question, tally: Tally) -> None:
        self._expected = question.expected
        # re keeps what it compiled: this is a look-up.
        self._find = re.compile(rb'"%s":\s?"((?:[^"\\]++|\\.)*+)"' % question.key.encode()).findall
        self._tally = tally
        self._pending = b""
        self._latest = b""
        self._at = 0  # characters of the text so far
        self._last = 0.0
        self._asked = perf_counter()
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def body(self, data: bytes) -> None:
        if self._pending or data[-2:] != b"\n\n":
            *whole, self._pending = (self._pending + data).rpartition(b"\n\n")
            data = b"".join(whole)
        if data:
            self._latest = data
        if text := b"".join(self._find(data)):
            self._progress(text)

    def _progress(self, text: bytes) -> None:
        now = perf_counter()
        tally = self._tally
        if tally.recording:
            tally.characters += len(text)
            if self._last:
                tally.gaps.append(now - self._last)
        self._last = now
        if self._expected.startswith(text, self._at):
            self._at += len(text)
        else:
            self._at = len(self._expected) + 1  # nothing that follows can be right

    def end(self, status: int) -> None:
        right = status == 200 and self._at == len(self._expected) and self._latest.endswith(DONE)
        failure = f"status {status}, {self._at} of {len(self._expected)} characters: {self._latest[-300:]!r}"
        self._tally.over(self._asked, "" if right else failure)
        self.over.set_result(right)

    def lost(self) -> None:
        self._tally.over(self._asked, f"the connection was lost after {self._at} characters")
        self.over.set_result(False)


Reader: TypeAlias = Whole | Stream


class Connection(asyncio.Protocol):
    """One kept-alive connection, one question at a time."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._reader: Reader | None = None

    def ask(self, request: bytes, reader: Reader) -> None:
        self._reader = reader
        if self._transport.is_closing():
            self._end(lost=True)
        else:
            self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: Any) -> None:  # uvloop's transports are not asyncio's
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(lost=True)

    def on_body(self, body: bytes) -> None:
        if self._reader is not None:
            self._reader.body(body)

    def on_message_complete(self) -> None:
        self._end(lost=False)

    def _end(self, *, lost: bool) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if lost:
            reader.lost()
        else:
            reader.end(self._parser.get_status_code())


@dataclass(slots=True, frozen=True)
class Window:
    """When to look: ``begin`` and ``end`` are called around ``seconds`` of load, after ``warm`` seconds."""

    warm: float
    seconds: float
    begin: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None


async def answers(question: Question, connections: int, window: Window) -> Tally:
    """Answers over so many connections, each asking again as soon as it was answered, until the window ends.

    Whatever was asked is read to its end. Raises ``TimeoutError`` where that does not come.
    """
    tally = Tally()
    opened = await _connected(question.port, connections)
    async with asyncio.timeout(window.warm + window.seconds + PATIENCE), asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(_keep_asking(connection, question, tally))
        await asyncio.sleep(window.warm)
        window.begin()
        tally.recording = True
        await asyncio.sleep(window.seconds)
        tally.recording = False
        window.end()
        tally.closing = True
    for connection in opened:
        connection.close()
    return tally


async def _keep_asking(connection: Connection, question: Question, tally: Tally) -> None:
    """A connection that failed falls silent; its failure is in the tally."""
    right = True
    while right and not tally.closing:
        reader = (Stream if question.streamed else Whole)(question, tally)
        connection.ask(question.request, reader)
        right = await reader.over


async def _connected(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []
    while len(connections) < count:
        batch = [
            loop.create_connection(Connection, "127.0.0.1", port)
            for _ in range(min(CONNECTS, count - len(connections)))
        ]
        connections += [connection for _, connection in await asyncio.gather(*batch)]
    return connections
