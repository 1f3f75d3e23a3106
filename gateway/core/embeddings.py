"""Embedding requests as types, the calls they become, and OpenAI's answer: bytes in, bytes out.

Rule: a text's vector depends on that text alone, so texts are sent in parts and may come back in any order;
the answer has them in the client's. What cannot be honoured is a 400 that names the field. Shapes:
https://platform.openai.com/docs/api-reference/embeddings Knows nothing about sockets, nor how token ids
become text.
"""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from gateway.core.body import checked, read_json
from gateway.core.call import MAX_NOTED, EmbedCall, Notes, Sender, Traits, notable
from gateway.core.errors import BadRequest, UpstreamError
from gateway.core.events import Batch, Finish, Usage, Vectors
from gateway.core.spec import ModelSpec

MAX_INPUTS = 2048  # texts, as OpenAI's
MAX_IDS = 300_000  # token ids of all texts together, as OpenAI's
MAX_DIMENSIONS = 1 << 16
MAX_ANSWER = 256 << 20  # bytes: 2,048 vectors of 4,096 numbers, written out, are some 170 million

Ids: TypeAlias = tuple[int, ...]


class EmbeddingRequest(BaseModel):
    """What the client asked. ``None`` means that it did not say."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())

    input: Any = Field(description="a text, token ids, or a list of either")
    model: Annotated[str, Field(max_length=512)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None

    def inputs(self) -> tuple[str | Ids, ...]:
        """Each text, or the token ids of one. Raises ``BadRequest`` that names the place."""
        value = self.input
        if isinstance(value, str):
            return (_text(value, "input"),)
        if not isinstance(value, list):
            raise _wrong("input", "must be a text, token ids, or a list of either")
        if not value:
            raise _wrong("input", "must not be empty")
        most, what = (MAX_IDS, "token ids") if type(value[0]) is int else (MAX_INPUTS, "texts")
        if len(value) > most:
            raise _wrong("input", f"accepts at most {most} {what}, got {len(value)}")
        if type(value[0]) is int:
            return (_ids(value, "input"),)
        if isinstance(value[0], str):
            return tuple(_text(item, f"input[{at}]") for at, item in enumerate(value))
        if sum(len(item) for item in value if isinstance(item, list)) > MAX_IDS:
            raise _wrong("input", f"accepts at most {MAX_IDS} token ids")
        return tuple(_ids(item, f"input[{at}]") for at, item in enumerate(value))


def parse_embeddings(body: bytes) -> EmbeddingRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position."""
    return checked(EmbeddingRequest, read_json(body))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "must be a text, as the first is")
    if not value:
        raise _wrong(where, "must not be empty")
    return value


def _ids(value: Any, where: str) -> Ids:
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        raise _wrong(where, "must be a text or a list of token ids")
    if not value:
        raise _wrong(where, "must not be empty")
    return tuple(value)


def _wrong(where: str, what: str) -> BadRequest:
    return BadRequest(f"{where}: {what}.", param=where, code="invalid_value")


def plan_embeddings(
    request: EmbeddingRequest, texts: Sequence[str], spec: ModelSpec, traits: Traits, origin: tuple[str, str]
) -> tuple[EmbedCall, ...]:
    """One call for every ``spec.embedding_batch`` texts; ``origin`` is the request's id and its key's name.

    Raises ``BadRequest`` where the model or its upstream cannot do it.
    """
    if not traits.embeds:
        raise BadRequest(
            f"The model `{spec.name}` makes no embeddings: kind modal has no such call. "
            "Give its container a web address, and the model kind: prompt.",
            param="model",
            code="unsupported_parameter",
        )
    if request.dimensions and not spec.matryoshka and traits.speaks != "chat":
        raise BadRequest(
            "dimensions: this model's vectors have one length (if they may be cut: matryoshka: true).",
            param="dimensions",
            code="unsupported_parameter",
        )
    fields, ignored = _fields(request, spec, traits)
    request_id, key = origin
    size = spec.embedding_batch
    return tuple(
        EmbedCall(
            tuple(texts[start : start + size]),
            fields,
            request_id=request_id,
            sender=Sender(key),
            notes=Notes(ignored[:MAX_NOTED]),
        )
        for start in range(0, len(texts), size)
    )


