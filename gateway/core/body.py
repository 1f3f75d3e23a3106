"""The JSON body of a request -> a checked value, or a 400 that names the field or the place in the text.

Rule: nothing beyond JSON (NaN, 1e999) gets in, and unknown fields are few. Knows nothing about any API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from gateway.core.errors import BadRequest
from gateway.core.wire import MAX_UNKNOWN, bad_request

M = TypeVar("M", bound=BaseModel)


def read_json(body: bytes) -> Any:
    """The JSON in these bytes. Raises ``BadRequest`` that says where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(
            f"The request body is not valid JSON: {exc.msg} at line {exc.lineno} column {exc.colno}.",
            code="invalid_json",
        ) from None


def checked(model: type[M], data: Any) -> M:
    """``data`` as this type. Raises ``BadRequest`` that names the first wrong field."""
    try:
        value = model.model_validate(data)
    except ValidationError as exc:
        raise bad_request(exc) from None
    few(value.model_extra or {})
    return value


def few(unknown: Mapping[str, Any]) -> None:
    """Raise ``BadRequest`` where a request has too many fields that nobody knows."""
    if len(unknown) > MAX_UNKNOWN:
        raise BadRequest(f"The request has {len(unknown)} unknown fields; {MAX_UNKNOWN} are accepted.")
