"""OpenAI's ``usage`` object."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.core.events import Usage


def usage_fields(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        **(usage.details or {}),
    }


def usage_chunk(start: bytes, usage: Usage, extension: dict[str, Any]) -> bytes:
    """A stream's chunk without choices that tells the usage; ``start`` is up to where its choices begin."""
    fields: dict[str, Any] = {"usage": usage_fields(usage)}
    if extension:
        fields["x_gateway"] = extension
    return start + b"]," + orjson.dumps(fields)[1:] + b"\n\n"
