"""Answers that are not the model's: Modal's edge, proxies and servers that refuse -> our errors.

Rule: a pure function of status, headers and body. A ``modal-http:`` body is the edge speaking, whatever the
status, and is read before JSON is. Messages name the config line to mend; of the body they hold at most
what ``quoted`` lets through. What Modal's edge says is in ``core/modal.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orjson import JSONDecodeError, loads

from gateway.core import modal
from gateway.core.decode.failure import (
    RETRY_SOON,
    USELESS,
    Place,
    failure,
    of_status,
    quoted,
    rejected,
    reported,
    unauthorized,
)
from gateway.core.errors import (
    GatewayError,
    NoContainer,
    Retry,
    Saturated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

PREFIX = modal.PREFIX.rstrip().encode()
MAX_RETRY_AFTER = 60  # seconds; openai-node sleeps through longer ones, openai-python gives up above 120

NAME = re.compile(r"[\w.-]{1,80}", re.ASCII)
_SELDOM_AN_APP = frozenset({modal.REPOLL_STATUS, modal.LIMITED, 502, modal.NOT_READY, 504})
"""Statuses that come from an edge or a proxy, unless there is an object of JSON with them."""


@dataclass(slots=True, frozen=True)
class _Text:
    """One text of the edge. ``{at}`` and ``{credentials}`` in ``message`` come from the ``Place``."""

    contains: str
    kind: type[UpstreamError]
    code: str
    message: str
    retry: Retry = "elsewhere"
    useless: bool = False  # tell clients not to retry
    reached: bool = False  # a container has run for the call


# The first that matches.
_TEXTS = (
    _Text(
        modal.ABOUT_CREDENTIALS,
        UpstreamError,
        "upstream_auth",
        "Modal refused the gateway's proxy token: check {credentials} of {at}.",
        useless=True,
    ),
    _Text(
        modal.IS_STOPPED,
        UpstreamUnavailable,
        "upstream_stopped",
        "The Modal app behind {at}.url is stopped: deploy it again, or change {at}.url.",
        useless=True,
    ),
    _Text(
        modal.IS_DISABLED,
        UpstreamUnavailable,
        "upstream_stopped",
        "The Modal workspace behind {at}.url is disabled: check its billing, or change {at}.url.",
        useless=True,
    ),
    _Text(
        modal.NO_FUNCTION,
        UpstreamError,
        "upstream_not_found",
        "Modal knows no function at {at}.url: check the address, and that the app is deployed.",
        retry="once",
    ),
    _Text(
        modal.RAN_OUT,
        UpstreamTimeout,
        "upstream_timeout",
        "The Modal function behind {at}.url ran into its timeout: raise timeout= there, or lower max_tokens.",
        retry="never",
        useless=True,
        reached=True,
    ),
    _Text(
        modal.NOT_BY_GET,
        UpstreamError,
        "upstream_error",
        "Modal refused a request for a result: something between the gateway and {at}.url changes requests.",
        retry="never",
        reached=True,
    ),
)


def failure_of(place: Place, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """Our error for an answer that is not a success. ``headers`` ignores case, or has lower-case names."""
    if (error := spoken(place, body)) is not None:
        return error
    if status in (401, 403):
        return unauthorized("", place)
    if status == modal.REPOLL_STATUS:
        message = "The upstream lost the request. Try again."
        return UpstreamUnavailable(message, headers=RETRY_SOON, retry="once")
    if status < 400:
        return redirected(place, status) if status >= 300 else _no_answer(place, status)
    return _waiting(_refusal(place, status, body), headers)


def spoken(place: Place, body: bytes) -> GatewayError | None:
    """The error that Modal's edge wrote into this body, or None if it wrote none that we know."""
    if not body.startswith(PREFIX):
        return None
    text = body[len(PREFIX) : 500].decode("utf-8", "replace")
    for known in _TEXTS:
        if known.contains in text:
            error = known.kind(
                known.message.format(at=place.at, credentials=place.credentials),
                code=known.code,
                headers=USELESS if known.useless else {},
                retry=known.retry,
            )
            error.reached = known.reached
            return error
    return None


def instead(place: Place, body: bytes) -> GatewayError | None:
    """The error that the edge sent in place of an answer, with a status of success."""
    if not body.startswith(PREFIX):
        return None
    return spoken(place, body) or UpstreamError("The Modal function did not answer.", retry="elsewhere")


