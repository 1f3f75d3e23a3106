"""What Modal's SDK raises -> our errors.

Rule: the class decides, by its name, so that the SDK need not be imported; never the text. An exception of
no class of Modal's is what the function itself raised, which came back as it was: its class is named, its
message, which may hold anything, is not. Names and meanings are those of modal 1.6.4, exception.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gateway.core.decode import fields
from gateway.core.decode.failure import RETRY_SOON, USELESS
from gateway.core.errors import (
    GatewayError,
    Retry,
    Saturated,
    UpstreamBadRequest,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

MODULE = "modal.exception"
_NAME = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(slots=True, frozen=True)
class Where:
    """How messages name a deployed function: its entry in the config, its name at Modal, the keys of that."""

    at: str
    name: str
    keys: str


class NotSpawnable(UpstreamError):
    """Modal's SDK refuses the way the function is called; nothing ran. It may be a generator."""

    default_code = "upstream_refused"
    reached = False


def failed(error: BaseException, where: Where, *, ran: bool) -> GatewayError:
    """Our error for what the SDK raised; ``ran``: once the call was made, else before."""
    made = _failed(error, where, ran)
    made.reached = ran
    return made


def _failed(error: BaseException, where: Where, ran: bool) -> GatewayError:
    for kind in type(error).__mro__:
        if kind.__module__ == MODULE and (make := MADE.get(kind.__name__)):
            return make(where, ran)
    if not ran:
        return unreachable(where, ran)
    name = type(error).__name__
    hint = f" Does it take what {where.at}.pass gives it?" if isinstance(error, TypeError) else ""
    return UpstreamError(
        f"{where.name} raised {name if _NAME.fullmatch(name) else 'an error'}; its log says more.{hint}",
        retry="elsewhere",
    )


# --- one maker for each thing that can be wrong ---

Maker: TypeAlias = Callable[[Where, bool], GatewayError]


def unauthorized(where: Where, ran: bool) -> GatewayError:
    return UpstreamError(
        f"Modal refused the gateway's token ({where.at}): run `modal token new`, or set MODAL_TOKEN_ID and "
        "MODAL_TOKEN_SECRET.",
        code="upstream_auth",
        headers=USELESS,
        retry="elsewhere",
    )


def not_found(where: Where, ran: bool) -> GatewayError:
    return UpstreamError(
        f"Modal knows no {where.name}: deploy it, or check {where.keys} of {where.at}.",
        code="upstream_not_found",
        headers=USELESS,
        retry="elsewhere",
    )


def refused(where: Where, ran: bool) -> GatewayError:
    if ran:  # the function itself raised it
        return broken(where, ran)
    return NotSpawnable(
        f"Modal's SDK refuses this way of calling {where.name}: check stream, parameters and options of "
        f"{where.at}. A function with a web address is called by kind: prompt.",
        headers=USELESS,
        retry="elsewhere",
    )


def too_large(where: Where, ran: bool) -> GatewayError:
    return UpstreamBadRequest("The request is larger than Modal takes.")


def busy(where: Where, ran: bool) -> GatewayError:
    kind = UpstreamBusy if ran else Saturated  # the latter may be sent again
    message = "Modal takes no more calls just now: a quota, or a limit of the workspace. Try again later."
    return kind(message, headers=RETRY_SOON, retry="elsewhere")


def timed_out(where: Where, ran: bool) -> GatewayError:
    return UpstreamTimeout(
        f"{where.name} ran into its timeout: raise timeout= there, or lower max_tokens.", headers=USELESS
    )


def expired(where: Where, ran: bool) -> GatewayError:
    return UpstreamTimeout(f"Modal did not keep the result of {where.name}, or did not answer in time.")


def unreachable(where: Where, ran: bool) -> GatewayError:
    retry: Retry = "elsewhere" if ran else "once"
    return UpstreamUnavailable("Modal cannot be reached. Try again.", headers=RETRY_SOON, retry=retry)


def changing(where: Where, ran: bool) -> GatewayError:
    message = f"Modal refused the call in the present state of {where.name}. Try again."
    return UpstreamUnavailable(message, headers=RETRY_SOON, retry="elsewhere")


def cancelled(where: Where, ran: bool) -> GatewayError:
    return fields.cut("its call was cancelled at Modal")


def outdated(where: Where, ran: bool) -> GatewayError:
    message = "Modal no longer takes this version of its SDK: pip install -U modal."
    return UpstreamError(message, headers=USELESS, retry="elsewhere")


def unreadable(where: Where, ran: bool) -> GatewayError:
    return UpstreamError(
        f"What {where.name} returned or raised cannot be read here: it has to be text, or plain data.",
        code="upstream_bad_response",
        retry="elsewhere",
    )


def broken(where: Where, ran: bool) -> GatewayError:
    return UpstreamError(f"{where.name} failed at Modal; its log says more.", retry="elsewhere")


MADE: Mapping[str, Maker] = {
    "AuthError": unauthorized,
    "PermissionDeniedError": unauthorized,
    "NotFoundError": not_found,
    "InvalidError": refused,
    "ConflictError": changing,  # an InvalidError, but one of the moment
    "RequestSizeError": too_large,
    "ResourceExhaustedError": busy,
    "FunctionTimeoutError": timed_out,
    "TimeoutError": expired,
    "OutputExpiredError": expired,
    "ConnectionError": unreachable,
    "ServiceError": unreachable,
    "ClientClosed": unreachable,
    "VersionError": outdated,
    "InputCancellation": cancelled,
    "SerializationError": unreadable,
    "DeserializationError": unreadable,
    "ExecutionError": unreadable,  # above all: the answer's classes are not known here
    "InternalFailure": broken,
    "InternalError": broken,
    "RemoteError": broken,
    "Error": broken,  # the root of all but InputCancellation
}
"""By the name of the class, or of its nearest ancestor that is here."""
