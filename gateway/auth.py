"""Who is calling: the door that every route names.

Rule: a plain function called first by whatever serves a route, never a middleware and never a decision from
a path. Deny by default. A secret is never kept, compared or looked for: only its SHA-256. Knows nothing about
limits, nor where keys come from.
"""

from __future__ import annotations

import hashlib
import re
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from gateway.allowances import NO_LIMITS, Budget, Limits
from gateway.core.errors import Forbidden, GatewayError, NotJson, Unauthorized
from gateway.settings import ApiKey, Auth

MAX_KEY = 512  # bytes; longer ones are refused unread
MAX_TOKEN = 8192  # bytes, where tokens are taken: as long as they get with many groups
STORED = re.compile(rb"sk-[A-Za-z0-9_-]{43}")
"""What a key of the store looks like; nothing else is looked for there."""
KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")
MISSING = "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY` (OPENAI_API_KEY)."
REFUSED = "Incorrect API key provided: it is unknown, has expired or was revoked."
_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class Caller:
    """The holder of a key. ``models`` are names or ``*`` patterns, ``expires`` seconds since 1970.

    ``credential`` tells what let them in: the SHA-256 of the key, or of a token the fingerprint of its
    provider's entry. Empty where nothing was asked for.
    """

    name: str
    models: tuple[str, ...] = ("*",)
    id: str = "-"  # never used for another key
    team: str | None = None
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    priority: int = 0
    expires: float | None = None
    credential: bytes = field(default=b"", repr=False)

    def may_call(self, model: str) -> bool:
        return any(pattern == model or _pattern(pattern).fullmatch(model) for pattern in self.models)


@lru_cache(4096)
def _pattern(text: str) -> re.Pattern[str]:
    """``*`` stands for any text; nothing else is special."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


ANYONE = Caller("-")
CONSOLE = Caller("console", id="console")
"""Whoever is logged in to the console."""


class Known(Protocol):
    """Whoever knows the keys, by their SHA-256."""

    @property
    def stored(self) -> bool:
        """Whether there are keys that may not be known yet."""
        ...

    def find(self, digest: bytes) -> Caller | None: ...

    async def look(self) -> None:
        """Know all that can be known now. Raises ``GatewayError`` if that cannot be said."""
        ...


class TokenVerifier(Protocol):
    """Whoever knows the tokens of identity providers, by their SHA-256."""

    @property
    def expected(self) -> bool:
        """Whether there is a provider."""
        ...

    def find(self, digest: bytes) -> Caller | None:
        """Who has this token, if it is known by now."""
        ...

    async def verify(self, secret: bytes, digest: bytes) -> Caller | None:
        """Who has it. Raises ``GatewayError`` if that cannot be said."""
        ...


class Visits(Protocol):
    """Whoever knows who is logged in to the console."""

    def admits(self, head: Mapping[bytes, bytes], *, changes: bool) -> bool:
        """Whether these headers bring a session. Raises ``Forbidden`` if another site may have sent them."""
        ...


@dataclass(slots=True, frozen=True)
class Verifiers:
    """Whom the door asks about keys, tokens and sessions; no ``known``: the configuration's keys count."""

    known: Known | None = None
    tokens: TokenVerifier | None = None
    visits: Visits | None = None


class Configured:
    """The keys of the configuration and no others."""

    stored = False

    def __init__(self, auth: Auth) -> None:
        self._callers = configured(auth)

    def find(self, digest: bytes) -> Caller | None:
        return self._callers.get(digest)

    async def look(self) -> None:
        """There is nothing else to know."""


def configured(auth: Auth) -> dict[bytes, Caller]:
    """The holders of the configuration's keys, by the SHA-256 of these."""
    usable = [key for key in auth.keys if not key.disabled]
    return {digest: _holder(key, digest) for key in usable if (digest := key.digest) is not None}


def _holder(key: ApiKey, digest: bytes) -> Caller:
    return Caller(
        key.name,
        key.models,
        id=f"config:{key.name}",
        team=key.team,
        limits=key.limits,
        budgets=key.budgets,
        priority=key.priority,
        expires=key.expires.timestamp() if key.expires else None,
        credential=digest,
    )


class Keys:
    """The door. Without any keys, ``any_host`` serves whoever comes, whatever they call us.

    ``time`` gives seconds since 1970. What is no key may be a token; without either a session counts.
    """

    def __init__(
        self,
        auth: Auth,
        verifiers: Verifiers | None = None,
        *,
        any_host: bool = False,
        time: Callable[[], float] = time.time,
    ) -> None:
        asked = verifiers or Verifiers()
        self.open = auth.mode == "none"
        self._any_host = any_host
        self._known = asked.known or Configured(auth)
        self._tokens = asked.tokens
        self._visits = asked.visits
        self._time = time

    async def admit(self, head: Mapping[bytes, bytes], *, changes: bool = False) -> Caller:
        """The caller behind these headers; the key may be the password of HTTP Basic (RFC 7617).

        ``changes``: the request is neither GET nor HEAD. Raises ``Unauthorized``, in the same words whatever
        is wrong with a key, ``KeysUnavailable`` where nobody can say, or ``Forbidden`` where a session of the
        console came along with what another site may have sent. Without auth, guards the loopback door.
        """
        if self.open:
            if not self._any_host:
                _same_machine(head)
            keyless = b"cookie" in head and not any(name in head for name in KEY_HEADERS)
            return CONSOLE if keyless and self._visited(head, changes) else ANYONE
        tokens = self._tokens if self._tokens is not None and self._tokens.expected else None
        secret = _secret(head, MAX_TOKEN if tokens is not None else MAX_KEY)
        if not secret:
            if self._visited(head, changes):
                return CONSOLE
            raise _unauthorized(MISSING)
        digest = hashlib.sha256(secret).digest()  # looking it up takes a time that tells nothing of the key
        found = self._known.find(digest)
        if found is None and self._known.stored and STORED.fullmatch(secret):
            await self._known.look()
            found = self._known.find(digest)
        elif found is None and tokens is not None:
            found = tokens.find(digest) or await tokens.verify(secret, digest)
        if found is None or (found.expires is not None and found.expires <= self._time()):
            raise _unauthorized(REFUSED)
        return found

    def _visited(self, head: Mapping[bytes, bytes], changes: bool) -> bool:
        return self._visits is not None and self._visits.admits(head, changes=changes)

    async def admit_body(self, head: Mapping[bytes, bytes]) -> Caller:
        """As ``admit``, for requests with a body of JSON.

        Raises ``NotJson`` too: without auth a form of another site's page could send one without asking.
        """
        caller = await self.admit(head, changes=True)
        if self.open:
            require_json(head)
        return caller


def _secret(head: Mapping[bytes, bytes], most: int) -> bytes:
    """The key that was sent, empty if none was. Raises ``Unauthorized`` if it is longer than ``most``."""
    scheme, _, given = head.get(b"authorization", b"").partition(b" ")
    secret = given.strip() if scheme.lower() == b"bearer" else b""
    if scheme.lower() == b"basic":
        secret = _password(given.strip())
    secret = secret or head.get(b"x-api-key", b"") or head.get(b"api-key", b"")
    if len(secret) > most:
        raise _unauthorized(REFUSED)
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
