"""``response_format`` as a frozen value, or a 400 that names the field.

Shape: https://platform.openai.com/docs/api-reference/chat/create
Rule: what a schema cannot mean is refused here, before any model is asked. Knows nothing about models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.core.call import MAX_NOTED, notable
from gateway.core.errors import BadRequest
from gateway.core.structured.checker import Checker, checker
from gateway.core.structured.limits import target

MAX_DESCRIPTION = 16 << 10  # characters
MAX_MET = 100  # schemas that are looked at to learn the types of the whole
KINDS = ("object", "array", "string", "number", "boolean", "null")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMAT = "response_format"
_SCHEMA = "response_format.json_schema"


@dataclass(slots=True, frozen=True)
class Format:
    """JSON that was asked for. ``opens`` are the types that the whole value may have."""

    kind: Literal["json_object", "json_schema"]
    opens: frozenset[str] = frozenset({"object"})
    name: str = ""
    description: str = ""
    schema: Mapping[str, Any] | None = None  # as the client wrote it
    strict: bool = False  # noted only: every answer is checked
    ignored: tuple[str, ...] = ()  # fields and keywords without effect, for x-gateway-ignored
    checker: Checker | None = field(default=None, compare=False, repr=False)


def parse_format(value: Mapping[str, Any] | None) -> Format | None:
    """What was asked for; ``None`` is plain text. Raises ``BadRequest``."""
    if value is None:
        return None
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            return Format("json_object", ignored=_others(value, "type"))
        case "json_schema":
            return _of_schema(value.get("json_schema"), _others(value, "type", "json_schema"))
        case None:
            raise _missing(f"{_FORMAT}.type")
    raise _invalid(f"{_FORMAT}.type", "must be text, json_object or json_schema")


def _of_schema(given: Any, ignored: tuple[str, ...]) -> Format:
    if given is None:
        raise _missing(_SCHEMA)
    if not isinstance(given, Mapping):
        raise _invalid(_SCHEMA, "must be an object")
    name, schema = given.get("name"), given.get("schema")
    if name is None:
        raise _missing(f"{_SCHEMA}.name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _invalid(f"{_SCHEMA}.name", "must be 1 to 64 letters, digits, underscores or dashes")
    description, strict = given.get("description"), given.get("strict")
    if not isinstance(description, str | None) or len(description or "") > MAX_DESCRIPTION:
        raise _invalid(f"{_SCHEMA}.description", f"must be a text of at most {MAX_DESCRIPTION} characters")
    if not isinstance(strict, bool | None):
        raise _invalid(f"{_SCHEMA}.strict", "must be true or false")
    if schema is None:
        raise _missing(f"{_SCHEMA}.schema")
    if not isinstance(schema, dict):
        raise _invalid(f"{_SCHEMA}.schema", "must be an object")
    others = _others(given, "name", "schema", "description", "strict")
    ready = checker(schema)
    return Format(
        "json_schema",
        opens=opens(schema),
        name=name,
        description=description or "",
        schema=schema,
        strict=bool(strict),
        ignored=(*ignored, *others, *_named(ready.unknown))[:MAX_NOTED],
        checker=ready,
    )


def _others(given: Mapping[str, Any], *known: str) -> tuple[str, ...]:
    return _named(name for name, value in given.items() if name not in known and value is not None)


def _named(names: Iterable[str]) -> tuple[str, ...]:
    return notable(f"{_FORMAT}.{name}" for name in names)


def opens(schema: Any) -> frozenset[str]:
    """The types that a value of this schema may have; rather too many than too few."""
    return _opens(schema, schema, set())


def _opens(schema: Any, root: Any, met: set[int]) -> frozenset[str]:
    kinds = frozenset(KINDS)
    if not isinstance(schema, dict) or id(schema) in met or len(met) > MAX_MET:
        return kinds
    met.add(id(schema))
    if "$ref" in schema:
        kinds &= _opens(target(root, schema["$ref"]), root, met)
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kinds &= {"number" if name == "integer" else name for name in named}
    if "const" in schema or "enum" in schema:
        kinds &= {kind_of(value) for value in schema.get("enum", [schema.get("const")])}
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            kinds &= frozenset().union(*(_opens(inner, root, met) for inner in schema[keyword]))
    return kinds


def kind_of(value: Any) -> str:
    """JSON's name for the type of a value; an integer is a number."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "number"


def _missing(param: str) -> BadRequest:
    return BadRequest(f"{param} is required.", param=param, code="missing_required_parameter")


def _invalid(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param} {why}.", param=param, code="invalid_value")
