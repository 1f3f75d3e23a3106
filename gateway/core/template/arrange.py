"""Puts a conversation into the form that a template can show.

Rule: nothing is dropped. System text goes where the template has a place for it; tool definitions, calls
and results of a template that has no form of its own for them become text, in the tags that most open
models were trained on. A `developer` message is a system message, a `function` message a tool message. The
caller's messages are never changed, and plain turns of user and assistant pass through as they are.

Knows nothing about Jinja.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from gateway.core.template.errors import TemplateError
from gateway.core.template.parts import split
from gateway.core.value import value

Message: TypeAlias = Mapping[str, Any]
Tools: TypeAlias = Sequence[Mapping[str, Any]] | str
"""Definitions, or a text about them."""
Manner: TypeAlias = Literal["shows", "drops", "refuses"]

_SYSTEM: Final = frozenset({"system", "developer"})
_TURN: Final = frozenset({"user", "assistant", "tool", "function"})


@value
class Conversation:
    """What a template is given. ``system`` is None where system messages stand among the others."""

    messages: Sequence[Message]
    system: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None


class Arguments(dict[str, Any]):
    """Arguments of a tool call, parsed, that still read as the text they came in.

    Some templates write `arguments | tojson` and need an object, others `'...' + arguments` and need text
    (DeepSeek's). Both get what they need.
    """

    def __init__(self, text: str, parsed: Mapping[str, Any]) -> None:
        super().__init__(parsed)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: str) -> str:
        return self.text + other

    def __radd__(self, other: str) -> str:
        return other + self.text


# -- built-in templates -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """What a built-in template can show; ``system`` as in the data at its head."""

    system: Literal["inline", "hoist", "ignored"]
    default: str | None
    tools: bool

    def arrange(self, messages: Sequence[Message], tools: Tools | None) -> Conversation:
        """The conversation for this template. Raises ``TemplateError`` for a role it does not know."""
        inline = self.system == "inline"
        turns, given = _sorted_out(messages, inline=inline)
        if _tools_used(turns):
            turns = _named(turns) if self.tools else _results_as_text(_calls_as_text(turns))
        # An empty system message replaces the default one as well, as it does in FastChat.
        system = self.default if not given or self.system == "ignored" else _joined(given)
        if tools and (isinstance(tools, str) or not self.tools):
            system = _joined([system or "", _tool_text(tools)])
        shown = tools if self.tools and not isinstance(tools, str) else None
        if not inline:
            return Conversation(turns, system or "", shown)
        if system is not None:
            turns = [{"role": "system", "content": system}, *turns]
        return Conversation(turns, None, shown)


def _sorted_out(messages: Sequence[Message], *, inline: bool) -> tuple[list[Message], list[str]]:
    """The turns, and the system texts; with ``inline`` only those that lead, the others stay in place."""
    turns: list[Message] = []
    system: list[str] = []
    for message in messages:
        role = message["role"]
        if role in _SYSTEM:
            text = message.get("content") or ""
            if inline and turns:
                turns.append({"role": "system", "content": text})
            else:
                system.append(text)
        elif role in _TURN:
            turns.append(_turn(message))
        else:
            raise TemplateError(f"no template knows the role {role!r}")
    return turns, system


def _tools_used(turns: Sequence[Message]) -> bool:
    for turn in turns:  # a plain loop: any() with a generator costs several times as much
        if turn["role"] == "tool" or "tool_calls" in turn:
            return True
    return False


def _turn(message: Message) -> Message:
    """One turn whose content is a text, and whose ``tool_calls`` are there only if an assistant made any."""
    content = message.get("content")
    role = message["role"]
    if content is not None and "tool_calls" not in message and role != "function":
        return message
    turn = {key: value for key, value in message.items() if key != "tool_calls"}
    turn["content"] = content or ""
    turn["role"] = "tool" if role == "function" else role
    if role == "assistant" and message.get("tool_calls"):
        turn["tool_calls"] = _parsed(message["tool_calls"])
    return turn


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _parsed(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tool calls whose arguments are objects that still read as their text."""
    parsed: list[dict[str, Any]] = []
    for call in calls:
        function = call.get("function") or {}
        parsed.append({**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}})
    return parsed


def _arguments(given: Any) -> Any:
    if not isinstance(given, str):
        return {} if given is None else given
    try:
        parsed = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return Arguments(given, parsed) if isinstance(parsed, dict) else given


def _named(turns: Sequence[Message]) -> list[Message]:
    """Each tool result with the name of its tool: some formats write that instead of the id of the call."""
    named: list[Message] = []
    by_id: dict[Any, str] = {}
    last = ""
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            last = by_id[call.get("id")] = call["function"].get("name") or ""
        if turn["role"] == "tool" and not turn.get("name"):
            turn = {**turn, "name": by_id.get(turn.get("tool_call_id"), last)}
        named.append(turn)
    return named


