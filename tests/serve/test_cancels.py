"""Clients that leave at any moment, by the thousand: nothing of theirs stays open, held or running.

Rule: who leaves when is drawn from a seed; what is asserted is the state once all have left.
"""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from gateway.app import App, build_app
from gateway.settings import settings_from
from tests.serve.house import Container, House, Line, listening, soon
from tests.serve.test_chat import ASK, greet, post, text

pytestmark = pytest.mark.slow

WORKERS = 48  # clients at once
CONCURRENCY = 8  # calls at once of each model: the others wait in its queue
MODELS = ("answers", "streams", "silent", "cold")


class Models:
    """Four ways to keep a client waiting; once ``calm``, all answer. Each connection serves one call."""

    def __init__(self) -> None:
        self.open = 0  # connections
        self.seen = 0  # calls
        self.calm = False
        self.gate: asyncio.Event | None = None  # answers wait for it
        self.held = 0  # that do

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().strip("/")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = json.loads(await reader.readexactly(int(length or 0)) or b"{}")
            self.seen += 1
            await self._answer("answers" if self.calm else path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway hung up, or the test is over
        finally:
            self.open -= 1
            writer.close()

    async def _answer(
        self, model: str, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if model == "silent":
            await reader.read()
        elif model == "cold":
            writer.write(b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        elif model == "streams":
            writer.write(STREAM)
            while not reader.at_eof():
                writer.write(b'data: {"prompt":"word "}\n\n')
                await writer.drain()
                await asyncio.sleep(0.002)
        else:
            if self.gate is not None:
                self.held += 1
                await self.gate.wait()
            writer.write(STREAM + END if body.get("stream") else WHOLE)


STREAM = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
END = b'data: {"prompt":"hello","finish_reason":"stop"}\n\ndata: [DONE]\n\n'
WHOLE = (
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 18\r\n\r\n{"prompt":"hello"}'
)


def configured(port: int) -> App:
    models = {}
    for name in MODELS:
        upstream = {"url": f"http://127.0.0.1:{port}/{name}", "max_concurrency": CONCURRENCY}
        models[name] = {"upstream": upstream, "template": "plain"}
    return build_app(settings_from({"auth": {"mode": "none"}, "models": models}, {}))


class Leaver:
    """One client after the other, each of which leaves, at a moment and in a way that are drawn."""

    def __init__(self, app: App, port: int, seed: int) -> None:
        self.app = app
        self.port = port
        self.draw = random.Random(seed)

    async def leave(self) -> None:
        fields = {**ASK, "model": self.draw.choice(MODELS), "stream": self.draw.random() < 0.5}
        if self.draw.random() < 0.2:
            fields["n"] = 2
        way = self.draw.choice([*[self._hang_up] * 3, self._in_the_middle, self._twice])
        await way(json.dumps(fields).encode())

    @property
    def moment(self) -> float:
        """Seconds; a departure is looked for from a fiftieth of a second on."""
        return self.draw.choice([0.0, self.draw.uniform(0, 0.02), self.draw.uniform(0, 0.06)])

    async def _hang_up(self, body: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(_head(len(body)) + body)
        await self._wait(reader)
        writer.transport.abort() if self.draw.random() < 0.5 else writer.close()

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(self.moment):
                while await reader.read(65536):
                    pass
        except (TimeoutError, ConnectionError):
            pass

    async def _in_the_middle(self, body: bytes) -> None:
        """Inside the request, or before there is any."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        whole = _head(len(body)) + body
        writer.write(whole[: self.draw.randrange(len(whole))])
        await asyncio.sleep(self.moment)
        writer.transport.abort()

    async def _twice(self, body: bytes) -> None:
        """The client leaves, and the server ends the request too, once or twice."""
        line = Line(body=body)

        async def ask() -> None:
            await self.app(line.scope, line.receive, line.send)

        async with asyncio.TaskGroup() as group:
            served = group.create_task(ask())
            await asyncio.wait({served}, timeout=self.moment)
            line.left.set()
            for _ in range(self.draw.randrange(1, 3)):
                for _ in range(self.draw.randrange(3)):
                    await asyncio.sleep(0)
                served.cancel()


def _head(length: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


async def until(met: Callable[[], bool]) -> None:
    """Look again and again, as nobody tells."""
    while not met():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def all_slots_are_free(models: Models, at: House) -> None:
    """As many calls as each model has slots reach it side by side."""
    for name in MODELS:
        models.gate, models.held = asyncio.Event(), 0
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(post(at, model=name)) for _ in range(CONCURRENCY)]
            await soon(until(lambda: models.held == CONCURRENCY))
            models.gate.set()
            assert [(await soon(call)).status_code for call in calls] == [200] * CONCURRENCY
    models.gate = None


async def next_are_fine(at: House, count: int) -> None:
    for _ in range(count // 20):
        asked = [post(at, model=MODELS[i % 4], stream=i % 3 == 0) for i in range(20)]
        for index, answer in enumerate(await soon(asyncio.gather(*asked))):
            assert answer.status_code == 200
            said = text(answer.text) if index % 3 == 0 else answer.json()["choices"][0]["message"]["content"]
            assert said == "hello"


async def left_by(count: int, seed: int) -> None:
    """So many clients leave; afterwards nothing of them is left."""
    models = Models()
    server = await asyncio.start_server(models.handle, "127.0.0.1", 0, backlog=1000)
    app = configured(server.sockets[0].getsockname()[1])
    async with server, listening(app) as port:
        before = asyncio.all_tasks()
        leaver, left = Leaver(app, port, seed), iter(range(count))

        async def work() -> None:
            for _ in left:
                await leaver.leave()

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
        await soon(until(lambda: models.open == 0 and asyncio.all_tasks() <= before))
        assert models.seen > count / 20  # not all were too quick to be sent anywhere
        models.calm = True
        at = House(port, Container(greet))  # nobody calls this one
        await all_slots_are_free(models, at)
        await next_are_fine(at, 100)
        await soon(until(lambda: models.open == 0))


async def test_five_hundred_clients_that_leave_leave_nothing() -> None:
    await left_by(500, seed=1)


async def test_ten_thousand_clients_that_leave_leave_nothing() -> None:
    await left_by(10_000, seed=2)
