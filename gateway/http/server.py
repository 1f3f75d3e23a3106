"""The gateway's server: uvicorn, with its log. Several processes of it are `gateway/http/workers.py`.

Rule: what was cut on purpose is no error, and what is logged holds no value that a request brought. Requests
that the end finds unanswered are told so. Knows nothing about what is served.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, TypeAlias

import uvicorn
from orjson import dumps

from gateway.core.errors import ShuttingDown
from gateway.http.connection import Connection
from gateway.http.exchange import Exchange, Receive, Scope, Send
from gateway.telemetry.lines import stamp

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE = 75  # seconds an idle connection stays open: longer than clients keep theirs, so that they end it
UNSENT = 262144  # bytes the kernel keeps for a client that does not take them; by default it is megabytes


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


def configure(
    app: App | str, drain: float, tls: Tls | None = None, workers: int = 1, *, json: bool = False
) -> uvicorn.Config:
    """uvicorn's settings for ``app``, or for a factory given as ``module:name``.

    ``drain`` are the seconds that open requests get at the end; ``json``: each line of the log is an object.
    """
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=logging_config("json" if json else "plain"),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=drain,  # type: ignore[arg-type] # it may be a fraction
        ssl_certfile=tls.certfile if tls else None,
        ssl_keyfile=tls.keyfile if tls else None,
    )


# Objects made since the last young collection. Requests free what they use by counting references; at the
# default of 700 the search for cycles among requests in flight costs a quarter of a short answer's CPU time.
COLLECT_AFTER = 20_000


def settle_collector() -> None:
    """Tell the garbage collector that what start-up made stays; for a process that is ready to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class _Announced(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        settle_collector()
        self._ready()


def ignore_replacing() -> None:
    """SIGUSR2 is for the process that starts workers; any other would be ended by it."""
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


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
        ignore_replacing()
        self._server.run(sockets=[self._sock])

    def stop(self) -> None:
        """From any thread."""
        self._server.should_exit = True

    @property
    def stopping(self) -> bool:
        return self._server.should_exit


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


class AsJson(WithoutValues):
    """One object a line, beside the lines of requests."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "event": "log",
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return dumps({name: value.encode(errors="replace").decode() for name, value in line.items()}).decode()


def logging_config(formatter: Literal["plain", "json"]) -> dict[str, Any]:
    """What `logging.config` is told."""
    handler = {"class": "logging.StreamHandler", "formatter": formatter, "filters": ["expected"]}
    plain = {"()": "gateway.http.server.WithoutValues", "format": "%(asctime)s %(levelname)s %(message)s"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"expected": {"()": "gateway.http.server.Expected"}},
        "formatters": {"plain": plain, "json": {"()": "gateway.http.server.AsJson"}},
        "handlers": {"stderr": handler},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
