"""uvicorn, with the bounds it lacks: how long a request's head may take, how large it may be, and how long a
client may leave its answer untaken.

Rule: whoever is slow, or sends what is not HTTP, loses their connection and nothing else; what can be
answered is answered in OpenAI's envelope. Knows nothing about what is served.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing import parent_process
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, ClassVar, TypeAlias

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from gateway.core.errors import BadRequest, GatewayError, HeadTooLarge, ShuttingDown
from gateway.exchange import Exchange, Receive, Scope, Send

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEAD = 65536  # bytes of request line and headers together
KEEP_ALIVE = 75  # seconds an idle connection stays open: longer than clients keep theirs, so that they end it
UNSENT = 262144  # bytes the kernel keeps for a client that does not take them; by default it is megabytes


@dataclass(slots=True, frozen=True)
class Deadlines:
    """Seconds; a connection is looked at four times in the shorter one."""

    head: float = 20.0  # from a request's first byte, or the connection's start, to the end of its head
    stall: float = 60.0  # without the client taking a byte of what is there for it


class Connection(HttpToolsProtocol):
    """One client connection."""

    deadlines: ClassVar[Deadlines] = Deadlines()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outside_body = 0  # bytes received since a head ended or a body went on
        self._too_large = False
        self._untaken = 0  # bytes that the client did not take yet
        self._taken_at = now = self.loop.time()
        self._head_since: float | None = now
        self._period = min(self.deadlines.head, self.deadlines.stall) / 4
        self._timer = self.loop.call_later(self._period, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._outside_body += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._outside_body > MAX_HEAD:  # a head, a chunk's extensions or trailers without an end
            self._too_large = True
            self.send_400_response("")
        elif self._head_since is None and self.cycle.response_complete:
            self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        if self._outside_body > MAX_HEAD and self._head_size() > MAX_HEAD:
            self._too_large = True
            raise ValueError  # httptools makes it a parser error, and uvicorn calls send_400_response
        self._outside_body = 0
        self._head_since = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._outside_body = 0
        super().on_body(body)

    def _head_size(self) -> int:
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + 2

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be read, unless that would end up inside another answer."""
        cycle = self.cycle
        waiting = cycle is not None and not cycle.response_complete
        if waiting and (cycle.response_started or not cycle.more_body):
            self.transport.close()
            return
        error: GatewayError = BadRequest("This is not an HTTP request that can be read.", code="invalid_http")
        if self._too_large:
            error = HeadTooLarge(f"The request line and headers have more than {MAX_HEAD} bytes together.")
        self.transport.write(_whole(error, self.server_state.default_headers))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Upgrades are ignored, as RFC 9110 7.8 allows; clients must not fill our log by asking."""

    def _look(self) -> None:
        now = self.loop.time()
        untaken = self.transport.get_write_buffer_size()
        if untaken == 0 or untaken < self._untaken:
            self._taken_at = now
        self._untaken = untaken
        if now - self._taken_at >= self.deadlines.stall:
            self._reset()
            return
        if self._head_since is not None and now - self._head_since >= self.deadlines.head:
            self.transport.close()
        self._timer = self.loop.call_later(self._period, self._look)


    def _reset(self) -> None:
        """Close now: close() would wait for the client to take the rest, and so would the kernel after it."""
        at_once = struct.pack("ii", 1, 0)  # on, 0 seconds
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()


def _whole(error: GatewayError, headers: list[tuple[bytes, bytes]]) -> bytes:
    body = error.json()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(),
        *(name + b": " + value for name, value in headers),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: req_" + token_hex(12).encode(),
        b"connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def stoppable(app: App) -> App:
    """``app``, with a 503 for requests that the end of the drain cancels, or a cut if they had begun."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            try:
                await Exchange(send, "req_" + token_hex(12)).fail(
                    ShuttingDown("The gateway is shutting down.", headers={"connection": "close"})
                )
            except RuntimeError:  # uvicorn's: the answer had begun
                return

    return serve


# --- the log ---


class Expected(logging.Filter):
    """Drops what uvicorn reports as an error although it was meant: a stream that was cut on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":  # its further lines hold the texts of exceptions
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        return record.msg != "ASGI callable returned without completing response."


class WithoutValues(logging.Formatter):
    """Tracebacks with the types of exceptions but not their texts, which may hold prompts and keys."""

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return "\n".join(_places(ei[1])) if ei[1] is not None else ""


def _places(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _places(cause)
        yield "which led to:"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _places(each)
            yield "in a group:"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield f"{type(error).__module__}.{type(error).__qualname__}"


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"expected": {"()": "gateway.server.Expected"}},
    "formatters": {
        "plain": {"()": "gateway.server.WithoutValues", "format": "%(asctime)s %(levelname)s %(message)s"}
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["expected"]},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}


# --- running ---


@dataclass(slots=True, frozen=True)
class Tls:
    """PEM files; the certificate's file may hold the key too."""

    certfile: Path
    keyfile: Path | None = None

    def check(self) -> None:
        """Raises ``OSError`` or ``ssl.SSLError`` if the files cannot be used; never asks for a password."""
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            self.certfile, self.keyfile, password=""
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to this name or address; port 0 takes a free one. Raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def configure(app: App | str, drain: float, tls: Tls | None = None, workers: int = 1) -> uvicorn.Config:
    """uvicorn's settings for ``app``, or for a factory given as ``module:name``.

    ``drain`` are the seconds that open requests get at the end.
    """
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=drain,  # type: ignore[arg-type] # it may be a fraction
        ssl_certfile=tls.certfile if tls else None,
        ssl_keyfile=tls.keyfile if tls else None,
    )


class _Announced(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class Running:
    """One process that serves; ``ready`` is called when connections are accepted."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._server = _Announced(config, ready)
        self._sock = sock

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then return once open requests ended or were ended."""
        # uvicorn repeats the signal that stopped it when it is done; by default that would end us there.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._server.handle_exit)
        self._server.run(sockets=[self._sock])

    def stop(self) -> None:
        """From any thread."""
        self._server.should_exit = True


def run_workers(config: uvicorn.Config, sock: socket.socket, ready: Callable[[], None]) -> bool:
    """Serve by ``config.workers`` processes until SIGINT or SIGTERM; SIGHUP replaces them one by one.

    False if they could not start.
    """
    threading.Thread(target=_when_accepting, args=(sock, ready), daemon=True).start()
    supervisor = Multiprocess(config, sockets=[sock])
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def _when_accepting(sock: socket.socket, then: Callable[[], None]) -> None:
    host, port = sock.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while True:
        try:
            socket.create_connection((local, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return then()


def leave_with_parent() -> None:
    """Let this worker end when the process that started it is gone, however that came about."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.join,), daemon=True).start()


def _outlive(join: Callable[[], None]) -> None:
    join()
    signal.raise_signal(signal.SIGTERM)
