"""OpenAI's ``usage`` object."""

from __future__ import annotations

from typing import Any

from gateway.core.events import Usage


def usage_fields(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        **(usage.details or {}),
    }
