"""Answers that are vectors -> events: the prompt contract's, and those of servers that speak OpenAI's API.

Rule: one answer holds one vector for each text, all of one length and of finite numbers, or it is an error;
a vector that is missing or out of place would be taken for that of another text. Numbers become 32-bit
floats here, so that both forms a client may ask for hold the same ones.
"""

from __future__ import annotations

import binascii
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from orjson import JSONDecodeError, loads

from gateway.core.decode import fields
from gateway.core.decode.failure import Place, failure, reported
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.events import Event, Finish, Vectors

Key: TypeAlias = Literal["embeddings", "data"]
"""Where the vectors are: the contract's list of lists, or OpenAI's list of objects."""


class VectorDecoder:
    """One answer to a call with ``wanted`` texts. It comes in one piece."""

    def __init__(self, key: Key, wanted: int, place: Place) -> None:
        self.failed: GatewayError | None = None
        self.said = False
        self.done = False
        self._key = key
        self._wanted = wanted
        self._place = place

    def feed(self, payloads: list[bytes]) -> list[Event]:
        raise self._wrong("came as a stream")

    def end(self) -> list[Event]:
        raise self._wrong("came as a stream")

    def whole(self, body: bytes) -> list[Event]:
        try:
            data = loads(body)
        except JSONDecodeError:
            raise self._wrong(f"is {len(body)} bytes that are not JSON") from None
        if error := reported(data):
            raise failure(error, self._place)
        found = data.get(self._key) if isinstance(data, dict) else None
        if not isinstance(found, list):
            raise self._wrong(f"holds no list of vectors at `{self._key}`")
        if len(found) != self._wanted:
            raise self._wrong(f"holds {len(found)} vectors for {self._wanted} texts")
        vectors = tuple(map(self._vector, self._in_order(found) if self._key == "data" else found))
        if len({len(vector) for vector in vectors}) > 1:
            raise self._wrong("holds vectors of different lengths")
        told = data.get("usage")
        usage = fields.usage({"completion_tokens": 0, **told}) if isinstance(told, dict) else None
        return [Vectors(vectors), Finish(usage=usage, ignored=fields.names(data.get("ignored")))]

    def _in_order(self, found: list[Any]) -> Sequence[Any]:
        """The vectors of OpenAI's objects by their ``index``, which nobody has to keep in order."""
        if not all(isinstance(item, dict) for item in found):
            raise self._wrong("holds something else than objects at `data`")
        if all(item.get("index") is None for item in found):
            return [item.get("embedding") for item in found]
        placed = {item.get("index"): item for item in found if type(item.get("index")) is int}
        if placed.keys() != set(range(self._wanted)):
            raise self._wrong("does not hold every `index` once")
        return [placed[index].get("embedding") for index in range(self._wanted)]

    def _vector(self, value: Any) -> array[float]:
        try:
            vector = _from_base64(value) if isinstance(value, str) else array("f", _numbers(value))
        except (TypeError, ValueError, OverflowError):
            raise self._wrong("holds something else than numbers in a vector") from None
        if not vector or not math.isfinite(sum(vector)):
            raise self._wrong("holds a vector that is empty or not finite")
        return vector

    def _wrong(self, what: str) -> UpstreamError:
        return UpstreamError(
            f"The upstream's answer {what}: check {self._place.at}.url, and that its model makes embeddings.",
            code="upstream_bad_response",
        )


def _numbers(value: Any) -> list[float]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _from_base64(text: str) -> array[float]:
    """32-bit floats, the least significant byte first."""
    vector = array("f", binascii.a2b_base64(text, strict_mode=True))
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
