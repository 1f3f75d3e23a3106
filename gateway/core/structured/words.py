"""What a model is told: which JSON is wanted, and what was wrong with its answer.

Rule: short, plain, and the schema as the client wrote it. New lists and messages; the client's stay as they
were. Knows nothing about templates; these words go through one like any other message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from gateway.core.structured.form import Format

MAX_REPEATED = 16 << 10  # characters of an answer that its model is shown again
_ONLY = "Write nothing before or after it, no explanation and no code fence."


def instruction(form: Format) -> str:
    """The block for a model whose decoding is not constrained."""
    if form.schema is None:
        return f"Answer with one JSON object. {_ONLY}"
    about = f"\nIt is: {form.description}" if form.description else ""
    schema = orjson.dumps(form.schema).decode()
    return f"Answer with one JSON value that fits the JSON Schema below. {_ONLY}{about}\n{schema}"


def instructed(
    messages: Sequence[Mapping[str, Any]], form: Format, where: Literal["system", "user"] = "system"
) -> list[dict[str, Any]]:
    """The messages with the instruction at the end of the first system message, or of the last from the user.

    ``user`` is for templates that have no place for a system message. Without one, a system message is made.
    """
    told = [dict(message) for message in messages]
    block = instruction(form)
    roles = ("system", "developer") if where == "system" else ("user",)
    places = [index for index, message in enumerate(told) if message.get("role") in roles]
    if not places:
        added = {"role": where, "content": block}
        return [added, *told] if where == "system" else [*told, added]
    message = told[places[0] if where == "system" else places[-1]]
    message["content"] = _with(message.get("content"), block)
    return told


def _with(content: Any, block: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": f"\n\n{block}"}]
    return f"{content}\n\n{block}" if content else block


def repair(messages: Sequence[Mapping[str, Any]], answer: str, error: str) -> list[dict[str, Any]]:
    """The conversation with the wrong answer and what is wrong with it; ``error`` is a ``verdict``."""
    kept = answer if len(answer) <= MAX_REPEATED else answer[: MAX_REPEATED - 1] + "…"
    asked = f"This answer cannot be used: {error}. Give the whole answer again as corrected JSON. {_ONLY}"
    return [
        *(dict(message) for message in messages),
        {"role": "assistant", "content": kept},
        {"role": "user", "content": asked},
    ]
