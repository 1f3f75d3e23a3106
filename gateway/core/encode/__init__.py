"""From events to OpenAI's wire formats: one encoder a format, fed by the same events.

Rule: pure; ids and times are given. Every answer of one request shares one ``Head``.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Usage
from gateway.core.value import value

PING = b": ping\n\n"  # a comment of server-sent events: every client skips it


@value
class Head:
    """What all objects of one answer share.

    ``created`` is in Unix seconds; ``model`` is the name asked for; ``prompt_tokens`` are counted only for
    APIs that tell them when an answer opens.
    """

    id: str
    created: int
    model: str
    prompt_tokens: int = 0


class StreamEncoder(Protocol):
    """Writes one streamed answer with any number of choices, as server-sent events."""

    def opening(self) -> bytes:
        """What goes out before the first event."""
        ...

    def feed(self, index: int, batch: Batch) -> bytes:
        """The events of choice ``index``, to be sent as one write."""
        ...

    def pause(self) -> bytes:
        """Something that says nothing, for clients whose patience only it renews."""
        ...

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        """What goes out after the last event; ``extension``: what the gateway adds where usage is told."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """A failure after the headers were sent; nothing follows it."""
        ...


class WholeEncoder(Protocol):
    """Collects the same events into one answer."""

    def feed(self, index: int, batch: Batch) -> None: ...

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after every choice has finished."""
        ...