# -- templates without a form for tools -------------------------------------------------------------------


def _tool_text(tools: Tools) -> str:
    """Tool definitions as a system text, one JSON object a line, and how to call them."""
    if isinstance(tools, str):
        return tools
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        f"# Tools\n\nYou can call these functions:\n<tools>\n{listed}\n</tools>\n\n"
        "To call one, answer with its name and arguments as one JSON object in these tags:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    )


def _calls_as_text(turns: Sequence[Message]) -> list[Message]:
    """Calls as text of the assistant, after what it said."""
    shown: list[Message] = []
    for turn in turns:
        if calls := turn.get("tool_calls"):
            text = "\n".join(filter(None, [turn["content"], *map(_call_text, calls)]))
            turn = {"role": "assistant", "content": text}
        shown.append(turn)
    return shown


def _results_as_text(turns: Sequence[Message]) -> list[Message]:
    """Results as text of the user; those in a row are one message."""
    shown: list[Message] = []
    results: list[str] = []
    for turn in [*turns, None]:
        if turn is not None and turn["role"] == "tool":
            results.append(f"<tool_response>\n{turn['content']}\n</tool_response>")
            continue
        if results:
            shown.append({"role": "user", "content": "\n".join(results)})
            results = []
        if turn is not None:
            shown.append(turn)
    return shown


def _call_text(call: Mapping[str, Any]) -> str:
    function = call["function"]
    body = {"name": function.get("name") or "", "arguments": function["arguments"]}
    return f"<tool_call>\n{json.dumps(body, ensure_ascii=False)}\n</tool_call>"


# -- templates that came with a model ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Habits:
    """What a template that came with a model does with the less common messages; found out by asking it.

    ``system`` and ``late_system`` (one that comes after others): it shows such a message, drops it without a
    word, or refuses it aloud. ``calls`` is the content that a message with tool calls needs so that they are
    shown: an empty text or none; None where nothing helps. ``results`` and ``tools``: it shows them.
    ``image`` is what it writes for a part that is an image; None where it looks at no parts.
    """

    developer: bool
    system: Manner
    late_system: Manner
    calls: Literal["text", "none"] | None
    results: bool
    tools: bool
    image: str | None = None

    def arrange(self, messages: Sequence[Message], tools: Tools | None) -> Conversation:
        """The conversation as Hugging Face passes it; what the template would drop is moved."""
        said = self._arranged(messages, tools)
        if self.image is None:
            return said
        return replace(said, messages=[self._pictured(message) for message in said.messages])

    def _pictured(self, message: Message) -> Message:
        """The message with its images as parts."""
        content = message.get("content")
        if self.image is None or not isinstance(content, str) or self.image not in content:
            return message
        return {**message, "content": split(content, self.image)}

    def _arranged(self, messages: Sequence[Message], tools: Tools | None) -> Conversation:
        given = [self._message(message) for message in messages]
        if not self.calls:
            given = _calls_as_text(given)
        if not self.results:
            given = _results_as_text(given)
        if not isinstance(tools, str) and (not tools or self.tools):
            return Conversation(self._folded(given, []), None, tools)
        text = _tool_text(tools)
        if self.system != "shows":
            return Conversation(self._folded(given, [text]))
        if given and given[0]["role"] == "system":
            text = _joined([given[0]["content"], text])
            given = given[1:]
        return Conversation(self._folded([{"role": "system", "content": text}, *given], []))

    def _message(self, original: Message) -> Message:
        message = {key: value for key, value in original.items() if value is not None}
        message.setdefault("content", "")
        if message["role"] == "developer" and not self.developer:
            message["role"] = "system"
        elif message["role"] == "function":
            message["role"] = "tool"
        if message.get("tool_calls"):
            message["tool_calls"] = _parsed(message["tool_calls"])
            if self.calls == "none" and not message["content"]:
                message["content"] = None
        if "reasoning_content" in message:
            message.setdefault("thinking", message["reasoning_content"])  # the name that gpt-oss reads
        return message

    def _folded(self, messages: Sequence[Message], held: list[str]) -> Sequence[Message]:
        """What is held, and system text that would be dropped, moved in front of the next user message."""
        if not held and "drops" not in (self.system, self.late_system):
            return messages
        turns: list[Message] = []
        for message in messages:
            if message["role"] == "system" and (self.late_system if turns else self.system) == "drops":
                held = [*held, message["content"]]
                continue
            if held and message["role"] == "user":
                message = {**message, "content": _joined([*held, message["content"]])}
                held = []
            turns.append(message)
        return [*turns, {"role": "user", "content": _joined(held)}] if held else turns
