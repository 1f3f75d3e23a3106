"""The tools of a request: checked, in one shape, with what the client wants done with them.

Rule: the older ``functions`` and ``function_call`` are read as ``tools`` and ``tool_choice``; a choice
without tools means nothing. What is wrong is a 400 that names the field. Shapes:
https://platform.openai.com/docs/api-reference/chat/create Knows nothing about how a model writes a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest
from gateway.core.wire import ChatRequest

_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(slots=True, frozen=True)
class Toolset:
    """``definitions`` are OpenAI's; there is at least one."""

    definitions: tuple[Mapping[str, Any], ...]
    required: bool = False  # there must be a call
    named: str | None = None  # the one function that has to be called
    single: bool = False  # at most one call
    legacy: bool = False  # asked for as ``functions``

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(_name(tool) for tool in self.definitions)


def toolset(request: ChatRequest) -> Toolset | None:
    """The tools that the model may call; None if there are none. Raises ``BadRequest``."""
    if not request.tools and not request.functions:
        return None
    legacy = not request.tools
    field = "functions" if legacy else "tools"
    given = enumerate((request.functions if legacy else request.tools) or ())
    if legacy:
        definitions = tuple(_definition(function, f"functions[{index}]") for index, function in given)
    else:
        definitions = tuple(_definition(*_function(tool, f"tools[{index}]")) for index, tool in given)
    names = [_name(each) for each in definitions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadRequest(f"{field}: there are two functions {twice[0]}.", param=field, code="invalid_value")
    asked = request.function_call if legacy else request.tool_choice
    choice = _choice(asked, names, "function_call" if legacy else "tool_choice")
    parallel = (request.model_extra or {}).get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        param = "parallel_tool_calls"
        raise BadRequest(f"{param} must be true or false.", param=param, code="invalid_value")
    return _chosen(Toolset(definitions, single=legacy or parallel is False, legacy=legacy), choice)


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _chosen(tools: Toolset, choice: Choice) -> Toolset | None:
    """What is left of the tools; None if none may be called."""
    kept = tools.definitions
    if choice.allowed is not None:
        kept = tuple(tool for tool in kept if _name(tool) in choice.allowed)
    if choice.mode == "none" or not kept:
        return None
    return replace(tools, definitions=kept, required=choice.mode == "required", named=choice.named)


def _function(tool: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """What can be called, and where it stands."""
    if tool.get("type", "function") != "function":
        raise BadRequest(
            f"{where}.type: only functions can be called.", param=f"{where}.type", code="invalid_value"
        )
    function = tool.get("function")
    if not isinstance(function, dict):
        message = f"{where}.function must be an object."
        raise BadRequest(message, param=f"{where}.function", code="invalid_value")
    return function, f"{where}.function"


def _definition(function: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """One tool, with an empty object for missing parameters."""
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(
            f"{where}.name must be 1 to 64 letters, digits, underscores, dots or dashes.",
            param=f"{where}.name",
            code="invalid_value",
        )
    if not isinstance(parameters, dict | None):
        raise BadRequest(
            f"{where}.parameters must be an object.", param=f"{where}.parameters", code="invalid_value"
        )
    return {"type": "function", "function": {**function, "parameters": parameters or _NOTHING}}


_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}}


class Choice(NamedTuple):
    """What the client wants done with its tools."""

    mode: str = "auto"
    named: str | None = None
    allowed: frozenset[str] | None = None  # None: all of them


def _choice(asked: Any, names: Sequence[str], field: str) -> Choice:
    """``asked`` is ``tool_choice`` or ``function_call`` as it came. Null means ``auto``."""
    if asked is None:
        return Choice()
    if isinstance(asked, str):
        if asked not in MODES:
            message = f"{field} must be none, auto, required, or name a function."
            raise BadRequest(message, param=field, code="invalid_value")
        return Choice(asked)
    if asked.get("type") == "allowed_tools":
        return _allowed(asked.get("allowed_tools"), names, field)
    return Choice("required", _known(asked.get("function", asked), names, field))


MODES = ("none", "auto", "required")


def _allowed(said: Any, names: Sequence[str], field: str) -> Choice:
    """Some of the tools, for this answer only."""
    tools = said.get("tools") if isinstance(said, dict) else None
    if not isinstance(tools, list) or said.get("mode", "auto") not in MODES[1:]:
        message = f"{field}.allowed_tools must have a list of tools, and auto or required as mode."
        raise BadRequest(message, param=f"{field}.allowed_tools", code="invalid_value")
    functions = [each.get("function") if isinstance(each, dict) else None for each in tools]
    allowed = frozenset(_known(function, names, field) for function in functions)
    return Choice(said.get("mode", "auto"), allowed=allowed)


def _known(function: Any, names: Sequence[str], field: str) -> str:
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        message = f"{field} names a function that is not among the tools."
        raise BadRequest(message, param=field, code="invalid_value")
    return str(name)


def modern(message: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A message whose older ``function_call`` has become one of ``tool_calls``. Raises ``BadRequest``."""
    called = message.get("function_call")
    if called is None or message.get("tool_calls"):
        return message
    name = called.get("name") if isinstance(called, dict) else None
    arguments = called.get("arguments") if isinstance(called, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, str | dict | None):
        param = f"{where}.function_call"
        told = f"{param} must have a name, and arguments as a string."
        raise BadRequest(told, param=param, code="invalid_value")
    rest = {key: value for key, value in message.items() if key != "function_call"}
    return {**rest, "tool_calls": [{"id": "", "type": "function", "function": dict(called)}]}
