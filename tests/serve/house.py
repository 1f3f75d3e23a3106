"""A gateway and a model container on loopback, in the test's own event loop, both real servers.

The container is a raw socket server that a test scripts: it decides every byte, when to send it, and sees
when its connection is closed. Where sockets do not matter, ``Desk`` is the chat endpoint over ``Scripted``
upstreams in this process. Nothing waits for time to pass: tests await events, bounded by ``soon``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import uvicorn

from gateway.app import build_app
from gateway.auth import Keys
from gateway.core.call import Call, Traits
from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Finish, Text, Usage
from gateway.core.spec import ModelSpec
from gateway.http.exchange import Message
from gateway.limits.leases import Leases
from gateway.limits.memory import Memory
from gateway.limits.rules import Amount, Kind
from gateway.limits.scopes import Scopes
from gateway.record import Record
from gateway.routing.routes import Deployment, Routes
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.serve.api import Api
from gateway.serve.books import Books
from gateway.serve.service import Service
from gateway.serve.surfaces import CHAT
from gateway.settings import Auth, Server, settings_from
from gateway.telemetry.families import exposition
from gateway.telemetry.metrics import Metrics
from gateway.templates import load
from gateway.upstreams import Observed, Traffic
from gateway.world import World
from tests.upstreams.fake import begun

T = TypeVar("T")
GRACE = 0.1  # seconds that requests get at the end of a server before they are cancelled
BOUND = 10.0  # seconds after which a test that waits has failed; nothing is measured with it
STRIDE = 0.05  # seconds that a clock which runs faster goes on in one turn of its loop


async def soon(awaitable: Awaitable[T], bound: float = BOUND) -> T:
    """The result, or a failure instead of a test that hangs."""
    async with asyncio.timeout(bound):
        return await awaitable


@contextmanager
def faster(times: float) -> Iterator[float]:
    """Lets the event loop's clock run this many times faster; gives the bound for ``soon`` meanwhile.

    What holds up the loop holds up its clock too: one turn of the loop takes ``STRIDE`` at most, so that on a
    busy machine nothing is late because of that.
    """
    loop = asyncio.get_running_loop()
    real = loop.time
    now = seen = real()
    awake = True

    def turn() -> None:  # a loop with nothing to do would wait by the real clock
        nonlocal now, seen
        if awake:
            before, seen = seen, real()
            now += min((seen - before) * times, STRIDE)
            loop.call_soon(turn)

    loop.time = lambda: now  # type: ignore[method-assign]
    turn()
    try:
        yield BOUND * times
    finally:
        awake = False
        gained = now - real()  # a clock that went back would hold up every timer that is set
        loop.time = lambda: real() + gained  # type: ignore[method-assign]


class _Server(uvicorn.Server):
    """uvicorn that says when it listens and is told when to end: its own pauses would be most of a test."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready, self.over = asyncio.Event(), asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.over.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            _, late = await asyncio.wait(self.server_state.tasks, timeout=GRACE)
            for task in late:
                task.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application; gives its port. At the end its requests are cancelled and it shuts down."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="critical",
        ws="none",
        http="httptools",
        lifespan="on",
        timeout_graceful_shutdown=0,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.serve())
        await soon(server.ready.wait())
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.over.set()
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
        return json.loads(self.body or b"{}")

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
        self._running: set[asyncio.Task[Any]] = set()
        self._over = False

    async def stop(self) -> None:
        """End what scripts still run."""
        self._over = True
        await begun()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            while not self._over and (visit := await _read(reader, writer)):
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
        await made.stop()
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


# --- in this process ---

Step: TypeAlias = Batch | GatewayError | Callable[[], Awaitable[object]]
"""What an upstream does next: give a batch, fail, or wait for something."""

PROMPT = Traits("prompt")
AMPLE = Bounds(8, 8, 60.0)
HELLO: Sequence[Step] = [[Text("hello"), Finish("stop", Usage(1, 1))]]


