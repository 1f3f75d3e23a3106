"""Bytes of a stream -> its payloads: server-sent events (WHATWG HTML 9.2.6) or one JSON text a line.

Rule: the result does not depend on how the bytes were cut. Only LF, CR and CRLF end a line; U+2028 and its
like, which JSON may hold, do not. Every buffer is bounded, and what was searched once is not searched
again.
Knows nothing about JSON or about what a payload means.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.errors import UpstreamError

MAX_EVENT = 4 << 20  # bytes; a whole answer of 4,000 tokens with 20 logprobs each, sent as one event

_BOM = b"\xef\xbb\xbf"


class Decoder(Protocol):
    """What cuts a byte stream into payloads; made anew for each stream."""

    def feed(self, chunk: bytes) -> list[bytes]: ...


class SSEDecoder:
    """The data of each event. Names, ids, retry times and comments are dropped."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._pending = bytearray()  # an event that is not complete; it holds no blank line
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._start: bytes | None = b""  # what may yet become a byte order mark; None once that is decided

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events this chunk completes; ``b""`` ends the stream and gives back an unterminated one.

        WHATWG drops an event that the end of the stream cuts. Here it is given back: what is in it decides
        whether it is whole. Raises ``UpstreamError`` for an event larger than ``max_event`` bytes.
        """
        if not chunk:
            return self._end()
        if self._start is not None or self._after_cr or b"\r" in chunk:
            chunk = self._normalised(chunk)
        if self._pending:
            return self._resumed(chunk)
        # Most reads hold whole events of one data line each. Then every LF belongs to a separator.
        if chunk[:6] == b"data: " and chunk[-2:] == b"\n\n" and len(chunk) <= self._max:
            payloads = chunk[6:-2].split(b"\n\ndata: ")
            if chunk.count(b"\n") == 2 * len(payloads):
                return payloads
        return self._blocks(chunk)

    def _normalised(self, chunk: bytes) -> bytes:
        """The chunk with LF as its only line end, and without the byte order mark that may open a stream."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return b""
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _resumed(self, chunk: bytes) -> list[bytes]:
        """Go on with an event that an earlier chunk began; only the new bytes are searched."""
        pending = self._pending
        if chunk[:1] == b"\n" and pending[-1] == 10:
            stop, rest = 0, 1
        else:
            stop = chunk.find(b"\n\n")
            rest = stop + 2
        if stop < 0:
            pending += chunk
            self._check(len(pending) - 1)  # less one: a last LF may be half of the blank line
            return []
        pending += chunk[:stop]
        first = self._data(bytes(pending).removesuffix(b"\n"))
        pending.clear()
        return first + self._blocks(chunk[rest:])

    def _blocks(self, chunk: bytes) -> list[bytes]:
        *blocks, tail = chunk.split(b"\n\n")
        self._pending += tail
        self._check(len(tail) - 1)
        payloads: list[bytes] = []
        for block in blocks:
            if block[:6] == b"data: " and b"\n" not in block:
                self._check(len(block))
                payloads.append(block[6:])
            else:
                payloads += self._data(block)
        return payloads

    def _data(self, block: bytes) -> list[bytes]:
        """The data of one event: none, or one payload."""
        self._check(len(block))
        lines: list[bytes] = []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                lines.append(value.removeprefix(b" "))
        return [b"\n".join(lines)] if lines else []

    def _check(self, size: int) -> None:
        if size > self._max:
            raise _too_large("an event", self._max)

    def _end(self) -> list[bytes]:
        block = (self._start or b"") + bytes(self._pending)
        self._pending.clear()
        return self._data(block.removesuffix(b"\n"))


class LineDecoder:
    """The lines of a stream of JSON texts (NDJSON, JSON lines), without blank ones."""

    def __init__(self, max_line: int = MAX_EVENT) -> None:
        self._max = max_line
        self._pending = bytearray()
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines this chunk completes; ``b""`` ends the stream and gives back an unterminated one.

        Raises ``UpstreamError`` for a line longer than ``max_line`` bytes.
        """
        if not chunk:
            tail = bytes(self._pending)
            self._pending.clear()
            return self._kept([tail])
        head, *lines = chunk.split(b"\n")
        pending = self._pending
        if not lines:
            pending += head
            self._check(len(pending) - len(_BOM))
            return []
        if pending:
            head = bytes(pending) + head
            pending.clear()
        tail = lines.pop()
        pending += tail
        self._check(len(tail))  # no mark here: it is not the first line
        return self._kept([head, *lines])

    def _kept(self, lines: list[bytes]) -> list[bytes]:
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        self._check(max(map(len, lines)))
        return [line for line in lines if line and not line.isspace()]

    def _check(self, size: int) -> None:
        if size > self._max:
            raise _too_large("a line", self._max)


def _too_large(what: str, limit: int) -> UpstreamError:
    return UpstreamError(
        f"The upstream sent {what} of more than {limit} bytes.", code="upstream_bad_response"
    )
