"""What a client's JSON Schema may be, and what checking against it can cost at most.

Rule: everything that could make the validator slow or large is bounded before it sees the schema: size,
depth, properties, references, patterns, and the work a value of given size can cause. References point into
the schema itself. Keywords nobody knows are listed, not refused: JSON Schema says that they mean nothing.
Knows nothing about answers, requests or messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.core.errors import BadRequest

PARAM = "response_format.json_schema.schema"
MAX_BYTES = 256 << 10  # of the compact schema
MAX_DEPTH = 100  # levels of nesting, of JSON and of references followed into one another
MAX_PROPERTIES = 5000  # in all objects together, as OpenAI's limit
MAX_STEPS = 20_000  # checks that one place of an answer may need
MAX_SCAN = 100_000  # nanoseconds that one character of an answer may cost in patterns

LOOSE = ("allOf", "anyOf", "oneOf")
SAME = ("not", "if", "then", "else")
BELOW = (
    "additionalProperties",
    "additionalItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "items",
    "contains",
    "propertyNames",
)
NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
SHELVES = ("$defs", "definitions")
REFUSED = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "$anchor", "$vocabulary")
INNER = frozenset(
    (*LOOSE, *SAME, *BELOW, *NAMED, *SHELVES, "prefixItems", "minContains", "maxContains", "$ref")
)
_PLAIN = """
    $schema $id $comment type enum const required pattern format title description default examples
    deprecated readOnly writeOnly minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength
    maxLength minItems maxItems uniqueItems minProperties maxProperties dependentRequired
    contentEncoding contentMediaType contentSchema discriminator
"""
_KNOWN = INNER | frozenset(re.findall(r"\S+", _PLAIN))


@dataclass(slots=True)
class Cost:
    """What one place of an answer can cost: checks, and nanoseconds for each of its characters."""

    steps: int = 1
    scan: int = 0

    def add(self, other: Cost) -> None:
        self.steps += other.steps
        self.scan += other.scan


def refused(why: str, param: str = PARAM) -> BadRequest:
    return BadRequest(f"{param}: {why}.", param=param, code="invalid_value")


def compact(schema: Mapping[str, Any]) -> bytes:
    """The schema as JSON without spaces. Raises ``BadRequest`` where it is too large, deep or not JSON."""
    try:
        text = orjson.dumps(schema)
    except orjson.JSONEncodeError:
        raise refused("it nests too deeply, or holds a number or text that JSON cannot carry") from None
    if len(text) > MAX_BYTES:
        raise refused(f"it has {len(text)} bytes; at most {MAX_BYTES} are accepted")
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return text
    raise refused(f"it nests deeper than {MAX_DEPTH} levels")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


@dataclass(slots=True)
class Survey:
    """One walk over a schema: every place where a schema stands is met once, references are followed."""

    root: Mapping[str, Any]
    weigh: Callable[[str], int]  # nanoseconds a character costs in a pattern
    unknown: list[str] = field(default_factory=list)
    properties: int = 0
    _done: dict[int, Cost] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _again: set[int] = field(default_factory=set)  # schemas that lead back to themselves

    def total(self) -> Cost:
        """The most that one place of an answer costs. Raises ``BadRequest`` beyond what is accepted.

        The validator remembers, for each place, what a recursive reference gave; so each of them counts once.
        """
        cost = Cost(0)
        cost.add(self._cost(self.root, 0))
        for again in self._again:
            cost.add(self._done[again])
        if cost.steps > MAX_STEPS:
            raise refused("it is too involved: its alternatives and references multiply")
        if cost.scan > MAX_SCAN:
            raise refused("its patterns take too long to match; use minLength and maxLength for lengths")
        return cost

    def _cost(self, schema: Any, depth: int) -> Cost:
        if not isinstance(schema, dict):
            return Cost()  # true and false; anything else is the validator's to refuse
        key = id(schema)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            self._again.add(key)
            return Cost()
        if depth > MAX_DEPTH:
            raise refused(f"its references nest deeper than {MAX_DEPTH} levels")
        self._open.add(key)
        cost = self._own(schema)
        for inner in self._applied(schema):
            cost.add(self._cost(inner, depth + 1))
            if cost.steps > MAX_STEPS:
                raise refused("it is too involved: its alternatives and references multiply")
        cost.add(self._dearest(schema, depth + 1))
        for shelf in SHELVES:
            for inner in _values(schema.get(shelf)):
                self._cost(inner, depth + 1)
        self._open.discard(key)
        self._done[key] = cost
        return cost

    def _own(self, schema: dict[str, Any]) -> Cost:
        """What the schema's own keywords cost, its subschemas left out."""
        for keyword in schema:
            if keyword in REFUSED or (keyword == "$id" and schema is not self.root):
                raise refused(f"{keyword} is not accepted; write a $ref that begins with #/")
            if keyword not in _KNOWN:
                self.unknown.append(keyword)
        listed = [schema.get(keyword) for keyword in ("properties", "required", "enum")]
        self.properties += len(listed[0]) if isinstance(listed[0], dict) else 0
        if self.properties > MAX_PROPERTIES:
            raise refused(f"it has more than {MAX_PROPERTIES} properties")
        cost = Cost(1 + sum(len(value) for value in listed if isinstance(value, dict | list)))
        cost.scan = sum(self.weigh(pattern) for pattern in _patterns_of(schema))
        return cost

    def _applied(self, schema: dict[str, Any]) -> Iterator[Any]:
        """The subschemas that may all have to be checked, at the same place or at one below it."""
        if "$ref" in schema:
            yield target(self.root, schema["$ref"])
        for keyword in (*SAME, *BELOW):
            if isinstance(schema.get(keyword), dict):
                yield schema[keyword]
        for keyword in LOOSE:
            if isinstance(schema.get(keyword), list):
                yield from schema[keyword]
        for keyword in NAMED[1:]:
            yield from _values(schema.get(keyword))

    def _dearest(self, schema: dict[str, Any], depth: int) -> Cost:
        """Of properties, and of items by position, one place meets only one."""
        dearest = Cost(0)
        listed = [*_values(schema.get("properties"))]
        for keyword in ("prefixItems", "items"):
            if isinstance(schema.get(keyword), list):
                listed += schema[keyword]
        for inner in listed:
            cost = self._cost(inner, depth)
            dearest = Cost(max(dearest.steps, cost.steps), max(dearest.scan, cost.scan))
        return dearest


def _patterns_of(schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        yield from schema["patternProperties"]


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()


def target(root: Any, ref: Any) -> Any:
    """What a ``$ref`` of this schema points to. Raises ``BadRequest`` unless it is inside and a schema."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise refused("a $ref must point into the schema itself, such as #/$defs/name")
    found: Any = root
    for part in ref[2:].split("/") if ref != "#" else ():
        found = _child(found, _unescaped(part))
    if not isinstance(found, dict | bool):
        raise refused(f"there is no schema at its $ref {ref[:80]}")
    return found


def _child(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", name) and int(name) < len(value):
        return value[int(name)]
    return None


def _unescaped(part: str) -> str:
    """A step of a JSON pointer in a URL: percent signs first, then ~1 and ~0 (RFC 6901, 6)."""
    raw = part.encode("utf-8", "replace")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), raw)
    return raw.decode("utf-8", "replace").replace("~1", "/").replace("~0", "~")
