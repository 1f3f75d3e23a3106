"""How the demo calls tools: as models of the Hermes family write it, by rules that a reader can follow.

Rule: tools are called that the message names, or else the one with which it shares most words; none if it
shares none. Arguments come from the message: see ``arguments``. Results of tools are told as they came. A
call that the prompt begins is gone on with, and where a schema is given, nothing but its value is said.
Knows nothing about how the prompt was made beyond the tags and one JSON object a line for each tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.arguments import arguments
from modal_backend.engines.demo.instances import instance
from modal_backend.engines.demo.questions import question
from modal_backend.engines.demo.words import words

OPEN, CLOSE = "<tool_call>\n", "\n</tool_call>"
MAX_RESULT = 2000  # characters of a result that are told

_BEGUN = re.compile(r'<tool_call>\n(?:\{"name": "([^"\n]+)", "arguments":)?\Z')
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    about: str
    parameters: Mapping[str, Any]


def called(prompt: str, schema: Mapping[str, Any] | None) -> str | None:
    """The call, or what tools answered; None if the prompt is about neither. ``schema``: of what is said."""
    begun = _BEGUN.search(prompt)
    rest = prompt[: begun.start()] if begun else prompt
    asked, tools = question(rest), _offered(rest)
    if begun:
        return _gone_on(begun[1], tools, asked, schema)
    if schema is not None:
        return None
    if asked.startswith("<tool_response>"):
        return "I was told: " + "; ".join(found[:MAX_RESULT] for found in _RESULT.findall(asked))
    calls = [_object(tool, asked) for tool in _wanted(asked, tools)]
    return "\n".join(f"{OPEN}{call}{CLOSE}" for call in calls) or None


def _gone_on(name: str | None, tools: Sequence[Tool], asked: str, schema: Mapping[str, Any] | None) -> str:
    """The rest of a call that the prompt begins, up to its name or before it."""
    if name is not None and schema is not None:
        return _dump(arguments(schema, asked, instance(schema)))
    if name is not None:
        parameters = next((tool.parameters for tool in tools if tool.name == name), {})
        return f" {_dump(arguments(parameters, asked, _least(parameters)))}}}{CLOSE}"
    if not tools:
        return "{}" + CLOSE if schema is None else _dump(instance(schema))
    chosen = (_wanted(asked, tools) or tools)[0]
    return _object(chosen, asked) + ("" if schema is not None else CLOSE)


def _offered(prompt: str) -> list[Tool]:
    """The tools that the prompt lists, if it also says how to call one."""
    if "<tool_call>" not in prompt:
        return []
    found = (_tool(line) for line in prompt.splitlines() if line.startswith("{"))
    return [tool for tool in found if tool is not None]


def _tool(line: str) -> Tool | None:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    function = read.get("function", read)
    match function:
        case {"name": str(name), "parameters": dict(parameters)}:
            return Tool(name, str(function.get("description", "")), parameters)
    return None


def _wanted(asked: str, tools: Sequence[Tool]) -> list[Tool]:
    named = [tool for tool in tools if re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", asked)]
    if named or not tools:
        return named
    sought = words(asked)
    shared = [len(sought & words(f"{tool.name} {tool.about}")) for tool in tools]
    return [tools[shared.index(max(shared))]] if max(shared) else []


def _object(tool: Tool, asked: str) -> str:
    filled = arguments(tool.parameters, asked, _least(tool.parameters))
    return f'{{"name": {_dump(tool.name)}, "arguments": {_dump(filled)}}}'


def _least(parameters: Mapping[str, Any]) -> Any:
    try:
        return instance(parameters)
    except BadRequest:
        return {}  # no value is made for this schema; what the message holds may still do


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
