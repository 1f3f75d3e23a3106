"""Reads the body of an answer: bytes -> payloads -> events, within limits of time and size.

Rule: only events count against silence. What a read decoded is handed on before a failure that came with
it. After the end marker the body's own end is awaited for a moment, because only a complete body leaves its
connection fit for another call. Knows nothing about how the response came to be.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from gateway.core import sse
from gateway.core.decode import Decoder, fields
from gateway.core.decode.failure import Place
from gateway.core.errors import GatewayError, UpstreamError, UpstreamTimeout
from gateway.core.events import Event
from gateway.upstreams import edge
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.patience import Patience

MAX_WHOLE = 32 << 20  # bytes of an answer in one piece
USAGE_WAIT = 1.0  # seconds for usage or [DONE] once a finish reason came
END_WAIT = 0.1  # seconds for the end of the body once [DONE] came

_BROKEN = (aiohttp.ClientError, OSError)


@dataclass(slots=True, frozen=True)
class Reading:
    """How one answer is read: cut into payloads, or in one piece (``cut`` is None)."""

    decoder: Decoder
    cut: sse.Decoder | None = None


class Body:
    """The body of one response. Whoever makes it closes it; ``close`` awaits nothing."""

    def __init__(self, response: aiohttp.ClientResponse, deadline: float) -> None:
        self._response = response
        self._content = response.content
        self.patience = Patience(response.close, deadline)

    @property
    def complete(self) -> bool:
        """All of it was read."""
        return self._content.at_eof()

    async def chunk(self) -> bytes:
        """What came since the last read, ``b""`` at the end. Raises what aiohttp raises."""
        self.patience.begin()
        try:
            return await self._content.readany()
        finally:
            self.patience.rest()

    async def rest(self) -> None:
        """Wait a moment for the end of the body; what comes instead is not looked at."""
        self.patience.heard(END_WAIT)
        with suppress(*_BROKEN):
            await self.chunk()

    def close(self) -> None:
        """Hang up, unless the body is complete; then the connection is in the pool already."""
        self.patience.stop()
        self._response.close()


class Answer:
    """The events of one answer, a batch a read; ``ended`` once the ``Finish`` was given."""

    def __init__(self, body: Body, reading: Reading, config: Endpoint, place: Place) -> None:
        self.ended = False
        self._body = body
        self._decoder = reading.decoder
        self._cut = reading.cut
        self._config = config
        self._place = place
        self._begun = False  # an event came
        self._over = False  # no more is read
        self._complete = False  # because there is no more

    async def next(self) -> list[Event]:
        """The events of the next read, often none. Raises ``GatewayError``."""
        if self._over:
            return await self._conclude()
        if self._cut is None:
            self.ended = True
            body = await self._whole()
            if error := edge.instead(self._place, body):
                raise error
            return self._decoder.whole(body)
        chunk = await self._chunk()
        payloads = self._cut.feed(chunk)
        if not chunk or self._body.complete:
            self._over = self._complete = True
            payloads += self._cut.feed(b"")
        batch = self._decoder.feed(payloads)
        if self._over or self._decoder.done or self._decoder.failed is not None:
            self._over = True
            return await self._last(batch)
        if payloads:
            self._begun = True
            self._body.patience.heard(USAGE_WAIT if self._decoder.said else self._config.idle_timeout)
        return batch

    async def _last(self, batch: list[Event]) -> list[Event]:
        """The last events, in one batch with the end if that has come, else before it."""
        if not batch:
            return await self._conclude()
        if not self._complete or self._decoder.failed is not None:
            return batch
        try:
            end = self._decoder.end()
        except GatewayError:
            return batch  # raised again at the next call
        self.ended = True
        return batch + end

    async def _conclude(self) -> list[Event]:
        if self._decoder.failed is not None:
            raise self._decoder.failed
        end = self._decoder.end()
        if not self._complete:
            await self._body.rest()
        self.ended = True
        return end

    async def _chunk(self) -> bytes:
        try:
            return await self._body.chunk()
        except _BROKEN:
            if self._decoder.said:
                return b""  # the text is complete; only usage or [DONE] can be missing
            expired = self._body.patience.expired
            raise self._silent() if expired else fields.cut("its connection broke") from None

    async def _whole(self) -> bytes:
        body = bytearray()
        while chunk := await self._chunk():
            body += chunk
            if len(body) > MAX_WHOLE:
                raise UpstreamError(
                    f"The upstream's answer is larger than {MAX_WHOLE} bytes.", code="upstream_bad_response"
                )
        return bytes(body)

    def _silent(self) -> UpstreamTimeout:
        if self._begun:
            return UpstreamTimeout(
                f"The upstream fell silent for {self._config.idle_timeout:g} s "
                f"({self._place.at}.idle_timeout).",
                code="upstream_idle",
                retry="elsewhere",
            )
        return no_event(self._config, self._place)


def no_event(config: Endpoint, place: Place) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"The upstream sent no event within {config.first_event_timeout:g} s "
        f"({place.at}.first_event_timeout).",
        retry="elsewhere",
    )
