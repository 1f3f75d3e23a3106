"""What clients tell templates beside messages: ``reasoning_effort`` and ``chat_template_kwargs``.

Rule: only variables that change how a model answers, with plain values; anything else is a 400. One that the
template does not look at is named as ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.errors import BadRequest
from gateway.core.template import Template
from gateway.core.wire import ChatRequest

OPTIONS = frozenset({"enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "date_string"})
EFFORT = "reasoning_effort"
KWARGS = "chat_template_kwargs."  # before the name of one, where it is named
MAX_OPTION = 64  # characters
NONE: Mapping[str, Any] = {}


def heard(request: ChatRequest, template: Template) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The options that this template looks at, and the names of those that it does not."""
    if not request.model_extra:
        return NONE, ()
    found = options(request)
    given = (request.model_extra or {}).get("chat_template_kwargs") or NONE
    ignored = [KWARGS + name for name in given if name not in template.variables]
    if _effort(request) is not None and EFFORT not in template.variables:
        ignored.insert(0, EFFORT)
    return {name: found[name] for name in found if name in template.variables}, tuple(ignored)


def _effort(request: ChatRequest) -> Any:
    return (request.model_extra or {}).get(EFFORT)


def options(request: ChatRequest) -> Mapping[str, Any]:
    """Variables of the template that the client may set. Raises ``BadRequest`` for any other."""
    extra = request.model_extra
    if not extra:
        return NONE
    found: dict[str, Any] = {}
    if isinstance(effort := _effort(request), str):
        found[EFFORT] = effort[:MAX_OPTION]
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
