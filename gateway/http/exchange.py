"""One HTTP request and its answer over ASGI: headers checked, body read within bounds, answer sent once.

Rule: what is ambiguous on the wire is refused here, so that nothing behind this file has to think about it:
two Hosts, a length and chunks at once, coded bodies, oversized heads. Every answer carries ``x-request-id``.
Knows nothing about models or keys.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeAlias

from gateway.core.errors import BadRequest, GatewayError, HeadTooLarge, NotJson, RequestTimeout, TooLarge
from gateway.http.deadline import Deadline

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Pairs: TypeAlias = list[tuple[bytes, bytes]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32768  # names and values together; nginx and Envoy allow 32 to 60 KiB
BODY_TIMEOUT = 60.0  # seconds for the whole request body to arrive
# A body that is refused is still read for a while: closing a socket with unread bytes resets it, and the
# client would lose the answer that says why (nginx calls this a lingering close).
LINGER_BYTES = 64 << 20
LINGER_TIMEOUT = 5.0  # seconds
UNWATCHED = 0.02  # seconds before a client's departure is looked for
NAMED = (b"x-request-id",)  # headers of an answer that tell the request's id

_ONCE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"x-api-key",
        b"api-key",
    }
)
_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


def read_head(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers, lower-case name to value (the last of repeated ones, but every cookie).

    Raises ``BadRequest`` where two readers could disagree about what the request is (RFC 9112 3.2, 6.3).
    """
    pairs: Pairs = scope["headers"]
    head = dict(pairs)
    if len(head) != len(pairs):
        _refuse_repeats(pairs)
        if b"cookie" in head:  # what speaks HTTP/2 may bring several (RFC 9113 8.2.3)
            head[b"cookie"] = b"; ".join(value for name, value in pairs if name == b"cookie")
    if len(pairs) > MAX_HEADERS or sum(map(len, head)) + sum(map(len, head.values())) > MAX_HEADER_BYTES:
        raise HeadTooLarge(f"Too many headers: at most {MAX_HEADERS}, {MAX_HEADER_BYTES} bytes together.")
    host = head.get(b"host")
    if host is None or not _HOST.fullmatch(host):
        raise BadRequest("The Host header must be one plain host name or address.", code="invalid_host")
    coding = head.get(b"transfer-encoding")
    framed_twice = b"content-length" in head or scope["http_version"] == "1.0"
    if coding is not None and (framed_twice or coding.lower() != b"chunked"):
        raise BadRequest("Send either Content-Length or chunks, over HTTP/1.1.", code="ambiguous_length")
    if head.get(b"content-encoding", b"identity") not in (b"identity", b""):
        raise NotJson(
            "Send the request body as it is, without Content-Encoding.", code="unsupported_encoding"
        )
    return head


def _refuse_repeats(pairs: Pairs) -> None:
    seen: set[bytes] = set()
    for name, _ in pairs:
        if name in _ONCE and name in seen:
            raise BadRequest(f"The header {name.decode('latin-1')} was sent twice.", code="repeated_header")
        seen.add(name)


async def read_body(
    receive: Receive, head: Mapping[bytes, bytes], limit: int, setting: str | None = "server.max_body"
) -> bytes:
    """The whole body, at most ``limit`` bytes, which is what ``setting`` says; None where none does.

    Raises ``TooLarge``, ``RequestTimeout`` or ``ClientGone``.
    """
    declared = head.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, setting)
    parts: list[bytes] = []
    size = 0
    try:
        with Deadline(BODY_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit, setting)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise RequestTimeout(f"The request body did not arrive within {BODY_TIMEOUT:.0f} s.") from None


def _too_large(limit: int, setting: str | None) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes{f' ({setting})' if setting else ''}.")


class Exchange:
    """The answering half: at most one status line, then a body, or a cut connection."""

    def __init__(self, send: Send, request_id: str, named: tuple[bytes, ...] = NAMED) -> None:
        """``named``: the headers that tell the request's id."""
        self._send = send
        self._identity = [(name, request_id.encode()) for name in named]
        self.status = 0  # 0 until headers were sent
        self.ending: Callable[[], object] | None = None  # called before the last bytes of an answer go out

    @property
    def started(self) -> bool:
        return self.status != 0

    async def answer(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        content_type: str = "application/json",
    ) -> None:
        """A whole answer with its length."""
        pairs = self._pairs(headers, content_type)
        pairs.append((b"content-length", b"%d" % len(body)))
        self.status = status
        if self.ending is not None:
            self.ending()
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: GatewayError, body: bytes | None = None) -> None:
        """The error as a status and a body, OpenAI's envelope if none is given."""
        await self.answer(error.json() if body is None else body, error.headers, status=error.status)

    async def refuse(self, error: GatewayError, body: bytes, receive: Receive) -> None:
        """``fail`` for a request whose body was not read to its end; the connection is closed afterwards."""
        pairs = self._pairs({**error.headers, "connection": "close"}, "application/json")
        self.status = error.status
        pairs.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": error.status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT):
                while left > 0 and (message := await receive()).get("more_body", False):
                    left -= len(message["body"])
        await self._send({"type": "http.response.body", "body": b""})

    async def start(self, headers: Mapping[str, str], content_type: str) -> None:
        """Headers of an answer in pieces."""
        self.status = 200
        pairs = self._pairs(headers, content_type)
        await self._send({"type": "http.response.start", "status": 200, "headers": pairs})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        if self.ending is not None:
            self.ending()
        await self._send({"type": "http.response.body", "body": data})

    def _pairs(self, headers: Mapping[str, str], content_type: str) -> Pairs:
        pairs = [(b"content-type", content_type.encode()), *self._identity]
        pairs += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        return pairs


def _nothing(waited: float) -> None:
    """What a request that says nothing else does when it proves slow."""


Join: TypeAlias = Callable[["Presence"], Callable[[], None]]
"""What is called with a request that takes a while; what it returns is called at the end."""


class Presence:
    """Cancels the work inside ``with`` when the client goes away, and says so as ``ClientGone``.

    uvicorn cancels nothing by itself when a client leaves a request that is still being answered. The watch
    begins ``UNWATCHED`` seconds in: a task for each short answer would cost more than it could save. Then
    ``slow`` is called too, and ``join``; what that returns is called at the end.
    """

    def __init__(self, receive: Receive, join: Join | None = None) -> None:
        self.slow: Callable[[float], None] = _nothing
        self.ended: GatewayError | None = None  # why somebody else ended the work
        self._receive = receive
        self._join = join
        self._leave: Callable[[], None] | None = None
        self._left = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Presence:
        self._worker = asyncio.current_task()
        assert self._worker is not None
        self._timer = self._worker.get_loop().call_later(UNWATCHED, self._begin)  # asking for it costs more
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._leave is not None:
            self._leave()
        if self._watcher is not None:
            self._watcher.cancel()
        # Both hold this. All that a request holds would wait for the search for cycles.
        self._leave = self._watcher = None
        if self.ended is not None and self._worker is not None:
            self._worker.uncancel()
            if kind is asyncio.CancelledError or exc is None:
                raise self.ended
        if self._left and self._worker is not None:
            self._worker.uncancel()
            if kind is asyncio.CancelledError or exc is None:
                raise ClientGone

    def _begin(self) -> None:
        self.slow(UNWATCHED)
        if self._join is not None:
            self._leave = self._join(self)
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def end(self, error: GatewayError) -> None:
        """Cancel the work, and say ``error`` in place of that."""
        if self.ended is None and not self._left and self._worker is not None:
            self.ended = error
            self._worker.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._worker is not None and self.ended is None:
            self._left = True
            self._worker.cancel()
