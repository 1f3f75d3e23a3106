"""Reads the body of an answer: bytes -> payloads -> events, within limits of time and size.

Rule: only events count against silence. What a read decoded is handed on before a failure that came with
it. After the end marker the body's own end is awaited for a moment, because only a complete body leaves its
connection fit for another call. Knows nothing about how the response came to be.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from gateway.core import sse
from gateway.core.decode import Decoder, edge, fields
from gateway.core.decode.failure import Place
from gateway.core.errors import GatewayError, Retry, UpstreamError, UpstreamTimeout
from gateway.core.events import Event
from gateway.core.value import value
from gateway.upstreams.client import BadAnswer, Response
from gateway.upstreams.patience import Patience

MAX_WHOLE = 32 << 20  # bytes of an answer in one piece
USAGE_WAIT = 1.0  # seconds for usage or [DONE] once a finish reason came
END_WAIT = 0.1  # seconds for the end of the body once [DONE] came


@dataclass(slots=True, frozen=True)
class Waits:
    """How long events of an upstream may take, in seconds."""

    first: float
    idle: float
    place: Place

    def no_event(self, retry: Retry = "elsewhere") -> UpstreamTimeout:
        return UpstreamTimeout(
            f"The upstream sent no event within {self.first:g} s ({self.place.at}.first_event_timeout).",
            retry=retry,
        )


@value
class Reading:
    """How one answer is read: cut into payloads, or in one piece (``cut`` is None)."""

    decoder: Decoder
    cut: sse.Decoder | None = None


class Answer:
    """The events of one response, a batch a read; ``ended`` once the ``Finish`` was given.

    Whoever makes it closes the response; ``patience`` already watches it.
    """

    def __init__(self, response: Response, patience: Patience, reading: Reading, waits: Waits) -> None:
        self.ended = False
        self._response = response
        self._patience = patience
        self._decoder = reading.decoder
        self._cut = reading.cut
        self._waits = waits
        self._begun = False  # an event came
        self._over = False  # no more is read
        self._complete = False  # because there is no more

    async def next(self) -> list[Event]:
        """The events of the next read, often none. Raises ``GatewayError``."""
        if self._over:
            return await self._conclude()
        if self._cut is None:
            self.ended = True
            return self._decoder.whole(await self._whole())
        chunk = await self._read()
        payloads = self._cut.feed(chunk)
        if not chunk or self._response.complete:
            self._over = self._complete = True
            payloads += self._cut.feed(b"")
        batch = self._decoder.feed(payloads)
        if self._over or self._decoder.done or self._decoder.failed is not None:
            self._over = True
            return await self._last(batch)
        if payloads:
            self._begun = True
            self._patience.heard(USAGE_WAIT if self._decoder.said else self._waits.idle)
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
        if not self._complete:  # what comes instead of the end is not looked at
            self._patience.heard(END_WAIT)
            with suppress(GatewayError):
                await self._read()
        self.ended = True
        return end

    async def _read(self) -> bytes:
        """What came since the last read, ``b""`` at the end."""
        self._patience.begin()
        try:
            data = await self._response.read()
            if not data and self._patience.expired and not self._decoder.said:
                raise self._silent()  # it was closed for that while something had just come
            return data
        except (OSError, BadAnswer):
            if self._decoder.said:
                return b""  # the text is complete; only usage or [DONE] can be missing
            raise self._silent() if self._patience.expired else fields.cut("its connection broke") from None
        finally:
            self._patience.rest()

    async def _whole(self) -> bytes:
        body = await self._read()
        if not self._response.complete:
            parts = bytearray(body)
            while chunk := await self._read():
                parts += chunk
                if len(parts) > MAX_WHOLE:
                    message = f"The upstream's answer is larger than {MAX_WHOLE} bytes."
                    raise UpstreamError(message, code="upstream_bad_response")
            body = bytes(parts)
        if error := edge.instead(self._waits.place, body):
            raise error
        return body

    def _silent(self) -> UpstreamTimeout:
        if not self._begun:
            return self._waits.no_event()
        return UpstreamTimeout(
            f"The upstream fell silent for {self._waits.idle:g} s ({self._waits.place.at}.idle_timeout).",
            code="upstream_idle",
            retry="elsewhere",
        )
