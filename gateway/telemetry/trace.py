"""A request's place in its client's trace: W3C's Trace Context, and what the configuration says of spans.

Rule: what cannot be read is as if it had not been sent. Where no spans are made the client's own place is
passed on as it came. Pure but for the ids it is handed. Knows nothing about how spans are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_STATE = 512  # characters of tracestate that are passed on (Trace Context 3.3.1.5)
_PARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_STATE = re.compile(rb"[\x20-\x7e]*")


class Spans(BaseModel):
    """OpenTelemetry; needs the extra `otel`. Further `OTEL_` variables count as they do elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        None, description="OTLP/HTTP address that spans go to; else OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    content: bool = Field(False, description="prompts and answers in spans")

    @field_validator("endpoint")
    @classmethod
    def _url_or_none(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must be a URL that begins with http:// or https://")
        return value or None


class Parent(NamedTuple):
    """Where a client stands in its trace; ids in hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: str = ""


class Trace(NamedTuple):
    """Of one request; ``span_id`` is that of its own span, empty where none is made."""

    trace_id: str
    flags: str
    state: str
    parent: Parent | None
    span_id: str = ""
    new_span: Callable[[], str] | None = None

    def call(self) -> tuple[str, tuple[str, str]]:
        """The span of a call to an upstream, and what it is told: ``traceparent`` and ``tracestate``."""
        span = self.new_span() if self.new_span is not None else ""
        above = span or self.span_id or (self.parent.span_id if self.parent is not None else "")
        return span, (f"00-{self.trace_id}-{above}-{self.flags}", self.state)


def parent(head: Mapping[bytes, bytes]) -> Parent | None:
    """What the headers of a request say, names in lower case."""
    found = _PARENT.fullmatch(head.get(b"traceparent", b""))
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    state = head.get(b"tracestate", b"")
    if len(state) > MAX_STATE or not _STATE.fullmatch(state):
        state = b""
    return Parent(found[2].decode(), found[3].decode(), found[4].decode(), state.decode())


def passed_on(head: Mapping[bytes, bytes]) -> Trace | None:
    """The trace of a request for which no spans are made; None if its client has none."""
    if b"traceparent" not in head or (above := parent(head)) is None:
        return None
    return Trace(above.trace_id, above.flags, above.state, above)
