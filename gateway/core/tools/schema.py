"""What a call of any of several tools looks like, as one JSON schema.

Rule: a tool's parameters are a schema of their own, whose references begin at its root. Put into another they
are rewritten to mean the same: what it defines stands in the definitions of the whole, under a name that no
other tool has, and anything else where it now is. Knows nothing about requests or any dialect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ANYTHING: Mapping[str, Any] = {"type": "object"}

_DEFINED = ("$defs", "definitions")
_OF_THE_ROOT = frozenset({*_DEFINED, "$schema", "$id", "id"})
_NAMED = frozenset(  # schemas by name
    {*_DEFINED, "properties", "patternProperties", "dependentSchemas", "dependencies"}
)
_DATA = frozenset({"const", "enum", "default", "example", "examples"})


def any_call(tools: Iterable[Mapping[str, Any]], keys: tuple[str, str]) -> dict[str, Any]:
    """The schema of an object that calls one of these functions, its name and arguments under ``keys``."""
    calls: list[Mapping[str, Any]] = []
    defined: dict[str, Any] = {}
    for index, tool in enumerate(tools):
        parameters = tool.get("parameters") or ANYTHING
        moved = _Moved(f"#/anyOf/{index}/properties/{keys[1]}", index)
        arguments = {name: part for name, part in parameters.items() if name not in _OF_THE_ROOT}
        properties = {keys[0]: {"const": tool["name"]}, keys[1]: moved.schema(arguments)}
        call = {"type": "object", "properties": properties, "required": list(keys)}
        calls.append({**call, "additionalProperties": False})
        for section in _DEFINED:
            found = parameters.get(section)
            for name, schema in found.items() if isinstance(found, Mapping) else ():
                defined[moved.name(section) + name] = moved.schema(schema)
    return {"anyOf": calls, "$defs": defined} if defined else {"anyOf": calls}


class _Moved:
    """The parts of one tool's parameters: ``place`` is where their root is now."""

    def __init__(self, place: str, index: int) -> None:
        self._place, self._index = place, index

    def name(self, section: str) -> str:
        """What the names of its definitions begin with."""
        return f"tool{self._index}_{section.strip('$')}_"

    def schema(self, value: Any) -> Any:
        """A schema, or a list of them, with its references rewritten."""
        if isinstance(value, list):
            return [self.schema(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        return {key: self._keyword(key, part) for key, part in value.items()}

    def _keyword(self, key: str, part: Any) -> Any:
        if key == "$ref" and isinstance(part, str):
            return self._reference(part)
        if key in _NAMED and isinstance(part, Mapping):
            return {name: self.schema(inner) for name, inner in part.items()}
        return part if key in _DATA else self.schema(part)

    def _reference(self, pointer: str) -> str:
        if pointer != "#" and not pointer.startswith("#/"):
            return pointer
        for section in _DEFINED:
            if pointer.startswith(f"#/{section}/"):
                return f"#/$defs/{self.name(section)}{pointer.removeprefix(f'#/{section}/')}"
        return self._place + pointer[1:]
