"""A gateway and a model container on loopback, in the test's own event loop, both real servers.

The container is a raw socket server that a test scripts: it decides every byte, when to send it, and sees
when its connection is closed. Nothing waits for time to pass: tests await events, bounded by ``soon``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvicorn

from gateway.app import build_app
from gateway.settings import settings_from

T = TypeVar("T")
BOUND = 10.0  # seconds after which a test that waits has failed; nothing is measured with it


async def soon(awaitable: Awaitable[T]) -> T:
    """The result, or a failure instead of a test that hangs."""
    async with asyncio.timeout(BOUND):
        return await awaitable


class _Server(uvicorn.Server):
    """uvicorn that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application; gives its port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", ws="none", http="httptools")
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.serve())
        await soon(server.ready.wait())
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
            await running


@dataclass
class Visit:
    """One request that reached the container, and the socket to answer it on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def answer(self, value: Any, *, status: str = "200 OK", kind: str = "application/json") -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    async def start_stream(self, kind: str = "text/event-stream") -> None:
        await self.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )

    async def event(self, value: Any) -> None:
        data = value if isinstance(value, str) else json.dumps(value)
        await self.chunk(f"data: {data}\n\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def say(self, *texts: str) -> None:
        """A complete streamed answer of these pieces."""
        await self.start_stream()
        for text in texts:
            await self.event({"prompt": text})
        usage = {"prompt_tokens": 3, "completion_tokens": len(texts)}
        await self.event({"prompt": "", "finish_reason": "stop", "usage": usage})
        await self.event("[DONE]")
        await self.end_stream()

    async def until_closed(self) -> None:
        """Wait for the gateway to close its end."""
        while await self.reader.read(65536):
            pass

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Visit], Awaitable[None]]


class Container:
    """A scripted model container; ``visits`` are the requests it has got."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.visits: list[Visit] = []
        self.failures: list[BaseException] = []
        self.visited = asyncio.Event()  # there was a request
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while visit := await _read(reader, writer):
                self.visits.append(visit)
                self.visited.set()
                await self.script(visit)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway hung up, or the test is over
        except (AssertionError, TimeoutError) as exc:
            self.failures.append(exc)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Visit | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = await reader.readline()
        if not line:
            return None
        head += line
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Visit(method, path, headers, body, reader, writer)


@asynccontextmanager
async def container(script: Script) -> AsyncIterator[Container]:
    """Run a scripted container; a failed assertion in its script fails the test."""
    made = Container(script)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
    if made.failures:
        raise made.failures[0]


@dataclass
class House:
    port: int
    container: Container

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def settings(port: int, **model: Any) -> dict[str, Any]:
    """A configuration with one model ``m`` at this port and no keys."""
    upstream = {"kind": "prompt", "url": f"http://127.0.0.1:{port}/", **model.pop("upstream", {})}
    return {"auth": {"mode": "none"}, "models": {"m": {"upstream": upstream, "template": "plain", **model}}}


@asynccontextmanager
async def house(
    script: Script, top: dict[str, Any] | None = None, *, loopback: bool = True, **model: Any
) -> AsyncIterator[House]:
    """A gateway in front of a scripted container."""
    async with container(script) as behind:
        config = {**settings(behind.port, **model), **(top or {})}
        async with listening(build_app(settings_from(config, {}), loopback=loopback)) as port:
            yield House(port, behind)
