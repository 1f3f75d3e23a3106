"""A JSON Schema made ready to check values, within bounded time and memory.

Rule: nothing is fetched, no pattern runs away, and the work is estimated before it is done. ``format`` is a
remark, as JSON Schema has it by default. Knows nothing about requests or about what an answer is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.structured.limits import Cost, Survey, compact, refused
from gateway.core.structured.patterns import Patterns, engine, library

MAX_WORK = 1_000_000_000  # nanoseconds that a check may take
STEP = 12  # nanoseconds a check of one schema at one place, measured

NEWEST = "https://json-schema.org/draft/2020-12/schema"
DRAFTS = {
    NEWEST: "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
}
REF_STANDS_ALONE = tuple(DRAFTS)[2:]  # in these a $ref makes its neighbours mean nothing


@dataclass(slots=True, frozen=True)
class Checker:
    """One schema, made by ``checker``. It is as large as its patterns, and lives as long as its request."""

    schema: Mapping[str, Any]
    draft: str  # its URI
    cost: Cost
    unknown: tuple[str, ...]  # keywords without effect
    _validator: Any = field(compare=False, repr=False)

    def affords(self, places: int, characters: int) -> bool:
        """True if a value of this many places, from a text of this length, can be checked in time."""
        return places * self.cost.steps * STEP + characters * self.cost.scan <= MAX_WORK

    def fits(self, value: Any) -> bool:
        return bool(self._validator.is_valid(value))


def checker(schema: Mapping[str, Any]) -> Checker:
    """The checker of a client's schema. Raises ``BadRequest`` that says what is wrong with it."""
    compact(schema)
    draft = _draft(schema.get("$schema"))
    survey = Survey(schema, Patterns().weigh)
    cost = survey.total()
    rooted = {key: value for key, value in schema.items() if key != "$id"}  # $refs are local
    try:
        validator = compiled(rooted, draft)
    except library().ValidationError as exc:
        where = "/".join(str(part) for part in exc.instance_path)[:80]
        raise refused(f"it is not a valid JSON Schema at #/{where}: {_cut(exc.message)}") from None
    except (library().ReferencingError, ValueError) as exc:
        raise refused(f"it is not a valid JSON Schema: {_cut(str(exc))}") from None
    return Checker(rooted, draft, cost, tuple(dict.fromkeys(survey.unknown)), validator)


def compiled(schema: Any, draft: str, **options: Any) -> Any:
    """The library's validator under our limits."""
    kind = getattr(library(), DRAFTS[draft])
    return kind(schema, pattern_options=engine(), offline=True, validate_formats=False, **options)


def _draft(named: Any) -> str:
    if named is None:
        return NEWEST
    if not isinstance(named, str) or named.rstrip("#") not in DRAFTS:
        raise refused(f"$schema must be one of {', '.join(DRAFTS)}")
    return named.rstrip("#")


def _cut(message: str) -> str:
    return message if len(message) <= 200 else message[:199] + "…"
