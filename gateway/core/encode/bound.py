"""The bound of answers that are collected: a backend that never ends must not fill the memory."""

from __future__ import annotations

from gateway.core.errors import UpstreamError
from gateway.core.events import Event

MAX_SIZE = 32 << 20  # characters and pieces of all choices
PIECE = 64  # what an event counts beside its text


class Bound:
    """Counts what one answer holds. Fields beside the text count by the piece."""

    def __init__(self) -> None:
        self._size = 0

    def count(self, event: Event) -> None:
        """Raises ``UpstreamError`` for the event that is too much."""
        self._size += PIECE + len(getattr(event, "text", ""))
        if self._size > MAX_SIZE:
            raise UpstreamError(
                "The upstream's answer is too large to be given whole; ask for a stream.",
                code="upstream_bad_response",
            )