def absent(place: Place, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError | None:
    """Why no container gave this answer to a GET that asks for nothing; None if one did.

    An app may say what it likes to that. ``body`` may be cut; arguments are those of ``failure_of``.
    """
    if body.startswith(modal.BAD_REDIRECT.encode()):  # the edge knows a call behind the address
        return None
    if status < 300:
        return instead(place, body)
    seldom = status in _SELDOM_AN_APP and not isinstance(_json(body), dict)
    if seldom or status in (401, 403) or body.startswith(PREFIX):
        return failure_of(place, status, headers, body)
    return None


class PlainText:
    """Cuts nothing: passes bare text on, unless Modal's edge is what speaks."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._head: bytes | None = b""  # what may yet become the edge's prefix

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._head is not None:
            head = self._head + chunk
            if chunk and len(head) < len(PREFIX) and PREFIX.startswith(head):
                self._head = head
                return []
            if (error := instead(self._place, head)) is not None:
                raise error
            self._head, chunk = None, head
        return [chunk] if chunk else []


def _refusal(place: Place, status: int, body: bytes) -> GatewayError:
    """For 4xx and 5xx: what the JSON says, else what the status says."""
    data = _json(body)
    if status in (400, 422) and place.added and place.added.encode() in body:
        return _refused(place, place.added, missing=False)
    if status == 422 and (field := _field(data)) is not None:
        return _refused(place, *field)
    if said := reported(data):
        return failure(said, place, status)
    if isinstance(data, dict) and isinstance(detail := data.get("detail"), str):  # FastAPI's HTTPException
        return of_status(status, quoted(detail, place), place)
    if status == modal.NOT_READY:
        return NoContainer(f"No container of {place.at} is ready.", headers=RETRY_SOON, retry="elsewhere")
    if status == modal.LIMITED:
        message = "The upstream takes no more calls just now. Try again in a few seconds."
        return Saturated(message, headers=RETRY_SOON, retry="elsewhere")
    return rejected("", place) if status == 400 else of_status(status, "", place)


def redirected(place: Place, status: int) -> GatewayError:
    """A redirect that is not followed: anything but a result on the same host."""
    return UpstreamError(
        f"The upstream answered {status}, a redirect elsewhere: set {place.at}.url to the final address.",
        code="upstream_redirect",
        headers=USELESS,
    )


def _no_answer(place: Place, status: int) -> GatewayError:
    return UpstreamError(
        f"The upstream answered {status}, which is no answer of a model: check {place.at}.url.",
        code="upstream_bad_response",
    )


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except JSONDecodeError:
        return None


def _waiting(error: GatewayError, headers: Mapping[str, str]) -> GatewayError:
    """With the upstream's Retry-After, in seconds and at most ``MAX_RETRY_AFTER``, where waiting helps."""
    asked = headers.get("retry-after", "").strip()
    if error.status in (modal.LIMITED, modal.NOT_READY) and re.fullmatch(r"[0-9]{1,9}", asked):
        error.headers["retry-after"] = str(min(int(asked), MAX_RETRY_AFTER))
    return error


def _field(data: Any) -> tuple[str, bool] | None:
    """The field that FastAPI's 422 is about and whether it is missing; never its value.

    ``{"detail": [{"type": "missing", "loc": ["body", "inputs"], "msg": ...}]}``
    """
    detail = data.get("detail") if isinstance(data, dict) else None
    first = detail[0] if isinstance(detail, list) and detail else None
    loc = first.get("loc") if isinstance(first, dict) else None
    if not isinstance(loc, list) or not isinstance(first, dict):
        return None
    names = [part for part in loc if isinstance(part, str)]
    field = ".".join(names[1:] if names[:1] == ["body"] else names)
    kind = first.get("type")  # "value_error.missing" before pydantic 2
    return (field, str(kind).endswith("missing")) if NAME.fullmatch(field) else None


def _refused(place: Place, field: str, missing: bool) -> GatewayError:
    if missing:
        what = f"requires a field `{field}`. If that is its name for `{place.text}`"
        line = f"{{{place.text}: {field}}}"
    else:
        what = f"refuses the field `{field}`. To leave it out"
        line = f"{{{field.split('.')[0]}: null}}"
    return UpstreamError(
        f"The upstream {what}, write {place.at}.request_fields: {line}",
        code="upstream_refused",
        headers=USELESS,
    )
