"""Reads answers of the gateway with the types of Anthropic's SDK, as strictly as they can be read.

Its standard input is one JSON object: ``messages``, ``events``, ``errors``. Prints what does not belong
there, one a line.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

OURS = {"x_gateway"}
READERS: dict[str, TypeAdapter[Any]] = {
    "messages": TypeAdapter(Message),
    "events": TypeAdapter(RawMessageStreamEvent),
    "errors": TypeAdapter(ErrorResponse),
}


def extras(value: Any, at: str) -> Iterator[str]:
    """Where a value holds a field that its type has not."""
    if isinstance(value, BaseModel):
        yield from (f"{at}.{name}" for name in value.model_extra or () if name not in OURS)
        for name in type(value).model_fields:
            yield from extras(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from extras(each, at)


def read(kind: str, data: Any) -> Iterator[str]:
    try:
        value = READERS[kind].validate_python(data)
    except ValidationError as error:
        yield f"{kind}: {error}"
    else:
        yield from extras(value, kind)


if __name__ == "__main__":
    told = json.load(sys.stdin)
    for found in sorted({line for kind, each in told.items() for data in each for line in read(kind, data)}):
        print(found)
