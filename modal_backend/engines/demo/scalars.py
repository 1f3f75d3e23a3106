"""Make a string or a number that a JSON Schema accepts.

Rule: a few candidates, each tried against the schema; if none passes, ``BadRequest``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.keywords import MAX_LENGTH, Schema, bound, size

FORMATS: Mapping[str, str] = {
    "date": "2024-01-01",
    "time": "12:00:00Z",
    "date-time": "2024-01-01T12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_WORDS = (
    "Demo", "DEMO", "d", "D", "0", "1", "demo1", "demo-1", "demo_1", "DEMO-1", "#000000", "+10000000000",
    "demo.txt", "/demo", "1.0", "1.0.0", "[]", "{}",
)  # fmt: skip

# A hostile pattern takes exponential time, so it meets short strings only.
_MAX_PATTERN = 1000
_MAX_SEARCHED = 20


def string(schema: Schema) -> str:
    least, most = size(schema, "minLength"), size(schema, "maxLength", MAX_LENGTH)
    pattern = _pattern(schema)
    for text in _strings(schema.get("format"), least, most):
        if least <= len(text) <= most and (pattern is None or _matches(pattern, text)):
            return text
    raise BadRequest("the demo engine finds no string for the bounds or the `pattern` in this `json_schema`")


def number(schema: Schema, *, whole: bool) -> int | float:
    low, high = bound(schema, "minimum", -math.inf), bound(schema, "maximum", math.inf)
    above, below = bound(schema, "exclusiveMinimum", -math.inf), bound(schema, "exclusiveMaximum", math.inf)
    step = bound(schema, "multipleOf", 1)
    if step <= 0:
        raise BadRequest("`json_schema` has a `multipleOf` that is not above 0")
    for value in _numbers(max(low, above), min(high, below), step):
        if not (low <= value <= high and above < value < below) or (whole and value != int(value)):
            continue
        if "multipleOf" not in schema or value % step == 0:
            return int(value) if whole else value
    raise BadRequest("the demo engine finds no number for the bounds in this `json_schema`")


def _strings(form: Any, least: int, most: int) -> Iterator[str]:
    if isinstance(form, str) and form in FORMATS:
        yield FORMATS[form]
        return
    yield "demo"[:most]
    yield ("demo " * (least // 5 + 1))[:least]
    yield from _WORDS
    yield from FORMATS.values()
    for char in "dD0":
        yield char * least


def _pattern(schema: Schema) -> re.Pattern[str] | None:
    if "pattern" not in schema:
        return None
    pattern = schema["pattern"]
    try:
        if isinstance(pattern, str) and len(pattern) <= _MAX_PATTERN:
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        pass  # refused below, like one that is no string
    raise BadRequest("`json_schema` has a `pattern` that is no regular expression, or too long a one")


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= _MAX_SEARCHED and pattern.search(text) is not None


def _numbers(low: float, high: float, step: float) -> Iterator[int | float]:
    yield 0
    if math.isfinite(low):
        up = math.ceil(low / step)
        yield from (math.ceil(low), math.floor(low) + 1, up * step, (up + 1) * step, low)
    if math.isfinite(high):
        down = math.floor(high / step)
        yield from (math.floor(high), math.ceil(high) - 1, down * step, (down - 1) * step, high)
    if math.isfinite(low) and math.isfinite(high):
        yield (low + high) / 2
