"""The log of requests: records come from the event loop, a thread renders them and writes their lines.

Rule: a request leaves its record and goes on. Lines are bounded: while nobody takes them new ones are
dropped, and how many is said. None is lost at a normal end. Knows nothing about what a line looks like.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue

from gateway.record import Record

PAUSE = 0.05  # seconds in which records are gathered
MOST = 20_000  # records that wait to be written
PIECE = 4096  # bytes that a pipe takes from several processes without mixing them (PIPE_BUF of Linux)
END = 5.0  # seconds for what is left at the end

log = logging.getLogger("gateway")


class RequestLog:
    """``render`` makes a record's line; ``write`` takes whole lines, at most ``PIECE`` bytes if they fit."""

    def __init__(self, render: Callable[[Record], bytes], write: Callable[[bytes], object]) -> None:
        self._render = render
        self._write = write
        self._gathered: list[Record] = []
        self._batches: SimpleQueue[Sequence[Record] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None  # while the thread runs
        self._timer: asyncio.TimerHandle | None = None
        self._given = self._written = 0  # records; the second is the thread's
        self._dropped = 0

    def observe(self, record: Record) -> None:
        """Write the line of this request, soon."""
        if self._loop is None:
            self._write_all([record])
        elif self._given - self._written >= MOST:
            self._dropped += 1
        else:
            self._given += 1
            self._gathered.append(record)
            if self._timer is None:
                self._timer = self._loop.call_later(PAUSE, self._hand_over)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The thread runs inside; afterwards everything is written, and what still comes at once."""
        thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        thread.start()
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            loop, self._loop = self._loop, None
            self._hand_over()
            self._batches.put(None)
            await asyncio.shield(loop.run_in_executor(None, thread.join, END))
            self._tell_dropped()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            self._batches.put(self._gathered)
            self._gathered = []
        if self._given - self._written < MOST:
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self._dropped:
            log.warning("%d requests have no line in the log, because nobody took it", self._dropped)
            self._dropped = 0

    # --- in the thread ---

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._write_all(batch)
            except Exception:
                log.exception("lines of %d requests could not be written", len(batch))
            self._written += len(batch)

    def _write_all(self, records: Sequence[Record]) -> None:
        piece = b""
        for record in records:
            line = self._render(record)
            if len(piece) + len(line) > PIECE and piece:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)


def to_descriptor(number: int) -> Callable[[bytes], None]:
    """Writes to an open file, in one piece where the system can. What nobody takes is lost."""

    def write(data: bytes) -> None:
        with suppress(OSError):
            while data:
                try:
                    data = data[os.write(number, data) :]
                except BlockingIOError:
                    select.select([], [number], [])

    return write
