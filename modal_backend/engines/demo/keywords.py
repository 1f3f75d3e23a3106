"""Read the keywords of a JSON Schema that came from a client.

Rule: a keyword is checked where it is read, and a wrong one is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from modal_backend.engine import BadRequest

Schema: TypeAlias = Mapping[str, Any]

MAX_LENGTH = 1000  # characters of a string, items of an array, properties of an object
INT64 = 1 << 63


def mapping(schema: Schema, keyword: str) -> Mapping[str, Any]:
    found = schema.get(keyword, {})
    if not isinstance(found, dict):
        raise BadRequest(f"`json_schema` has a `{keyword}` that is not an object")
    return found


def items(schema: Schema, keyword: str) -> list[Any]:
    found = schema.get(keyword, [])
    if not isinstance(found, list):
        raise BadRequest(f"`json_schema` has a `{keyword}` that is not an array")
    return found


def size(schema: Schema, keyword: str, otherwise: int = 0) -> int:
    found = schema.get(keyword, otherwise)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise BadRequest(f"`json_schema` has a `{keyword}` that is not a natural number")
    if keyword.startswith("min") and found > MAX_LENGTH:
        raise BadRequest(f"the demo engine makes nothing with a `{keyword}` above {MAX_LENGTH}")
    return found


def bound(schema: Schema, keyword: str, otherwise: float) -> float:
    found = schema.get(keyword, otherwise)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadRequest(f"`json_schema` has a `{keyword}` that is not a number")
    if isinstance(found, int) and not -INT64 <= found < INT64:
        raise BadRequest(f"`json_schema` has a `{keyword}` of more than 64 bits")
    return found
