"""A lean HTTP/1.1 client for one origin: asyncio streams of bytes below, httptools' parser on top.

Rule: one request a connection at a time; a connection is used again only if its last answer was complete,
clean and meant to be followed by another. Closing is synchronous, so nothing that is cancelled leaves a
socket behind. No cookies, redirects, proxies, decoding or retries. Framing: RFC 9112 6.3. Knows nothing
about what is sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import httptools

KEEP_ALIVE = 30.0  # seconds an idle connection is kept: new ones to a distant edge take three round trips
MAX_IDLE = 1000  # connections
MAX_HEAD = 64 << 10  # bytes of an answer's status line and headers
HIGH_WATER = 128 << 10  # bytes read ahead of a slow consumer before the socket is left alone
# TCP's own probes: a peer that vanished without a word is noticed after a minute, between events or not.
_PROBES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes


class Disconnected(ConnectionError):
    """The server closed the connection before its answer was complete.

    ``untouched``: not one byte of an answer had come; ``reused``: the connection had served before.
    """

    def __init__(self, *, untouched: bool, reused: bool) -> None:
        super().__init__("the connection was closed")
        self.untouched = untouched
        self.reused = reused


class BadAnswer(ValueError):
    """What came is not HTTP/1.1, or not within bounds."""


@dataclass(slots=True, frozen=True)
class Origin:
    """Where connections go; ``tls`` is None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Client:
    """Requests to one origin over as many connections as there are requests at once."""

    def __init__(self, origin: Origin, headers: Mapping[str, str], connect_timeout: float) -> None:
        """``headers`` go with every request; ``connect_timeout`` is in seconds."""
        default = 443 if origin.tls else 80
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        host = host if origin.port == default else f"{host}:{origin.port}"
        self._origin = origin
        self._connect_timeout = connect_timeout
        self._common = _lines({"host": host, **headers})
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, fresh: bool = False
    ) -> Response:
        """Send a request; the answer once its headers are there. ``fresh`` asks for a new connection.

        Raises ``TimeoutError`` (no connection in time), ``OSError``, ``Disconnected``, ``BadAnswer``.
        """
        head = f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + self._common + _lines(headers)
        length = b"content-length: %d\r\n\r\n" % len(body) if method == "POST" else b"\r\n"
        connection = (None if fresh else self._idle_one()) or await self._connect()
        return await connection.exchange(head + length + body, method)

    @property
    def connections(self) -> int:
        """How many are open, idle ones included."""
        return len(self._open)

    async def probe(self) -> None:
        """Connect and hang up. Raises ``TimeoutError`` or ``OSError``."""
        (await self._connect()).abort()

    def close(self) -> None:
        """Close every connection, those in use too."""
        for connection in list(self._open):
            connection.abort()

    def _idle_one(self) -> _Connection | None:
        """The connection that was used last: the one least likely to have been given up."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        origin = self._origin
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), origin.host, origin.port, ssl=origin.tls
            )
        return connection

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)

    def release(self, connection: _Connection) -> None:
        """Take back a connection whose answer was complete."""
        if len(self._idle) >= MAX_IDLE:
            connection.abort()
        else:
            self._idle.append(connection)


class Response:
    """One answer. Whoever got it closes it; ``close`` awaits nothing."""

    __slots__ = ("_connection", "headers", "method", "status")

    def __init__(
        self, connection: _Connection | None, method: str, status: int, headers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self.method = method
        self.status = status
        self.headers = headers  # names in lower case; of repeated ones the last

    def parts(self) -> tuple[_Connection | None, str, int, Mapping[str, str]]:
        """What another one for the same answer is made of; this one must not be used then."""
        return self._connection, self.method, self.status, self.headers

    @property
    def complete(self) -> bool:
        """All of the body has been read."""
        return self._connection is None or self._connection.drained()

    async def read(self) -> bytes:
        """What came since the last read, ``b""`` at the end. Raises ``Disconnected`` or ``BadAnswer``."""
        return await self._connection.read() if self._connection is not None else b""

    def close(self) -> None:
        """Give the connection back if all was read, else hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.done()


class _Connection(asyncio.Protocol):
    """One connection, one answer at a time; the methods named ``on_*`` are the parser's callbacks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._served = 0
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)  # only a clean end leaves it to another answer
        self._begin()

    def _begin(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._touched = False
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._head_complete = False
        self._complete = False
        self._reusable = False
        self._body: list[bytes] = []
        self._buffered = 0
        self._paused = False

    # --- what the client asks ---

    async def exchange(self, request: bytes, method: str) -> Response:
        """Send this and wait for the headers of the answer."""
        self._begin()
        self._transport.write(request)
        try:
            while not self._head_complete:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except BaseException:
            self.abort()
            raise
        return Response(self, method, self._parser.get_status_code(), self._headers)

    async def read(self) -> bytes:
        while not self._body:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body, self._buffered = [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def drained(self) -> bool:
        return self._complete and not self._body

    def done(self) -> None:
        """The answer is no longer wanted."""
        if self._reusable and not self._body and not self._lost:
            self._served += 1
            self._timer = self._loop.call_later(KEEP_ALIVE, self.abort)
            self._client.release(self)
        else:
            self.abort()

    def usable(self) -> bool:
        """Take an idle connection out of its rest; false if the server has given it up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return not self._lost and not self._transport.is_closing()

    def abort(self) -> None:
        """Hang up now; who still reads is told that the answer was cut."""
        self._fail(self._cut())
        self._transport.abort()

    def _cut(self) -> Disconnected:
        return Disconnected(untouched=not self._touched, reused=self._served > 0)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._reusable = False
        self._wake()

    # --- what the transport tells ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._client.opened(self)
        _keep_probing(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._client.closed(self)
        if self._head_complete and self._error is None and exc is None and self._until_eof():
            self._complete = True  # RFC 9112 6.3, rule 8: the body ends where the connection does
        self._fail(self._cut())

    def data_received(self, data: bytes) -> None:
        if self._complete:  # nobody asked for this: the server lost count
            self.abort()
            return
        self._touched = True
        if not self._head_complete:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(BadAnswer(str(exc)))
            self.abort()
        else:
            if not self._head_complete and self._head_size > MAX_HEAD:
                self._fail(BadAnswer("the head of the answer is too large"))
                self.abort()

    def _until_eof(self) -> bool:
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    # --- what the parser tells ---

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # afterwards it is a trailer
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # 100 Continue, 103 Early Hints: the answer is yet to come
            self._headers = {}
            return
        self._head_complete = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._buffered += len(body)
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._reusable = not self._complete and self._parser.should_keep_alive() and self._error is None
        self._complete = True
        self._wake()


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def _keep_probing(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