class Scripted:
    """An upstream in this process. Each call takes the next turn, at the end the last one again."""

    def __init__(self, name: str, *turns: Sequence[Step], traits: Traits = PROMPT) -> None:
        self.name = name
        self.traits = traits
        self.calls: list[Call] = []
        self.asked = asyncio.Event()  # there was a call
        self.woken = 0
        self._turns = turns or (HELLO,)

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        turn = self._turns[min(len(self.calls), len(self._turns) - 1)]
        self.calls.append(call)
        self.asked.set()
        for step in turn:
            if isinstance(step, GatewayError):
                raise step
            if callable(step):
                await step()
            else:
                yield step

    def body(self, call: Call) -> bytes:
        return b"{}"

    async def reachable(self) -> None:
        """It is here."""

    async def wake(self) -> None:
        """Counts; fails as the next turn would."""
        self.woken += 1
        turn = self._turns[min(len(self.calls), len(self._turns) - 1)]
        if turn and isinstance(turn[0], GatewayError):
            raise turn[0]

    async def observed(self) -> Observed | None:
        return None

    def traffic(self) -> Traffic:
        return Traffic()

    async def aclose(self) -> None:
        """There is nothing to close."""


def deployed(
    *upstreams: Scripted,
    name: str = "m",
    bounds: Bounds = AMPLE,
    spec: dict[str, Any] | None = None,
    **fields: Any,
) -> Deployment:
    """A model over these upstreams; ``spec`` are fields of its ``ModelSpec``."""
    known = ModelSpec(name, load("plain"), **(spec or {}))
    return Deployment(known, [Target(each, bounds, time.monotonic) for each in upstreams], **fields)


class Line:
    """One request straight into an ASGI application, and what it has been sent."""

    def __init__(self, path: str = "/v1/chat/completions", body: bytes = b"", *, cut: bool = False) -> None:
        """``cut``: the client hangs up inside its body."""
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
        }
        self.said: list[Message] = []
        self.left = asyncio.Event()  # the client hangs up
        self._news = asyncio.Event()
        self._parts = [{"type": "http.request", "body": body, "more_body": cut}]
        if cut:
            self.left.set()

    @property
    def status(self) -> int:
        return int(self.said[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.said)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer that is nothing else."""
        return dict(json.loads(self.body)["error"])

    async def until(self, part: bytes) -> None:
        """Wait until this was sent."""
        while part not in self.body:
            self._news.clear()
            await self._news.wait()

    async def receive(self) -> Message:
        if self._parts:
            return self._parts.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.said.append(message)
        self._news.set()


def unbounded(world: World) -> Books:
    """Books in which nothing is kept, over limits of which there are none but those of models."""

    async def nothing(kind: Kind, id: str, since: float) -> Amount:
        return Amount()

    return Books(Leases(Memory(world.monotonic, world.time), Scopes({}), nothing, world.time), world)


class Desk:
    """The chat endpoint over these models; ``now`` is its clock, ``records`` are what it observed."""

    def __init__(self, *models: Deployment, default: str | None = None, **limits: Any) -> None:
        self.now = 0.0
        self.records: list[Record] = []
        self.metrics = Metrics()
        world = World(time=lambda: 0.0, monotonic=lambda: self.now, new_id=lambda: "0" * 24)
        self.service = Service(
            limits=Server(**limits),
            keys=Keys(Auth(mode="none")),
            routes=Routes(models, default),
            world=world,
            began=self.metrics.began,
            observe=(self.metrics.observe, self.records.append),
            books=unbounded(world),
        )
        self._chat = Api(self.service, CHAT)

    def line(self, **fields: Any) -> Line:
        """A request that ``take`` has not seen yet."""
        ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        return Line(body=json.dumps(ask).encode())

    async def take(self, line: Line) -> None:
        await self._chat(line.scope, line.receive, line.send)

    async def ask(self, **fields: Any) -> Line:
        """Ask and be answered."""
        line = self.line(**fields)
        await soon(self.take(line))
        return line

    def counted(self, line: str) -> bool:
        """True if the metrics have this line."""
        return line in exposition(self.metrics.families()).decode().splitlines()
