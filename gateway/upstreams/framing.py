"""How the body of an answer is cut into payloads, by what it says it is.

Rule: the content type decides, or the config; never a guess at the content.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from gateway.core.decode import edge
from gateway.core.decode.failure import Place
from gateway.core.errors import UpstreamError

SSE = frozenset({"text/event-stream"})
LINES = frozenset({
    "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl",
    "application/json-lines", "application/jsonlines", "application/x-jsonlines", "application/json-seq",
})  # fmt: skip
TEXT = frozenset({"", "text/plain", "application/octet-stream"})

Framing: TypeAlias = Literal["sse", "ndjson", "text", "whole", "unknown"]


def framing(mode: str, content_type: str, asked: bool) -> Framing:
    """How an answer of this content type is framed. JSON is whole, also if a stream was asked for."""
    json = content_type == "application/json" or content_type.endswith("+json")
    if mode == "none" or (json and (mode in ("auto", "sse") or not asked)):
        return "whole"
    if mode == "sse" or (mode == "auto" and content_type in SSE):
        return "sse"
    if mode == "ndjson" or (mode == "auto" and content_type in LINES):
        return "ndjson"
    return "text" if mode == "text" or content_type in TEXT else "unknown"


def unreadable(content_type: str, place: Place) -> UpstreamError:
    kind = content_type if edge.NAME.fullmatch(content_type.replace("/", ".")) else "another type"
    return UpstreamError(
        f"The upstream answered with {kind}, which is no answer of a model: "
        f"check {place.at}.url and {place.at}.stream.",
        code="upstream_bad_response",
    )
