"""Whether a whole answer is the JSON that was asked for; if not, one line that says why.

Rule: the line has a JSON pointer and no more of the answer than a glance; the check is bounded in time and
memory, or not begun. Knows nothing about who is told.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.core.structured.explain import explain
from gateway.core.structured.form import Format

MAX_TEXT = 4 << 20  # characters of an answer that is checked
MAX_DEPTH = 200  # levels of nesting in one


def verdict(text: str, form: Format) -> str | None:
    """``None`` if ``text`` is exactly one JSON value that fits; otherwise what is wrong, in one line."""
    if not text.strip():
        return "the answer holds no JSON"
    if len(text) > MAX_TEXT:
        return f"the answer is longer than {MAX_TEXT} characters"
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as exc:
        return f"the answer is not valid JSON: {_where(exc)}"
    if form.checker is None:
        return None if isinstance(value, dict) else "the answer is JSON, but not an object"
    places = _places(value)
    if places is None:
        return f"the answer nests deeper than {MAX_DEPTH} levels"
    if not form.checker.affords(places, len(text)):
        return "the answer is too large to be checked against this schema"
    return None if form.checker.fits(value) else explain(form.checker, value)


def _where(exc: ValueError) -> str:
    if isinstance(exc, orjson.JSONDecodeError):
        return f"{exc.msg} at line {exc.lineno} column {exc.colno}"
    return "it holds half of a character"


def _places(value: Any) -> int | None:
    """How many values there are in a value, itself and its names included; ``None`` beyond ``MAX_DEPTH``."""
    count, level = 0, [value]
    for _ in range(MAX_DEPTH):
        count += len(level)
        below: list[Any] = []
        for inner in level:
            if isinstance(inner, dict):
                count += len(inner)
                below += inner.values()
            elif isinstance(inner, list):
                below += inner
        if not below:
            return count
        level = below
    return None
