"""Errors that model servers report in JSON -> our errors, whatever the place they come from (body or event).

Rule: the code decides, then the status, never the text; the one exception is a prompt that is too long, for
which most servers have no code. What a server wrote reaches the client only as one short line without
control characters, secrets or echoed input.
Knows the contract's, OpenAI's and FastChat's shapes; knows nothing about HTTP headers or Modal's edge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.core.errors import (
    ContextTooLong,
    GatewayError,
    UpstreamBadRequest,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

MAX_SAID = 300  # characters of a server's message that are passed on
USELESS = {"x-should-retry": "false"}  # OpenAI's SDKs obey it: the same request would fail the same way
RETRY_SOON = {"retry-after": "5"}


@dataclass(slots=True, frozen=True)
class Place:
    """How messages name an upstream: the path of its entry in the config and what it is made of."""

    at: str = "models.NAME.upstream"
    credentials: str = "modal_key and modal_secret"  # config keys
    secrets: tuple[str, ...] = field(default=(), repr=False)  # what must never be repeated
    text: str = "prompt"  # the request field that holds the prompt, or the texts to embed
    added: str | None = None  # a request field that the gateway adds and that a strict server may refuse


@dataclass(slots=True, frozen=True)
class Said:
    """An error as a server reported it; ``status`` is the one inside the JSON, if any."""

    message: str = field(repr=False)  # it may repeat what it was sent
    code: str | int | None = field(default=None, repr=False)
    status: int | None = None


def reported(data: Any) -> Said | None:
    """The error in this JSON value, or None if it holds none.

    Shapes: ``{"error": {"message", "code", "status"}}`` (the contract, OpenAI, vLLM), ``{"error": "text"}``
    (TGI), ``{"object": "error", "message", "code"}`` and ``{"text", "error_code"}`` (FastChat 0.2.36).
    """
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if isinstance(error, dict) and error:
        return _said(error.get("message"), error.get("code") or error.get("type"), error.get("status"))
    if error:
        return _said(error, data.get("code") or data.get("error_type"), data.get("status"))
    if data.get("object") == "error":
        return _said(data.get("message"), data.get("code"), None)
    if isinstance(code := data.get("error_code"), int) and code:
        return _said(data.get("text"), code, None)
    return None


def _said(message: Any, code: Any, status: Any) -> Said:
    return Said(
        message if isinstance(message, str) else "",
        code if isinstance(code, str | int) and not isinstance(code, bool) else None,
        status if isinstance(status, int) and 400 <= status <= 599 else None,
    )


def failure(said: Said, place: Place, status: int | None = None) -> GatewayError:
    """Our error for what a server said; ``status`` is the HTTP status it came with, None inside a stream."""
    text = quoted(said.message, place)
    if made := _BY_CODE.get(said.code) if said.code is not None else None:
        return made(text, place)
    numeric = said.code if isinstance(said.code, int) and 400 <= said.code <= 599 else None
    return of_status(status or said.status or numeric or 500, text, place)


def quoted(message: str, place: Place) -> str:
    """A server's message as one short line: `` It said: ...``, or nothing."""
    # pydantic's errors go on with the refused input, which is the prompt.
    text = re.split(r"[,{(]?\s*['\"]?input(?:_value)?['\"]?\s*[:=]", message[: 8 * MAX_SAID], maxsplit=1)[0]
    for secret in place.secrets:
        text = text.replace(secret, "[hidden]")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not text:
        return ""
    return f" It said: {text if len(text) <= MAX_SAID else text[:MAX_SAID] + '...'}"


# --- one maker for each thing that can be wrong; every one takes what the server said and the place ---

Maker: TypeAlias = Callable[[str, Place], GatewayError]


def refused(text: str, place: Place) -> GatewayError:
    return UpstreamBadRequest(f"The model's server refused the request.{text}")


def too_long(text: str, place: Place) -> GatewayError:
    shorten, param = "the messages or lower max_tokens", "messages"
    if place.text == "input":
        shorten, param = "the texts", "input"
    return ContextTooLong(
        "The prompt exceeds the model's maximum context length (context_length_exceeded). "
        f"Please shorten {shorten}.{text}",
        param=param,
    )


def busy(text: str, place: Place) -> GatewayError:
    return UpstreamBusy(
        f"The model's server is busy. Try again in a few seconds.{text}",
        headers=RETRY_SOON,
        retry="elsewhere",
    )


def unauthorized(text: str, place: Place) -> GatewayError:
    """The server's words are left out: OpenAI's own repeat the key."""
    return UpstreamError(
        f"The upstream refused the gateway's credentials: check {place.credentials} of {place.at}.",
        code="upstream_auth",
        headers=USELESS,
        retry="elsewhere",
    )


