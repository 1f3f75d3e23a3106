"""The value of a schema, such as the arguments of a call, filled with what a message holds.

Rule: properties take, in their order, the numbers of the message, its quoted words, then its names (runs of
capitalised words that begin no sentence). One that lists its values takes the one that the message says. A
required text for which nothing is left takes the message as a whole; a value that the schema does not allow
is not taken. Everything else stays as it was, and so does an object that its schema ties in other ways.
Knows nothing about tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.keywords import Schema, bound, items, mapping, size

_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,15})?(?!\w)")
_QUOTED = re.compile(r"(?<!\w)'([^'\n]+)'(?!\w)|\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|`([^`\n]+)`")
_NAMES = re.compile(r"(?:(?<=[a-z,;] )|(?<=\())[A-Z][\w.-]*(?:,? [A-Z][\w.-]*)*")

# With any of these the value would have to be more than a plain number or text.
_BEYOND = frozenset(
    {"const", "pattern", "format", "multipleOf", "anyOf", "oneOf", "allOf", "not", "if", "$ref"}
)

# With any of these an object may not take what one of its properties allows.
_TIED = _BEYOND | {"enum", "maxProperties"}


def arguments(schema: Schema, message: str, least: Any) -> Any:
    """``least``, a value that the schema accepts, with what the message holds in place of what is made up."""
    if not isinstance(least, dict) or _TIED & schema.keys():
        return least
    return {**least, **_Held(message).filling(schema)}


def quoted(message: str) -> list[str]:
    """What stands between quotation marks."""
    return [next(filter(None, found)) for found in _QUOTED.findall(message)]


class _Held:
    """What of the message has not been taken yet."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._numbers = [_number(found) for found in _NUMBER.findall(message)]
        bare = _QUOTED.sub(" ", message)
        self._texts = quoted(message) + [found.rstrip(".") for found in _NAMES.findall(bare)]

    def filling(self, schema: Schema) -> dict[str, Any]:
        try:
            required = set(filter(_is_text, items(schema, "required")))
            properties = mapping(schema, "properties")
        except BadRequest:
            return {}
        found = {name: self._take(each, name in required) for name, each in properties.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _take(self, schema: Any, required: bool) -> Any:
        if not isinstance(schema, Mapping) or _BEYOND & schema.keys():
            return None
        try:
            return self._said(schema) if "enum" in schema else self._taken(schema, required)
        except BadRequest:
            return None

    def _taken(self, schema: Schema, required: bool) -> Any:
        match schema.get("type"):
            case "integer" | "number" as kind:
                fitting = (each for each in self._numbers if kind == "number" or isinstance(each, int))
                return _taken(self._numbers, next((each for each in fitting if _within(each, schema)), None))
            case "string":
                found = next((each for each in self._texts if _as_long(each, schema)), None)
                if found is None and required and _as_long(self._message, schema):
                    return self._message
                return _taken(self._texts, found)
        return None

    def _said(self, schema: Schema) -> Any:
        if schema.get("type", "string") != "string":
            return None
        listed = (each for each in items(schema, "enum") if _is_text(each) and _as_long(each, schema))
        return next((each for each in listed if each in self._message), None)


def _taken(held: list[Any], value: Any) -> Any:
    if value is not None:
        held.remove(value)
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _within(value: float, schema: Schema) -> bool:
    return bound(schema, "minimum", value) <= value <= bound(schema, "maximum", value) and bound(
        schema, "exclusiveMinimum", value - 1
    ) < value < bound(schema, "exclusiveMaximum", value + 1)


def _as_long(text: str, schema: Schema) -> bool:
    return size(schema, "minLength") <= len(text) <= size(schema, "maxLength", len(text))
