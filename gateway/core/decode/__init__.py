"""What upstreams send -> events. Pure; one decoder a wire format, made anew for each answer."""

from __future__ import annotations

from typing import Protocol

from gateway.core.errors import GatewayError
from gateway.core.events import Event


class Decoder(Protocol):
    """Payloads of one answer -> its events.

    Methods raise ``GatewayError`` where nothing was decoded before the failure; else ``feed`` gives what
    came before it and keeps the failure in ``failed``.
    """

    failed: GatewayError | None
    said: bool  # a finish reason came: the text is complete; usage or the end marker may follow
    done: bool  # the end marker came: nothing of interest follows

    def feed(self, payloads: list[bytes]) -> list[Event]:
        """The events of these payloads, without the ``Finish``."""
        ...

    def whole(self, body: bytes) -> list[Event]:
        """The events of an answer in one piece, with its ``Finish``."""
        ...

    def end(self) -> list[Event]:
        """What was held back, and the ``Finish``. Raises ``upstream_cut`` if the stream was cut."""
        ...
