"""Serve an engine over the prompt contract, version 1, as one plain ASGI application.

Rule: a failure before the first piece is a real HTTP status, a later one an error event without ``[DONE]``;
what failed never looks like an end. A client that leaves cancels its request at once, in a stream and in a
whole answer.
Needs the standard library only, so that any model's image can hold it. Knows nothing about engines but their
protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from modal_backend import answers
from modal_backend.engine import BadRequest, Embeds, Engine, EngineDead, EngineError, Generates
from modal_backend.fields import ToContinue, ToEmbed, read

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

PROMPT_PATHS = ("", "/prompt")  # without their trailing slash
HEALTH_PATHS = ("/health",)

log = logging.getLogger("modal_backend")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost, and how long a stream may be silent.

    Modal's edge answers a web function's request with a redirect when nothing was sent for 150 seconds.
    """

    max_body: int = 64 << 20  # bytes
    first_byte: float = 5.0  # seconds until a stream without a piece sends its headers
    keep_alive: float = 10.0  # seconds of silence before a comment is sent


class _Refused(Exception):
    """A request that never reaches the engine."""

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class _Gone(Exception):
    """The client left before its request was complete."""


def contract_app(engine: Engine, limits: Limits | None = None) -> ASGIApp:
    """The application for ``engine``. It neither starts nor closes the engine: who made it does."""
    limits = limits or Limits()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _http(engine, limits, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _http(engine: Engine, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
    method, path = scope["method"], scope["path"].rstrip("/")
    try:
        if path in HEALTH_PATHS:
            _allow(method, "GET", "HEAD")
            await _health(engine, send)
        elif path in PROMPT_PATHS:
            _allow(method, "POST")
            body = await _body(scope, receive, limits.max_body)
            await _unless_gone(_prompt(engine, limits, body, send), receive)
        else:
            raise _Refused(404, "not_found", "there is nothing here: POST a prompt to /, or GET /health")
    except _Refused as refused:
        await _error(send, refused)
    except _Gone:
        return


async def _prompt(engine: Engine, limits: Limits, body: bytes, send: Send) -> None:
    """Answer one request of the contract; whatever goes wrong is told to the client."""
    try:
        if fault := engine.fault():
            raise EngineDead(fault)
        asked = read(body, engine.about.honours)
        if isinstance(asked, ToEmbed):
            await _embed(engine, asked, send)
        elif not isinstance(engine, Generates):
            raise BadRequest(f"the engine {engine.about.name} continues no prompts: give `input`")
        elif asked.stream:
            await _streamed(engine, asked, _Stream(send, limits))
        else:
            await _whole(engine, asked, send)
    except Exception as error:  # noqa: BLE001 - the boundary: an engine may fail in any way its library does
        await _error(send, error)


async def _whole(engine: Generates, asked: ToContinue, send: Send) -> None:
    collected = answers.Collected(asked)
    async with aclosing(answers.answer(engine, asked)) as items:
        async for item in items:
            if isinstance(item, answers.End):
                await _json(send, 200, collected.body(item))
            else:
                collected.add(item)


async def _streamed(engine: Generates, asked: ToContinue, stream: _Stream) -> None:
    async with asyncio.TaskGroup() as group:
        alive = group.create_task(stream.keep_alive())
        try:
            async with aclosing(answers.answer(engine, asked)) as items:
                async for item in items:
                    if last := isinstance(item, answers.End):
                        alive.cancel()  # nothing may follow the end
                    await stream.write(answers.event(item, asked), last=last)
        except Exception as error:  # noqa: BLE001 - as in _prompt, but the stream may have begun
            alive.cancel()
            await stream.fail(error)
        finally:
            alive.cancel()


async def _embed(engine: Engine, asked: ToEmbed, send: Send) -> None:
    if not isinstance(engine, Embeds):
        raise BadRequest(f"the engine {engine.about.name} makes no embeddings: give `prompt`, not `input`")
    made = await engine.embed(asked.texts)
    await _json(send, 200, answers.embeddings_body(made, asked.ignored))


class _Stream:
    """A stream of server-sent events. Its first write sends the headers; until then failure is a status."""

    def __init__(self, send: Send, limits: Limits) -> None:
        self._send = send
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._written = self._clock()
        self._writing = asyncio.Lock()  # the answer and its keep-alives share one connection
        self._open = False

    async def write(self, data: bytes, *, last: bool = False) -> None:
        async with self._writing:
            if not self._open:
                self._open = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})
            self._written = self._clock()

    async def keep_alive(self) -> None:
        """Open a stream that has no piece yet, and break every silence, until cancelled."""
        wait = self._limits.first_byte
        while True:
            await asyncio.sleep(wait)
            silent = self._clock() - self._written
            if not self._open or silent >= self._limits.keep_alive:
                await self.write(answers.KEEP_ALIVE)
                silent = 0.0
            wait = self._limits.keep_alive - silent

    async def fail(self, error: Exception) -> None:
        if self._open:
            await self.write(answers.error_event(*told(error)), last=True)
        else:
            await _error(self._send, error)


async def _unless_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do ``work``; cancel it the moment the client leaves. Returns when the work has ended either way."""
    async with asyncio.TaskGroup() as group:
        job = group.create_task(work)
        gone = group.create_task(_left(receive))
        job.add_done_callback(lambda _: gone.cancel())
        gone.add_done_callback(lambda _: job.cancel())


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(scope: Scope, receive: Receive, most: int) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
            raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> _Refused:
    return _Refused(413, "request_too_large", f"the body must have at most {most} bytes")


async def _health(engine: Engine, send: Send) -> None:
    if fault := engine.fault():
        raise _Refused(EngineDead.status, EngineDead.code, fault)
    about = engine.about
    status = {"status": "ok", "engine": about.name, "note": about.note, "honours": sorted(about.honours)}
    await _json(send, 200, answers.json_bytes(status))


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        message = f"{method} is not allowed here, only {' and '.join(allowed)}"
        raise _Refused(405, "method_not_allowed", message, [(b"allow", ", ".join(allowed).encode())])


def told(error: Exception) -> tuple[str, str, int]:
    """Message, code and status for the client. What we did not foresee is logged and not shown."""
    if isinstance(error, _Refused | EngineError):
        return str(error), error.code, error.status
    log.error("a request failed in an unforeseen way", exc_info=error)
    return "the engine failed in an unforeseen way; the container's log says more", "internal_error", 500


async def _error(send: Send, error: Exception) -> None:
    message, code, status = told(error)
    headers = error.headers if isinstance(error, _Refused) else ()
    await _json(send, status, answers.error_body(message, code, status), headers)


async def _json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    length = (b"content-length", b"%d" % len(body))
    start = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
