"""Tools over a prompt: how the model is told of them, and what is then looked for in its answer.

Rule: the template's own form where it has one, unless that is known to teach another dialect than the
model's; otherwise words in the dialect that the model writes. A call that must come is begun by the prompt,
or held to its schema; where a dialect cannot begin one without a name, and there are several, the wish is
noted as ignored. Control strings in definitions are defused like those of messages. Messages have their
content as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.call import Tooling
from gateway.core.errors import BadRequest
from gateway.core.spec import ModelSpec
from gateway.core.template import TemplateError
from gateway.core.tools import DIALECTS, Dialect
from gateway.core.toolset import Toolset

Message = Mapping[str, Any]


class Offer(NamedTuple):
    """``shown`` goes to the template: definitions, or words that tell of them. ``ending`` ends the prompt."""

    messages: Sequence[Message]
    shown: Sequence[Mapping[str, Any]] | str | None = None
    tooling: Tooling | None = None
    neutralised: int = 0
    ending: str = ""
    schema: Mapping[str, Any] | None = None  # of what follows ``ending``
    stops: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # parameters that had no effect

    @property
    def forces(self) -> bool:
        """Whether the answer can only be a call."""
        return bool(self.ending) or self.schema is not None


def offer(messages: Sequence[Message], tools: Toolset | None, spec: ModelSpec) -> Offer:
    """These tools, offered to this model. Raises ``BadRequest`` for control strings that are refused."""
    dialect = DIALECTS[spec.dialect or spec.template.dialect]
    own = spec.template.teaches(dialect.name)
    if _tools_used(messages):
        messages = _fitting(messages, dialect) if own else told(messages, dialect)
    if tools is None:
        silent = Tooling(dialect.name, ()) if dialect.always else None
        return Offer(messages, None, silent)
    try:
        definitions, count = spec.template.guard.value(tools.definitions, spec.control_tokens)
    except TemplateError as exc:
        field = "functions" if tools.legacy else "tools"
        raise BadRequest(str(exc), param=field, code="control_tokens") from None
    one = _one(dialect, tools, spec.guided)
    schema = dialect.schema(tools.definitions, one) if tools.required and spec.guided else None
    begin = dialect.prefix(one, held=schema is not None) if tools.required else ""
    return Offer(
        messages=messages,
        shown=definitions if own else dialect.instruct(definitions),
        tooling=Tooling(dialect.name, tools.definitions, begin, tools.single),
        neutralised=count,
        ending=begin,
        schema=schema,
        stops=dialect.stops,
        ignored=() if begin or schema is not None or not tools.required else ("tool_choice",),
    )


RESULT = ("tool", "function")


def _tools_used(messages: Sequence[Message]) -> bool:
    """Whether any message is a call of a tool or what came of one."""
    for message in messages:  # a plain loop: any() with a generator costs several times as much
        if message["role"] in RESULT or message.get("tool_calls"):
            return True
    return False


def _one(dialect: Dialect, tools: Toolset, guided: bool) -> str | None:
    """The function that must be called, if it can only be one and its name has to be written for it."""
    if tools.named is not None or len(tools.names) > 1:
        return tools.named
    return tools.names[0] if guided or not dialect.prefix(None) else None


def _fitting(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """The conversation with ids that the model's own template takes."""
    return [_with_ids(message, dialect) for message in messages]


def _with_ids(message: Message, dialect: Dialect) -> Message:
    if message["role"] in RESULT and isinstance(id := message.get("tool_call_id"), str):
        return {**message, "tool_call_id": dialect.identify(id)}
    calls = message.get("tool_calls")
    if not calls:
        return message
    named = [{**call, "id": dialect.identify(call.get("id") or "")} for call in calls]
    return {**message, "tool_calls": named}


def told(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """The conversation with calls and their results in words; results in a row are one message."""
    shown: list[Message] = []
    names: dict[Any, str] = {}
    last, results = "", False  # the last message tells of results
    for message in messages:
        calls = message.get("tool_calls")
        joins, results = results, message["role"] in RESULT
        if calls:
            for call in calls:
                last = names[call.get("id")] = (call.get("function") or {}).get("name") or ""
            said = [message["content"], dialect.said(calls)]
            shown.append({"role": "assistant", "content": "\n".join(filter(None, said))})
        elif results:
            name = message.get("name") or names.get(message.get("tool_call_id"), last)
            text = dialect.answered(name, message.get("tool_call_id") or "", message["content"])
            before = f"{shown.pop()['content']}\n" if joins else ""
            shown.append({"role": "user", "content": before + text})
        else:
            shown.append(message)
    return shown