def _fields(
    request: EmbeddingRequest, spec: ModelSpec, traits: Traits
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What goes beside the texts, and the names of what has no effect."""
    extra = {name: value for name, value in (request.model_extra or {}).items() if value is not None}
    passed = {name: extra[name] for name in extra if traits.forward == "all" or name in traits.forward}
    if traits.speaks == "chat":
        if request.dimensions and not spec.matryoshka:
            passed["dimensions"] = request.dimensions
        if request.user:
            passed["user"] = request.user
    return passed, notable(name for name in extra if name not in passed)


class Collected:
    """The parts of one answer as they come, each at once in the form that the client gets."""

    def __init__(self, request: EmbeddingRequest, spec: ModelSpec) -> None:
        self.finished: dict[int, Finish] = {}  # by the number of the part
        self._vectors: dict[int, list[bytes]] = {}
        self._base64 = request.encoding_format == "base64"
        self._asked = request.dimensions
        self._cuts = spec.matryoshka
        self._length = 0  # of every vector
        self._size = 0  # bytes so far

    def feed(self, part: int, batch: Batch) -> None:
        """Raises ``GatewayError`` if these vectors are not what was asked for."""
        for event in batch:
            if isinstance(event, Vectors):
                self._vectors[part] = [self._encoded(self._fit(vector)) for vector in event.vectors]
                self._size += sum(map(len, self._vectors[part]))
            elif isinstance(event, Finish):
                self.finished[part] = event
        if self._size > MAX_ANSWER:
            raise _unusable(f"vectors of more than {MAX_ANSWER} bytes together")

    def answer(self, model: str, usage: Usage) -> bytes:
        """The JSON body, once every part has come; ``model`` is the name that was asked for."""
        counted = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
        pieces = [b'{"object":"list","data":[']
        for index, vector in enumerate(self._in_order()):
            begun = b"," if index else b""
            pieces += (b'%b{"object":"embedding","index":%d,"embedding":' % (begun, index), vector, b"}")
        pieces.append(b'],"model":%b,"usage":%b}' % (orjson.dumps(model), orjson.dumps(counted)))
        return b"".join(pieces)  # once: it may be large

    def _in_order(self) -> Iterator[bytes]:
        for part in sorted(self._vectors):
            yield from self._vectors[part]

    def _fit(self, vector: array[float]) -> array[float]:
        """The vector with as many numbers as were asked for."""
        self._length = self._length or len(vector)
        if len(vector) != self._length:
            raise _unusable("vectors of different lengths")
        asked = self._asked or self._length
        if asked == self._length:
            return vector
        if not self._cuts:
            raise _unusable(f"{self._length} numbers where dimensions: {asked} was asked for")
        if asked > self._length:
            raise BadRequest(
                f"dimensions is {asked}, but this model's vectors have {self._length} numbers.",
                param="dimensions",
                code="invalid_value",
            )
        return unit(vector[:asked])

    def _encoded(self, vector: array[float]) -> bytes:
        if not self._base64:
            return orjson.dumps(vector.tolist())
        if sys.byteorder == "big":
            vector = array("f", vector)
            vector.byteswap()
        return b'"%b"' % b64encode(vector.tobytes())


def unit(vector: array[float]) -> array[float]:
    """The vector of length 1 in the same direction; one of zeros stays as it is."""
    norm = math.sqrt(math.fsum(value * value for value in vector))
    return array("f", [value / norm for value in vector]) if norm else vector


def _unusable(what: str) -> UpstreamError:
    return UpstreamError(f"The upstream gave {what}.", code="upstream_bad_response")
