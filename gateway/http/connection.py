"""One client connection of uvicorn's, with the bounds it lacks: how long a request's head may take, how large
it may be, and how long a client may leave its answer untaken.

Rule: whoever is slow, or sends what is not HTTP, loses their connection and nothing else; what can be
answered is answered in OpenAI's envelope. Knows nothing about what is served.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.core.errors import BadRequest, GatewayError, HeadTooLarge
from gateway.http.corked import Corked

MAX_HEAD = 65536  # bytes of request line and headers together


@dataclass(slots=True, frozen=True)
class Deadlines:
    """Seconds; a connection is looked at four times in the shorter one."""

    head: float = 20.0  # from a request's first byte, or the connection's start, to the end of its head
    stall: float = 60.0  # without the client taking a byte of what is there for it
    linger: float = 0.25  # that an idle connection stays at the end, for a request that is on its way


class Connection(HttpToolsProtocol):
    """One client connection."""

    deadlines: ClassVar[Deadlines] = Deadlines()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]
        self._outside_body = 0  # bytes received since a head ended or a body went on
        self._too_large = False
        self._ending = False  # no request after this one
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
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._go_on(data[stopped.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")
        if self.transport.is_closing():
            return
        if self._outside_body > MAX_HEAD:  # a head, a chunk's extensions or trailers without an end
            self._too_large = True
            self.send_400_response("")
        elif self._head_since is None and self.cycle.response_complete:
            self._head_since = self.loop.time()

    def _go_on(self, rest: bytes) -> None:
        """Read a request that asks for another protocol as if it did not: RFC 9110 7.8 lets us.

        The parser stops behind the head of such a request (Java's client asks for HTTP/2 in every first one),
        so a new one reads it again without the header that asks.
        """
        if self.parser.get_method() == b"CONNECT":  # this one asks by its method, and we are no proxy
            self.send_400_response("")
            return
        head = b"%s %s HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        head += b"".join(b"%s: %s\r\n" % pair for pair in self.headers if pair[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + b"\r\n" + rest)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self._outside_body > MAX_HEAD and self._head_size() > MAX_HEAD:
            self._too_large = True
            raise ValueError  # httptools makes it a parser error, and uvicorn calls send_400_response
        self._outside_body = 0
        self._head_since = None
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._outside_body = 0
        super().on_body(body)

    def shutdown(self) -> None:
        """The server ends. An idle connection closed at once would take along a request just sent."""
        self._ending = True
        running = self.cycle is not None and not self.cycle.response_complete
        if running and not self.cycle.response_started:
            self.cycle.keep_alive = False  # the client is told with the answer
        elif not running:
            self.loop.call_later(self.deadlines.linger, self._end)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ending:
            self.loop.call_later(self.deadlines.linger, self._end)

    def _end(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

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

    def _look(self) -> None:
        # Over TLS only what is not yet encrypted is seen; there, closing has asyncio's own limit of 30 s.
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
