"""Who is calling: API keys, checked in constant time.

Rule: a plain function called first by whatever serves a route, never a middleware and never a decision from
a path. Deny by default. The secret itself is not kept: only its SHA-256. Knows nothing about limits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from gateway.core.errors import Forbidden, GatewayError, NotJson, Unauthorized
from gateway.settings import Auth

MAX_KEY = 512  # bytes; longer ones are refused unread
_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class Caller:
    """The holder of a key. ``models`` are names or ``*`` patterns."""

    name: str
    models: tuple[str, ...] = ("*",)

    def may_call(self, model: str) -> bool:
        return any(pattern == model or _pattern(pattern).fullmatch(model) for pattern in self.models)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """``*`` stands for any text; nothing else is special."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


ANYONE = Caller("-")


class Keys:
    """The configured keys. Without any, ``any_host`` serves whoever comes, whatever they call us."""

    def __init__(self, auth: Auth, *, any_host: bool = False) -> None:
        self.open = auth.mode == "none"
        self._any_host = any_host
        self._callers: Sequence[tuple[bytes, Caller]] = [
            (digest, Caller(key.name, key.models)) for key in auth.keys if (digest := key.digest) is not None
        ]

    def identify(self, head: Mapping[bytes, bytes], *, basic: bool = False) -> Caller:
        """The caller behind these headers; with ``basic`` the key may be a password (RFC 7617).

        Raises ``Unauthorized``; without auth, guards the loopback door.
        """
        if self.open:
            if not self._any_host:
                _same_machine(head)
            return ANYONE
        secret = _secret(head, basic=basic)
        digest = hashlib.sha256(secret).digest()
        found: Caller | None = None
        for known, caller in self._callers:  # all of them, so that time tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None or not secret:
            raise _unauthorized("Incorrect API key provided.")
        return found


def _secret(head: Mapping[bytes, bytes], *, basic: bool) -> bytes:
    scheme, _, given = head.get(b"authorization", b"").partition(b" ")
    secret = given.strip() if scheme.lower() == b"bearer" else b""
    if basic and scheme.lower() == b"basic":
        secret = _password(given.strip())
    secret = secret or head.get(b"x-api-key", b"") or head.get(b"api-key", b"")
    if not secret:
        raise _unauthorized(
            "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY` (OPENAI_API_KEY)."
        )
    if len(secret) > MAX_KEY:
        raise _unauthorized("Incorrect API key provided.")
    return secret


def _password(given: bytes) -> bytes:
    """What stands after the name; nothing if this is not ``name:password`` in base64."""
    try:
        return b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _unauthorized(message: str) -> GatewayError:
    return Unauthorized(message, headers={"www-authenticate": "Bearer"})


def _same_machine(head: Mapping[bytes, bytes]) -> None:
    """Without keys a web page must not reach us through a name it controls (DNS rebinding)."""
    if not _LOOPBACK.fullmatch(head.get(b"host", b"")):
        raise Forbidden(
            "This gateway runs without keys, for this machine only: call it as localhost or 127.0.0.1.",
        )


def require_json(head: Mapping[bytes, bytes]) -> None:
    """Refuse bodies that a browser form could send across sites without asking first."""
    if not head.get(b"content-type", b"").lower().startswith(b"application/json"):
        raise NotJson("Send the request with `content-type: application/json`.")