def not_found(text: str, place: Place) -> GatewayError:
    return UpstreamError(
        f"The upstream does not know this address: check {place.at}.url.{text}",
        code="upstream_not_found",
        headers=USELESS,
        retry="elsewhere",
    )


def no_model(text: str, place: Place) -> GatewayError:
    return UpstreamError(
        f"The upstream does not know this model: check {place.at}.model.{text}",
        code="upstream_not_found",
        headers=USELESS,
        retry="elsewhere",
    )


def out_of_memory(text: str, place: Place) -> GatewayError:
    return UpstreamUnavailable(
        f"The model ran out of GPU memory. Try again, with a shorter prompt if it persists.{text}",
        code="out_of_memory",
        headers=RETRY_SOON,
        retry="elsewhere",
    )


def engine_dead(text: str, place: Place) -> GatewayError:
    return UpstreamUnavailable(
        f"The model's engine died; its container is being replaced. Try again.{text}",
        code="engine_dead",
        headers=RETRY_SOON,
        retry="elsewhere",
    )


def unavailable(text: str, place: Place) -> GatewayError:
    return UpstreamUnavailable(
        f"The upstream is not available. Try again.{text}", headers=RETRY_SOON, retry="elsewhere"
    )


def timed_out(text: str, place: Place) -> GatewayError:
    return UpstreamTimeout(f"The upstream gave up waiting for its model.{text}", retry="elsewhere")


def broken(text: str, place: Place) -> GatewayError:
    return UpstreamError(f"The upstream failed.{text}", retry="elsewhere")


def rejected(text: str, place: Place) -> GatewayError:
    return UpstreamError(
        f"The upstream does not take what the gateway sends: check {place.at}.url and {place.at}.kind.{text}",
        code="upstream_refused",
        headers=USELESS,
    )


def _quietly(make: Maker) -> Maker:
    """Without the server's words: FastChat's name files of its machine and repeat the input."""
    return lambda text, place: make("", place)


_BY_CODE: Mapping[str | int, Maker] = {
    # the prompt contract
    "bad_request": refused,
    "context_length_exceeded": too_long,
    "busy": busy,
    "out_of_memory": out_of_memory,
    "engine_dead": engine_dead,
    # OpenAI and servers that speak its API
    "string_above_max_length": too_long,
    "rate_limit_exceeded": busy,
    "invalid_api_key": unauthorized,
    "model_not_found": no_model,
    "exceed_context_size_error": too_long,  # llama.cpp
    "overloaded": busy,  # TGI
    # FastChat 0.2.36, constants.py ErrorCode; it sends every one with HTTP 400
    40001: _quietly(refused),  # VALIDATION_TYPE_ERROR
    40101: unauthorized,  # INVALID_AUTH_KEY
    40102: unauthorized,  # INCORRECT_AUTH_KEY
    40103: unauthorized,  # NO_PERMISSION
    40301: no_model,  # INVALID_MODEL
    40302: refused,  # PARAM_OUT_OF_RANGE
    40303: too_long,  # CONTEXT_OVERFLOW
    42901: busy,  # RATE_LIMIT
    42902: busy,  # QUOTA_EXCEEDED
    42903: busy,  # ENGINE_OVERLOADED
    50001: broken,  # INTERNAL_ERROR
    50002: out_of_memory,  # CUDA_OUT_OF_MEMORY
    50003: broken,  # GRADIO_REQUEST_ERROR
    50004: broken,  # GRADIO_STREAM_UNKNOWN_ERROR
    50005: unavailable,  # CONTROLLER_NO_WORKER
    50006: timed_out,  # CONTROLLER_WORKER_TIMEOUT
}

_BY_STATUS: Mapping[int, Maker] = {
    400: refused,
    401: unauthorized,
    403: unauthorized,
    404: not_found,
    405: rejected,
    413: refused,
    415: rejected,
    422: rejected,
    429: busy,
    503: unavailable,
    504: timed_out,
}

# vLLM, SGLang, TGI, llama.cpp: 400 or 422 and only words.
_TOO_LONG = re.compile(r"(?i)context (length|size|window)|longer than the model|prompt is too long")


def of_status(status: int, text: str, place: Place) -> GatewayError:
    """Our error for a status alone; ``text`` is what ``quoted`` made of the server's words."""
    if status in (400, 413, 422) and _TOO_LONG.search(text):
        return too_long(text, place)
    return _BY_STATUS.get(status, broken if status >= 500 else rejected)(text, place)
