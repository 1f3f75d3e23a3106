"""Request bodies: fields under the names an upstream knows, as JSON.

Rule: pure, and nothing that was passed in is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orjson import JSONEncodeError, dumps

from gateway.core.call import Call, EmbedCall, PromptCall
from gateway.core.errors import BadRequest


def fields_of(call: Call) -> dict[str, Any]:
    """What the call says, under its own names. Nothing that the client made up replaces a known field."""
    if isinstance(call, PromptCall):
        return {**call.unknown, "prompt": call.prompt, **call.arguments}
    if isinstance(call, EmbedCall):
        return {**call.fields, "input": list(call.texts)}
    return dict(call.body)


def rename(body: dict[str, Any], fields: Mapping[str, str | None]) -> dict[str, Any]:
    """The body with its fields renamed; dotted names nest, None leaves a field out.

    ``{"max_tokens": 5}`` with ``{"max_tokens": "parameters.max_new_tokens"}`` becomes
    ``{"parameters": {"max_new_tokens": 5}}``.
    """
    if not fields:
        return body
    renamed = {name: value for name, value in body.items() if name not in fields}
    made: dict[str, dict[str, Any]] = {}  # the objects made here, by their dotted names
    for name, target in fields.items():
        if target is None or name not in body:
            continue
        holder, at = renamed, ""
        *outer, last = target.split(".")
        for part in outer:
            at += f".{part}"
            if at not in made:
                given = holder.get(part)
                made[at] = holder[part] = dict(given) if isinstance(given, dict) else {}
            holder = made[at]
        holder[last] = body[name]
    return renamed


def encoded(body: dict[str, Any]) -> bytes:
    """JSON. Only what the client made up can fail: numbers beyond 64 bits, or 250 levels."""
    try:
        return dumps(body)
    except JSONEncodeError as exc:
        raise BadRequest(f"The request cannot be passed on: {exc}.", code="invalid_value") from None
