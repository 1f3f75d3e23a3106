"""What a tool dialect is: how one family of models writes calls, read and written.

Rule: a value without state; ``watch`` makes the state of one choice. What is read and what is written of a
dialect stand in one file and are tested against each other.
Knows nothing about templates, requests or any dialect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gateway.core.events import Filter
from gateway.core.tools.reader import Reader, Reading
from gateway.core.tools.schema import ANYTHING, any_call
from gateway.core.tools.watcher import Watcher


class Said(NamedTuple):
    """One call of an earlier answer; ``arguments`` is the text of a JSON object."""

    id: str
    name: str
    arguments: str

    def members(self) -> dict[str, Any]:
        """The arguments by name, for dialects that do not write JSON."""
        try:
            read = orjson.loads(self.arguments)
        except ValueError:
            return {"arguments": self.arguments}
        return read if isinstance(read, dict) else {"arguments": read}


@dataclass(slots=True, frozen=True)
class Dialect:
    """How one family of models calls tools."""

    name: str
    grammar: Callable[[Reader], Reading[None]]
    write: Callable[[Sequence[Said]], str]
    result: Callable[[str, str, str], str]  # of a tool's name, the call's id, and what the tool said
    begin: str  # the opening of any call; empty where a call cannot be begun without a name
    begin_named: Callable[[str], str]  # the opening of a call of this name
    bare: bool = False  # a call is the whole answer: one that is held to its schema needs no opening
    keys: tuple[str, str] | None = None  # what a call's object names its name and arguments, if it is one
    json: bool = True  # a named call's arguments follow as a JSON object
    always: bool = False  # its markup stands around plain answers too: it is needed without tools
    parallel: bool = True  # several calls in one answer are part of the format
    stops: tuple[str, ...] = ()  # boundary stops beyond those of the model's template
    identify: Callable[[str], str] = str  # an id as the model's own template takes it

    def watch(
        self,
        tools: Iterable[Mapping[str, Any]],
        ids: Callable[[], str],
        begin: str = "",
        single: bool = False,
    ) -> Filter:
        """The filter for one choice. ``tools`` as in the request; ``begin`` is the prefix that forced a call.

        ``single`` ends the answer behind its first call, with ``Finish.stopped_by`` set.
        """
        schemas = {tool["name"]: tool.get("parameters") or {} for tool in functions(tools)}
        return Watcher(self.grammar, Reader(schemas, ids, single), begin)

    def prefix(self, choice: str | None, held: bool = False) -> str:
        """What the prompt ends with so that a call must follow: of this name, or (None) of any.

        ``held``: what follows is held to ``schema(choice)``.
        """
        if choice is not None:
            return self.begin_named(choice)
        return "" if held and self.bare else self.begin

    def schema(self, tools: Iterable[Mapping[str, Any]], choice: str | None) -> dict[str, Any] | None:
        """The JSON schema of what follows ``prefix(choice, True)``; None if that is not one JSON value."""
        offered = list(functions(tools))
        if choice is not None:
            named = [tool.get("parameters") or ANYTHING for tool in offered if tool["name"] == choice]
            return dict(named[0]) if named and self.json else None
        if self.keys is None:
            return None
        return any_call(offered, self.keys)

    def instruct(self, tools: Iterable[Mapping[str, Any]]) -> str:
        """How to call these tools, for a template that does not say it."""
        offered = list(functions(tools))
        examples = [Said("call_1", tool["name"], _example(tool)) for tool in offered[:2]]
        lines = ["You can call these tools:", ""]
        lines += [_dump(tool) for tool in offered]
        lines += [
            "",
            "To call a tool, write exactly this, with the arguments that its parameters describe:",
            "",
        ]
        lines += [self.write(examples[:1])]
        if self.parallel and len(examples) > 1:
            lines += ["", "Several calls at once:", "", self.write(examples)]
        lines += [
            "",
            "Write nothing after a call: its result will be given to you. Answer without a call when",
        ]
        return "\n".join(lines) + " no tool is needed."

    def said(self, calls: Iterable[Mapping[str, Any]]) -> str:
        """An assistant's calls, in OpenAI's shape, as this dialect writes them."""
        return self.write([_said(call) for call in calls])

    def answered(self, name: str, id: str, content: str) -> str:
        """What a tool answered, as text."""
        return self.result(name, id, content)


_EXAMPLES = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}


def functions(tools: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """The functions among the tools of a request: name, description, parameters."""
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            yield function


def object_text(call: Said, keys: tuple[str, str] = ("name", "arguments")) -> str:
    """A call as a JSON object."""
    return f'{{"{keys[0]}": {_dump(call.name)}, "{keys[1]}": {call.arguments}}}'


def object_begun(name: str, keys: tuple[str, str] = ("name", "arguments")) -> str:
    """The beginning of such an object, up to its arguments. Most tokens bring the space that comes next."""
    return f'{{"{keys[0]}": {_dump(name)}, "{keys[1]}":'


def plain(value: Any) -> str:
    """A value as text between tags: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else _dump(value)


def _said(call: Mapping[str, Any]) -> Said:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    text = arguments.strip() if isinstance(arguments, str) else _dump(arguments or {})
    return Said(call.get("id") or "", function.get("name") or "", text or "{}")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _example(tool: Mapping[str, Any]) -> str:
    """Arguments of the right shape; those that must be given, or else the first."""
    parameters = tool.get("parameters") or {}
    properties, required = parameters.get("properties"), parameters.get("required")
    properties = properties if isinstance(properties, Mapping) else {}
    wanted = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    names = [name for name in wanted if name in properties] or list(properties)[:1]
    return _dump({name: _placeholder(properties[name]) for name in names})


def _placeholder(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return "..."
    if isinstance(listed := schema.get("enum"), list) and listed:
        return listed[0]
    kind = schema.get("type")
    return _EXAMPLES.get(kind, "...") if isinstance(kind, str) else "..."
