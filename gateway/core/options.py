"""What clients tell templates beside messages: ``reasoning_effort`` and ``chat_template_kwargs``.

Rule: only variables that change how a model answers, with plain values; anything else is a 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.errors import BadRequest
from gateway.core.wire import ChatRequest

OPTIONS = frozenset({"enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "date_string"})
MAX_OPTION = 64  # characters
NONE: Mapping[str, Any] = {}


def options(request: ChatRequest) -> Mapping[str, Any]:
    """Variables of the template that the client may set. Raises ``BadRequest`` for any other."""
    extra = request.model_extra
    if not extra:
        return NONE
    found: dict[str, Any] = {}
    if isinstance(effort := extra.get("reasoning_effort"), str):
        found["reasoning_effort"] = effort[:MAX_OPTION]
    given = extra.get("chat_template_kwargs")
    if given is None:
        return found
    if not isinstance(given, dict):
        raise BadRequest("chat_template_kwargs must be an object.", param="chat_template_kwargs")
    for name, value in given.items():
        if name not in OPTIONS or not isinstance(value, bool | int | float | str):
            raise BadRequest(
                f"chat_template_kwargs: only {', '.join(sorted(OPTIONS))} can be set, to plain values.",
                param="chat_template_kwargs",
                code="invalid_value",
            )
        found[name] = value[:MAX_OPTION] if isinstance(value, str) else value
    return found
