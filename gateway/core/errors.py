"""Everything that can go wrong with a request, as one small tree.

Rule: an error says who, what, and what to do; it carries its own status, type and code, is raised and never
returned, and is never recognised by its text. Messages hold no secret, prompt, path or traceback.
How an error looks on the wire, early (a status) or late (an event in a stream), is the encoder's business.

    GatewayError
        BadRequest 400           NotFound 404          Unauthorized 401      Forbidden 403
        ContextTooLong 400       ModelNotFound 404     MethodNotAllowed 405  TooLarge 413
        NotJson 415              Overloaded 429        Internal 500          HeadTooLarge 431
        RequestTimeout 408       ShuttingDown 503       LedgerUnavailable 503
        RateLimited 429 (of requests; TokensLimited)       InsufficientQuota 429
        UpstreamError 502        UpstreamUnavailable 503   UpstreamTimeout 504   UpstreamBusy 429
            InvalidJson 502 (the model's answer is not the JSON that was asked for)
            NoContainer 503 (nothing is ready behind an edge: worth waiting for)
                                                                              Saturated 429
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

import orjson

Retry: TypeAlias = Literal["never", "once", "elsewhere"]
"""What may be tried before the first visible event: nothing, the same upstream once more, or another one."""


def printable(text: str, most: int = 128) -> str:
    """A client's text, fit for a message: at most so many characters, one line, no end of a code span."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(char if char.isprintable() and char != "`" else "?" for char in cut)


class GatewayError(Exception):
    """The root. Every subclass fixes ``status`` and ``type``; ``code`` and ``param`` may be set per error."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None
    reached = True  # of a call: a container may have run for it, or is started

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry: Retry = "never",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.headers = dict(headers or {})
        self.retry: Retry = retry

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error envelope: ``{"error": {"message", "type", "param", "code"}}``."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def json(self) -> bytes:
        return orjson.dumps(self.body())


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class ContextTooLong(BadRequest):
    """The prompt does not fit. The wording is what LangChain, litellm and pydantic-ai recognise."""

    default_code = "context_length_exceeded"

    @classmethod
    def of(cls, *, limit: int, prompt: int, output: int = 0) -> ContextTooLong:
        asked = f"{prompt} tokens" if not output else f"{prompt} tokens and {output} more were asked for"
        return cls(
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in "
            f"{asked} (context_length_exceeded). Please shorten the messages or lower max_tokens.",
            param="messages",
        )


class Unauthorized(GatewayError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "invalid_request_error"
    default_code = "host_not_allowed"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class Conflict(GatewayError):
    """Something else has that name."""

    status = 409
    type = "invalid_request_error"
    default_code = "already_exists"


class RequestTimeout(GatewayError):
    """The client did not send its whole request in time."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class TooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class HeadTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class NotJson(GatewayError):
    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class Overloaded(GatewayError):
    """The gateway's own queue is full or took too long."""

    status = 429
    type = "rate_limit_error"
    default_code = "queue_full"


class KeysUnavailable(GatewayError):
    """Nobody can say just now whether a key is good."""

    status = 503
    default_code = "keys_unavailable"


class RateLimited(GatewayError):
    """A limit of requests was reached: of a key, a team or a model."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"


class TokensLimited(RateLimited):
    """A limit of tokens was reached."""

    type = "tokens"


class InsufficientQuota(GatewayError):
    """A budget is used up."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class Internal(GatewayError):
    default_code = "internal_error"


class ShuttingDown(GatewayError):
    """The gateway ended before its answer began; another one, or the next, will take the request."""

    status = 503
    default_code = "shutting_down"


class LedgerUnavailable(GatewayError):
    """The ledger cannot be written, and what is not in the books is not served; or it cannot be asked."""

    status = 503
    default_code = "ledger_unavailable"


class UpstreamError(GatewayError):
    status = 502
    default_code = "upstream_error"


class InvalidJson(UpstreamError):
    """The model was asked for JSON and its answer is none, or not what the schema says."""

    default_code = "invalid_json_answer"


class UpstreamBadRequest(GatewayError):
    """The upstream refused what the client asked for; the client can mend it."""

    status = 400
    type = "invalid_request_error"
    default_code = "upstream_bad_request"


class UpstreamUnavailable(UpstreamError):
    status = 503
    default_code = "upstream_unavailable"


class NoContainer(UpstreamUnavailable):
    """An edge answered that no container is ready; the first such answer has started one."""

    default_code = "upstream_cold"


class UpstreamTimeout(UpstreamError):
    status = 504
    default_code = "upstream_timeout"


class UpstreamBusy(UpstreamError):
    status = 429
    type = "rate_limit_error"
    default_code = "upstream_rate_limited"


class Saturated(UpstreamBusy):
    """An edge answered that every container is full, or that it passes on no more calls just now."""

    reached = False
