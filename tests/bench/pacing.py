"""An engine without a model: it makes one token for each running request at every step, as a GPU does.

    python -m tests.bench.pacing ENGINE serve PORT          behind the contract app, as a model container
    python -m tests.bench.pacing ENGINE direct SECONDS STREAMS TOKENS    in its own process; prints JSON

``ENGINE`` is ``paced``, the one here, or ``transformers``: that engine's own loop, at the same pace.

Rule: the pace is the wall clock's. A step that is read late delays the next one only where a GPU with one
step in flight would have stood still too. Steps are made in a thread of their own, and reach the event loop
as those of the transformers engine do, so that the server's work can disturb them as it would there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from modal_backend.engine import About, Answer, Done, Generates, Piece, Request, Usage
from tests.bench.process import run
from tests.bench.upstream import LINE

STEP = 0.025  # seconds
SLOTS = 64  # requests that run at once
WARM = 1.0  # seconds of load before tokens are counted
PATIENCE = 30.0  # seconds that a step is waited for

Item: TypeAlias = Piece | Done


def word(number: int) -> str:
    """The token with this number, as ``upstream.text`` has it."""
    return f"w{number:05d}" + ("\n" if number % LINE == LINE - 1 else " ")


def every(seconds: float) -> Callable[[], bool]:
    """Returns each time a step is complete; it is always true."""
    due = time.monotonic()

    def complete() -> bool:
        nonlocal due
        due = max(due + seconds, time.monotonic())  # one step is in flight, so one may be complete already
        time.sleep(max(0.0, due - time.monotonic()))
        return True

    return complete


class Hand:
    """Steps that are allowed one by one, for tests; none comes by itself."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._over = False

    def __call__(self) -> bool:
        return self._permits.acquire(timeout=PATIENCE) and not self._over

    def allow(self, steps: int) -> None:
        self._permits.release(steps)

    def end(self) -> None:
        self._over = True
        self.allow(1)


@dataclass(eq=False, slots=True)
class _Job:
    """One request; ``ready`` are items that its event loop has and nobody took yet."""

    request: Request
    most: int
    said: int = 0
    cancelled: bool = False
    ready: list[Item] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self) -> list[Item]:
        """The next token, and with the last one the end."""
        self.said += 1
        usage = Usage(len(self.request.prompt.split()), self.said)
        piece = Piece(word(self.said - 1), usage=usage)
        return [piece, Done("length", usage)] if self.said == self.most else [piece]


class Paced:
    """Answers with numbered words. ``complete`` blocks until a step is made; false ends the engine."""

    about = About("paced", frozenset({"max_tokens"}), "no model runs: numbered words at a steady pace")

    def __init__(self, slots: int = SLOTS, complete: Callable[[], bool] | None = None) -> None:
        self.steps = 0
        self._slots = slots
        self._complete = complete or every(STEP)
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="stepping", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def fault(self) -> str | None:
        return None

    async def close(self) -> None:
        self._stopping = True
        await asyncio.to_thread(self._thread.join)

    async def generate(self, request: Request) -> Answer:
        job = _Job(request, request.max_tokens or 1000)
        with self._lock:
            self._waiting.append(job)
        try:
            while True:
                await job.arrived.wait()
                job.arrived.clear()
                items, job.ready = job.ready, []
                for item in items:
                    yield item
                    if isinstance(item, Done):
                        return
        finally:
            job.cancelled = True

    # --- the thread ---

    def _run(self) -> None:
        while self._complete() and not self._stopping:
            self._step()

    def _step(self) -> None:
        self.steps += 1
        with self._lock:
            running = [job for job in self._running if not job.cancelled]
            while self._waiting and len(running) < self._slots:
                job = self._waiting.popleft()
                running += [job] if not job.cancelled else []
        made = [(job, job.say()) for job in running]
        self._running = [job for job in running if job.said < job.most]
        if made:
            with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_arrive, made)


def _arrive(made: Sequence[tuple[_Job, list[Item]]]) -> None:
    for job, items in made:
        job.ready += items
        job.arrived.set()


# --- as processes ---


@dataclass(slots=True)
class Count:
    """What was seen while ``recording``: tokens, and seconds between two of one stream."""

    recording: bool = False
    closing: bool = False
    tokens: int = 0
    complete: int = 0
    gaps: list[float] = field(default_factory=list)


def made(name: str) -> Generates:
    if name == "transformers":
        from tests.bench.paced_decoding import made as decoding

        return decoding()
    return Paced()


async def direct(engine: Generates, seconds: float, streams: int, tokens: int) -> Count:
    """So many streams straight from the engine, each asking again until the window ends."""
    count = Count()
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(_keep_asking(engine, tokens, count))
        await asyncio.sleep(WARM)
        count.recording = True
        await asyncio.sleep(seconds)
        count.recording, count.closing = False, True
    await engine.close()
    return count


async def _keep_asking(engine: Generates, tokens: int, count: Count) -> None:
    while not count.closing:
        last, said = 0.0, 0
        async for item in engine.generate(Request(prompt="count", max_tokens=tokens)):
            if isinstance(item, Done):
                count.complete += 1
                continue
            before, said = said, item.usage.completion_tokens if item.usage else said
            if count.recording:
                now = time.perf_counter()
                count.tokens += said - before
                if last:
                    count.gaps.append(now - last)
                last = now


async def serve(name: str, port: int) -> None:
    """As ``python -m modal_backend`` serves its engines, until the process is ended."""
    from modal_backend.__main__ import _Server, listen

    await _Server(made(name), "127.0.0.1", port).serve(sockets=[listen("127.0.0.1", port)])


async def _direct(name: str, seconds: str, streams: str, tokens: str) -> None:
    seen = await direct(made(name), float(seconds), int(streams), int(tokens))
    print(json.dumps({"tokens": seen.tokens, "complete": seen.complete, "gaps": seen.gaps}))


if __name__ == "__main__":
    engine, command, *arguments = sys.argv[1:]
    if command == "serve":
        asyncio.run(serve(engine, int(arguments[0])))
    else:
        run(_direct(engine, *arguments))
