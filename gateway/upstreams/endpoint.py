"""The configuration that every upstream reached over HTTP has: address, credentials, limits, request fields.

Rule: values only, checked when the file is read, so that nothing behind it meets a URL or header it cannot
use.
Times are in seconds. Knows nothing about what is spoken there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from gateway.core.decode.failure import Place
from gateway.core.modal import HOSTS, SERVERS
from gateway.upstreams.limits import Limits, Seconds

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "modal-key", "modal-secret", "modal-session-id", "te", "traceparent", "tracestate",
    "trailer", "transfer-encoding", "upgrade", "x-request-id",
})  # fmt: skip
_FIELD = re.compile(r"[^.\s]+(\.[^.\s]+)*")


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"not a URL: {exc}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be a URL that begins with http:// or https:// and names a host")
    if not value.isprintable() or " " in value:
        raise ValueError("must be a URL without spaces")
    try:
        parts.hostname.encode("idna")
    except ValueError:  # UnicodeError is one
        raise ValueError("names a host that is no host name") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user or password; use modal_key and modal_secret, api_key or headers")
    return _ascii(value.partition("#")[0])


def _ascii(url: str) -> str:
    """The URL as a request line and a Host header can carry it (RFC 3986, RFC 5890)."""
    if url.isascii():
        return url
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode()
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    kept = "/%:=&?~+!$,;'@()*[]"
    return urlunsplit((parts.scheme, netloc, quote(parts.path, kept), quote(parts.query, kept), ""))


def _secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _HEADER_VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("holds characters that no header can carry")
    return value


def _headers(value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, secret in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a header name")
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by the gateway")
        if not _HEADER_VALUE.fullmatch(secret.get_secret_value()):
            raise ValueError(f"the value of {name} holds characters that no header can carry")
    return value


def _request_fields(value: Mapping[str, str | None]) -> Mapping[str, str | None]:
    taken: list[str] = []
    for name, target in value.items():
        if target is None:
            continue
        if not _FIELD.fullmatch(target):
            raise ValueError(f"{name}: {target[:40]!r} is not a field name; parts are joined by single dots")
        for other in taken:
            if f"{other}.".startswith(f"{target}.") or f"{target}.".startswith(f"{other}."):
                raise ValueError(f"{name}: {target} and {other} cannot both be sent")
        taken.append(target)
    return value


Url = Annotated[str, AfterValidator(_url)]
RequestFields = Annotated[Mapping[str, str | None], AfterValidator(_request_fields)]
Secret = Annotated[SecretStr | None, BeforeValidator(_empty_is_none), AfterValidator(_secret)]


class Endpoint(Limits):
    """Keys of every HTTP kind."""

    url: Url = Field(description="address the requests go to")
    modal_key: Secret = Field(None, description="Modal proxy token, wk-...: sent as Modal-Key")
    modal_secret: Secret = Field(None, description="its secret, ws-...: sent as Modal-Secret")
    api_key: Secret = Field(None, description="sent as `Authorization: Bearer ...`")
    headers: Annotated[Mapping[str, SecretStr], AfterValidator(_headers)] = Field(
        default_factory=dict, description="further request headers"
    )
    model: str | None = Field(None, min_length=1, description="the model's name there, sent as `model`")
    whole: Literal["auto", "stream", "plain"] = Field(
        "auto",
        description="how a whole answer is asked for: as a stream, plainly, or by what must be watched",
    )
    forward: tuple[str, ...] | Literal["all"] = Field(
        (), description="unknown fields of the client that are passed on, or `all`"
    )
    request_fields: RequestFields = Field(
        default_factory=dict,
        description="fields sent under another name ({max_tokens: parameters.max_new_tokens}) or not (null)",
    )
    connect_timeout: Seconds = Field(5, description="seconds until connected")
    first_event_timeout: Seconds = Field(600, description="seconds until the first event, cold start too")
    idle_timeout: Seconds = Field(120, description="seconds between two events")

    @model_validator(mode="after")
    def _token_is_whole(self) -> Endpoint:
        if (self.modal_key is None) != (self.modal_secret is None):
            missing = "modal_secret" if self.modal_secret is None else "modal_key"
            raise ValueError(f"{missing} is missing: a Modal proxy token is a key and a secret")
        return self

    @property
    def sleeps(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return super().sleeps or host.endswith(HOSTS)

    @property
    def refuses(self) -> bool:
        return (urlsplit(self.url).hostname or "").endswith(SERVERS)

    @property
    def forwarded(self) -> frozenset[str] | Literal["all"]:
        return "all" if self.forward == "all" else frozenset(self.forward)


def place(config: Endpoint, at: str, *, text: str = "prompt", added: str | None = None) -> Place:
    """How messages name this endpoint, whose entry in the config is at ``at``."""
    named = {"modal_key and modal_secret": config.modal_key, "api_key": config.api_key}
    given = [name for name, secret in named.items() if secret is not None]
    secrets = [config.modal_key, config.modal_secret, config.api_key, *config.headers.values()]
    return Place(
        at=at,
        credentials=" and ".join(given) or "modal_key and modal_secret, or api_key,",
        secrets=tuple(s.get_secret_value() for s in secrets if s is not None and len(s) >= 4),
        text=text,
        added=added,
    )
