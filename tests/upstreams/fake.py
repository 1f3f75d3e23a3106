"""A model server that a test scripts byte by byte, on a real socket.

Rule: a script gets one connection and decides what is written on it, when, and how it ends (FIN or RST). It
sees when the other side hangs up. Waits are for events, and bounded by ``soon``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
ACCEPTING = 3  # turns of the loop from a connection to the first step of its task
BOUND = 10.0  # seconds after which a test that waits has failed; nothing is measured with it


async def soon(awaitable: Awaitable[T]) -> T:
    """The result, or a failure instead of a test that hangs."""
    async with asyncio.timeout(BOUND):
        return await awaitable


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def begun() -> None:
    """Let the loop begin with what it has accepted: a task that never ran could not close its connection."""
    for _ in range(ACCEPTING):
        await asyncio.sleep(0)


class Peer:
    """One connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fake: Fake) -> None:
        self._reader = reader
        self._writer = writer
        self._fake = fake
        self.closed = asyncio.Event()  # the other side hung up

    async def request(self) -> Request | None:
        """The next request, whole; None if the other side hung up instead."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, path, _ = first.split(" ", 2)
            pairs = [line.partition(":") for line in lines]
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
            return None
        request = Request(method, path, headers, body)
        self._fake.requests.append(request)
        self._fake.moved.set()
        return request

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has it."""
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    def fin(self) -> None:
        """End our half in good order (FIN); what was written still arrives."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Break the connection (RST)."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side hangs up, whatever it still sends."""
        try:
            while await soon(self._reader.read(65536)):
                pass
        except ConnectionError:
            pass
        self.closed.set()


Script = Callable[[Peer], Awaitable[None]]


class Fake:
    """The running server."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self.moved = asyncio.Event()  # a connection or a request came
        self._scripts: list[asyncio.Task[None]] = []
        self._over = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def visited(self, *, connections: int = 0, requests: int = 0) -> None:
        """Wait until there were so many connections and requests."""
        while len(self.peers) < connections or len(self.requests) < requests:
            self.moved.clear()
            await soon(self.moved.wait())

    async def left(self) -> None:
        """Wait until the other side hung up on every connection."""
        for peer in self.peers:
            await soon(peer.closed.wait())

    async def stop(self) -> None:
        """End what scripts still run."""
        self._over = True
        await begun()
        for task in self._scripts:
            task.cancel()
        await asyncio.gather(*self._scripts)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self)
        self.peers.append(peer)
        task = asyncio.current_task()
        assert task is not None
        self._scripts.append(task)
        self.moved.set()
        try:
            if not self._over:  # else it was accepted too late
                await self.script(peer)
        except ConnectionError:
            peer.closed.set()
        except (AssertionError, TimeoutError) as exc:
            self.failures.append(exc)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Fake]:
    """Run a scripted server; an assertion that failed in its script fails the test."""
    fake = Fake(script)
    server = await asyncio.start_server(fake._serve, "127.0.0.1", 0, limit=1 << 24)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await fake.stop()
    if fake.failures:
        raise fake.failures[0]


# --- what servers say ---


def response(body: bytes, kind: str = "application/json", status: str = "200 OK", headers: str = "") -> bytes:
    """A response with its length."""
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode()
        + body
    )


def head(kind: str = "text/event-stream") -> bytes:
    """The head of a response in chunks."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def event(value: Any) -> bytes:
    """One server-sent event; a string goes out as it is."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


def always(*answers: bytes) -> Script:
    """Answer each request with the next of these; the last one again and again."""
    waiting = list(answers)

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(waiting.pop(0) if len(waiting) > 1 else waiting[0])

    return script


def once(answer: bytes) -> Script:
    """Answer one request, then FIN, and wait for the other side to hang up too."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.fin()
        await peer.gone()

    return script
