"""Fields that answers of every kind share: finish reason, usage, logprobs. Nothing in them is trusted.

Rule: a value of the wrong type or range counts as absent; only text and structure are worth failing an
answer for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from gateway.core.errors import UpstreamError
from gateway.core.events import Logprobs, Usage

MAX_IGNORED = 64  # names

LOWEST_LOGPROB = -9999.0  # what OpenAI and vLLM send for a token that could not be

_REASONS: Mapping[str, str] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",  # TGI
    "stop_sequence": "stop",  # TGI, Anthropic
    "stop_token": "stop",
    "end_turn": "stop",  # Anthropic
    "length": "length",
    "max_tokens": "length",  # Anthropic
    "max_length": "length",
    "max_new_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",  # Anthropic
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
"""What servers write -> OpenAI's reasons."""

_BROKEN_OFF = frozenset({"abort", "aborted", "cancelled", "canceled", "error"})  # vLLM, SGLang: not an end


def cut(why: str) -> UpstreamError:
    """The answer is incomplete, so it must not look like a short one."""
    return UpstreamError(f"The upstream's answer was cut: {why}.", code="upstream_cut", retry="elsewhere")


def finish_reason(value: Any) -> str | None:
    """OpenAI's word for it; None if there is none. Raises ``upstream_cut`` if the server broke off."""
    if not isinstance(value, str) or not value:
        return None
    word = value.lower()
    if word in _BROKEN_OFF:
        raise cut("the server broke it off")
    return _REASONS.get(word, "stop")


def usage(value: Any) -> Usage | None:
    """Token counts, if both are there and are counts."""
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not (_count(prompt) and _count(completion)):
        return None
    details = {k: v for k, v in value.items() if type(v) is dict and k.endswith("_tokens_details")}
    return Usage(prompt, completion, "upstream", details or None)


def _count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def logprobs(value: Any) -> Logprobs | None:
    """Entries in OpenAI's chat shape; None unless every entry has a token and a number."""
    if not isinstance(value, list):
        return None
    entries = []
    for item in value:
        if (entry := _logprob(item)) is None:
            return None
        others = item.get("top_logprobs")
        top = [_logprob(other) for other in others] if isinstance(others, list) else []
        entries.append({**entry, "top_logprobs": [other for other in top if other is not None]})
    return tuple(entries) or None


def text_logprobs(value: Any) -> Logprobs | None:
    """The same entries from the lists of the older completions API, which stand side by side."""
    if not isinstance(value, dict):
        return None
    tokens, numbers, others = (value.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(numbers, list) or len(tokens) != len(numbers):
        return None
    tops = others if isinstance(others, list) and len(others) == len(tokens) else [None] * len(tokens)
    return logprobs(
        [
            {"token": token, "logprob": number, "top_logprobs": _pairs(top)}
            for token, number, top in zip(tokens, numbers, tops, strict=True)
        ]
    )


def _pairs(top: Any) -> list[dict[str, Any]]:
    """The alternatives to one token."""
    if not isinstance(top, dict):
        return []
    return [{"token": token, "logprob": number} for token, number in top.items()]


def _logprob(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return None
    token, logprob, raw = item.get("token"), item.get("logprob"), item.get("bytes")
    if not isinstance(token, str) or not isinstance(logprob, int | float | None) or isinstance(logprob, bool):
        return None
    valid = isinstance(raw, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in raw)
    return {
        "token": token,
        "logprob": LOWEST_LOGPROB if logprob is None else logprob,
        "bytes": raw if valid else list(token.encode()),
    }


def names(value: Any) -> tuple[str, ...]:
    """A bounded list of names, for ``ignored``."""
    if not isinstance(value, list):
        return ()
    return tuple(name[:64] for name in value[:MAX_IGNORED] if isinstance(name, str) and name)
