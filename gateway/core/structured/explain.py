"""Where a value does not fit its schema, in one line for a model or a person.

Rule: go down from the whole to the smallest part that fails and say what fails there; where several forms are
allowed, go on only if the value is clearly meant to be one of them. The line names a JSON pointer, and of the
answer it repeats at most 80 characters at a time. The work is bounded: no list of all errors is made, because
alternatives multiply in it. Knows nothing about how a schema came to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from gateway.core.structured.checker import REF_STANDS_ALONE, Checker, compiled
from gateway.core.structured.limits import INNER, SHELVES, target
from gateway.core.structured.patterns import library

MAX_SHOWN = 80  # characters of a value or name
MAX_LINE = 400
MAX_TRIALS = 200  # subschemas that are tried for one line
_ROOT = "urn:schema"


class Part(NamedTuple):
    """A part of the value, with the schema that applies to it and where both stand."""

    value: Any
    path: tuple[str | int, ...]
    schema: Any
    pointer: str  # of the schema, from its root


class Trials:
    """Tries parts against their schemas, a bounded number of times."""

    def __init__(self, checker: Checker) -> None:
        self.root = checker.schema
        self.draft = checker.draft
        self.left = MAX_TRIALS
        self._registry = library().Registry([(_ROOT, {"$schema": checker.draft, **checker.schema})])

    def fails(self, part: Part) -> bool:
        """True if the part certainly does not fit."""
        self.left -= 1
        if self.left < 0:
            return False
        schema = {"$ref": f"{_ROOT}#{part.pointer}"}
        try:
            return not compiled(schema, self.draft, registry=self._registry).is_valid(part.value)
        except (library().ValidationError, library().ReferencingError, ValueError):
            return False  # the schema as a whole was accepted; a line less exact is no reason to fail

    def complaint(self, part: Part) -> str | None:
        """What the schema's own keywords say against the part, its subschemas left out."""
        if not isinstance(part.schema, dict):
            return "nothing may stand here" if part.schema is False else None
        if "$ref" in part.schema and self.draft in REF_STANDS_ALONE:
            return None
        own = {key: value for key, value in part.schema.items() if key not in INNER and key != "$schema"}
        if part.schema.get("additionalProperties") is False:
            for shelf in ("properties", "patternProperties"):
                own[shelf] = dict.fromkeys(part.schema.get(shelf, ()), True)
            own["additionalProperties"] = False
        rs = library()
        try:
            compiled(own, self.draft, mask=shown(part.value)).validate(part.value)
        except rs.ValidationError as exc:
            if isinstance(exc.kind, rs.ValidationErrorKind.AdditionalProperties):
                return f"the property {shown(exc.kind.unexpected[0])} is not allowed"
            return str(exc.message)
        return None


def explain(checker: Checker, value: Any) -> str:
    """One line about a value that does not fit."""
    trials = Trials(checker)
    part = Part(value, (), checker.schema, "")
    for _ in range(MAX_TRIALS):
        if complaint := trials.complaint(part):
            return _line(part, complaint)
        below = next((inner for inner in _parts(trials, part) if trials.fails(inner)), None)
        below = below or _meant(trials, part)
        if below is None:
            break
        part = below
    return _line(part, _general(part))


def _parts(trials: Trials, part: Part) -> Iterator[Part]:
    """What must hold beside the schema's own keywords: the same value elsewhere, then what is inside it."""
    value, path, schema, pointer = part
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield Part(value, path, target(trials.root, schema["$ref"]), schema["$ref"][1:])
    for index, inner in enumerate(schema.get("allOf", ())):
        yield Part(value, path, inner, f"{pointer}/allOf/{index}")
    if isinstance(value, dict):
        yield from _members(part)
    elif isinstance(value, list):
        yield from _items(part)


def _members(part: Part) -> Iterator[Part]:
    named = part.schema.get("properties", {})
    others = part.schema.get("additionalProperties")
    for name, inner in part.value.items():
        if name in named:
            pointer = f"{part.pointer}/properties/{_quoted(name)}"
            yield Part(inner, (*part.path, name), named[name], pointer)
        elif others is not None and not part.schema.get("patternProperties"):
            yield Part(inner, (*part.path, name), others, f"{part.pointer}/additionalProperties")


def _items(part: Part) -> Iterator[Part]:
    first, rest, keyword = part.schema.get("prefixItems", []), part.schema.get("items"), "items"
    shelf = "prefixItems"
    if isinstance(rest, list):
        first, rest, shelf, keyword = rest, part.schema.get("additionalItems"), "items", "additionalItems"
    for index, inner in enumerate(part.value):
        if index < len(first):
            yield Part(inner, (*part.path, index), first[index], f"{part.pointer}/{shelf}/{index}")
        elif rest is not None:
            yield Part(inner, (*part.path, index), rest, f"{part.pointer}/{keyword}")


def _meant(trials: Trials, part: Part) -> Part | None:
    """The one form among several that the value has the outline of, if it fits none."""
    for keyword in ("anyOf", "oneOf"):
        forms = part.schema.get(keyword) if isinstance(part.schema, dict) else None
        if not forms:
            continue
        choices = [
            Part(part.value, part.path, form, f"{part.pointer}/{keyword}/{index}")
            for index, form in enumerate(forms[:MAX_TRIALS])
        ]
        like = [choice for choice in choices if _outlined(trials, choice)]
        if len(like) == 1 and trials.fails(like[0]):
            return like[0]
    return None


def _outlined(trials: Trials, part: Part) -> bool:
    """True if the part has the type that the form wants, and the constants that tell forms apart."""
    schema = part.schema
    for _ in range(8):  # references to references
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = target(trials.root, schema["$ref"])
    if not isinstance(schema, dict):
        return schema is True
    outline: dict[str, Any] = {key: schema[key] for key in ("type", "const", "enum") if key in schema}
    tags = {
        name: {key: inner[key] for key in ("const", "enum") if key in inner}
        for name, inner in schema.get("properties", {}).items()
        if isinstance(inner, dict) and ("const" in inner or "enum" in inner)
    }
    if tags:
        outline["properties"] = tags
    return bool(compiled(outline, trials.draft).is_valid(part.value))


def _general(part: Part) -> str:
    """What can be said without going further."""
    if isinstance(part.schema, dict):
        for keyword in ("anyOf", "oneOf"):
            if keyword in part.schema:
                return f"{shown(part.value)} does not fit {keyword} of {len(part.schema[keyword])} forms"
        kept = [key for key in part.schema if key in INNER and key not in SHELVES]
        if kept:
            return f"{shown(part.value)} does not fit the schema's {', '.join(kept)}"
    return f"{shown(part.value)} does not fit the schema"


def _line(part: Part, complaint: str) -> str:
    steps = "".join(f"/{_step(str(step))[:MAX_SHOWN]}" for step in part.path)
    where = f"at {steps}: " if steps else ""
    line = " ".join(f"{where}{complaint}".split())
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


def shown(value: Any) -> str:
    """A value as JSON, cut to a glance."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _step(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _quoted(name: str) -> str:
    """A step of a JSON pointer as it stands in a URL."""
    step = _step(name).encode()
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in step)


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
