"""OpenAI requests as types: bytes in, a frozen ``ChatRequest`` out, or a 400 that names the field.

Rule: strict and patient. A known field must have its documented type (no "true" for true, no 1e999); null
means absent; unknown fields are kept for ``plan`` to forward or to report, never dropped here. Shapes:
https://platform.openai.com/docs/api-reference/chat/create Knows nothing about models, limits of a
deployment, or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from gateway.core.errors import BadRequest

MAX_MESSAGES = 2048  # far beyond any conversation; validation time grows with items, not with bytes
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024  # characters
MAX_UNKNOWN = 64  # fields of a request that we do not know

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool", "function"]
Scalar: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Function(TypedDict, total=False):
    """What an assistant called."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: str | None
    arguments: str | dict[str, Any] | None


class ToolCall(TypedDict, total=False):
    """One call of an assistant's message."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    id: str | None
    function: Function | None


class Message(TypedDict, total=False):
    """One chat message. Fields beyond these are kept for upstreams that speak chat."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    role: Role
    content: Any  # str | list of parts | None: checked by ``text_of``, which gives better errors
    name: str | None
    tool_calls: list[ToolCall] | None
    tool_call_id: str | None
    reasoning_content: str | None


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    include_usage: bool | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _bounded_stops(stops: list[str]) -> list[str]:
    """Empty strings stop nothing and do not count."""
    kept = [stop for stop in stops if stop]
    if len(kept) > MAX_STOPS:
        raise ValueError(f"accepts at most {MAX_STOPS} strings, got {len(kept)}")
    if any(len(stop) > MAX_STOP_LENGTH for stop in kept):
        raise ValueError(f"accepts strings of at most {MAX_STOP_LENGTH} characters")
    return kept


class ChatRequest(BaseModel):
    """What the client asked. ``None`` means that it did not say."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str, Field(max_length=512)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    stop: (
        Annotated[list[str], Field(max_length=256), BeforeValidator(_as_list), AfterValidator(_bounded_stops)]
        | None
    ) = None
    temperature: Annotated[Scalar, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Scalar, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    min_p: Annotated[Scalar, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Scalar, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Scalar, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Scalar, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[Scalar, Field(ge=-100, le=100)]], Field(max_length=1024)] | None
    ) = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=512)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Annotated[list[dict[str, Any]], Field(max_length=512)] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


def parse_chat(body: bytes) -> ChatRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position."""
    _refuse_beyond_json(body)
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as exc:
        raise bad_request(exc) from None
    if request.model_extra and len(request.model_extra) > MAX_UNKNOWN:
        raise BadRequest(
            f"The request has {len(request.model_extra)} unknown fields; {MAX_UNKNOWN} are accepted."
        )
    for index, message in enumerate(request.messages):
        if "role" not in message:
            raise BadRequest(f"messages[{index}].role is required.", param=f"messages[{index}].role")
    return request


def _refuse_beyond_json(body: bytes) -> None:
    """pydantic reads NaN, Infinity and 1e999; passed on, they would silently become null.

    To parse all of it takes less time than to search it for such numbers.
    """
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(
            f"The request body is not valid JSON: {exc.msg} at line {exc.lineno} column {exc.colno}.",
            code="invalid_json",
        ) from None


def bad_request(exc: ValidationError) -> BadRequest:
    """The first of pydantic's complaints, said OpenAI's way; no input value is repeated."""
    first = exc.errors(include_url=False, include_input=False, include_context=True)[0]
    if first["type"] == "json_invalid":
        return BadRequest(
            f"The request body is not valid JSON: {first['ctx']['error']}.", code="invalid_json"
        )
    param = _param(first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return BadRequest(f"{param} is required.", param=param, code="missing_required_parameter")
    if not param:
        return BadRequest(f"The request body must be a JSON object: {message}.")
    return BadRequest(f"{param}: {message[:1].lower()}{message[1:]}.", param=param, code="invalid_value")


def _param(loc: Sequence[int | str]) -> str:
    """``("messages", 0, "role")`` -> ``messages[0].role``; pydantic's own type tags are left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _TYPE_TAGS:
            path += f".{part[:64]}" if path else part[:64]
    return path


_TYPE_TAGS = frozenset({"str", "int", "float", "bool", "dict"})


def text_of(content: Any, where: str) -> str:
    """The text of a message's content: a string, null (empty), or text parts joined.

    Parts of other types raise ``BadRequest`` that names them.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(
            f"{where} must be a string, a list of parts, or null.", param=where, code="invalid_value"
        )
    return "".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))


def part_text(part: Any, where: str) -> str:
    """The text of one part. Raises ``BadRequest`` for any other."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if kind in ("text", "input_text", "output_text"):
        raise BadRequest(f"{where}.text must be a string.", param=f"{where}.text", code="invalid_value")
    if not isinstance(kind, str):
        raise BadRequest(
            f'{where} must be an object with a type, such as {{"type": "text", "text": ...}}.',
            param=where,
            code="invalid_value",
        )
    named = kind if kind.isidentifier() and len(kind) <= 64 else "unknown"
    raise BadRequest(
        f"{where}: parts of type {named!r} are not accepted by this model; send text.",
        param=f"{where}.type",
        code="unsupported_content",
    )
