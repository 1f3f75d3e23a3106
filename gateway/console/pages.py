"""Logging in to the console and out of it.

Rule: whoever shows the admin key, or an address that logs in once, is given a session; where the admin API is
open to this machine, so is whoever asks from here, also with an address that was used. No secret is told
again. Knows nothing about what a session opens, nor how keys are judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway import __version__
from gateway.auth import require_json
from gateway.console.sessions import Sessions, Tickets, cookie, cross_site, foreign
from gateway.core.errors import BadRequest, Unauthorized
from gateway.http.exchange import read_body, read_head

MAX_BODY = 4096  # bytes
PATH = "/console/session"


class Guard(Protocol):
    """Whoever knows who may log in."""

    @property
    def open(self) -> bool:
        """Whether this machine needs no key."""
        ...

    async def admit_key(self, key: str, head: Mapping[bytes, bytes]) -> None:
        """Raises ``GatewayError`` unless it is the admin key; empty: unless none is needed."""
        ...


@dataclass(slots=True, frozen=True)
class Features:
    """What there is here, for the page to know what it can show."""

    auth: Literal["keys", "none"]  # whether models want a key
    keys: bool  # can be made
    ledger: bool
    workers: int  # processes like this one, each with states of its own


class SessionPages:
    """The routes' handlers."""

    def __init__(self, guard: Guard, sessions: Sessions, tickets: Tickets, features: Features) -> None:
        self._guard = guard
        self._sessions = sessions
        self._tickets = tickets
        self._features = features

    def add_to(self, app: FastAPI) -> None:
        handlers: Mapping[Callable[[Request], Awaitable[Response]], list[str]]
        handlers = {self.look: ["GET", "HEAD"], self.begin: ["POST"], self.end: ["DELETE"]}
        for handler, methods in handlers.items():
            app.add_api_route(PATH, handler, methods=methods, include_in_schema=False)

    async def look(self, request: Request) -> Response:
        """Whether somebody is logged in, and until when."""
        expires = self._sessions.expires(read_head(request.scope))
        if expires is None:
            return _json({"object": "console.session", "expires": None, "open": self._guard.open})
        return _json(self._told(expires))

    async def begin(self, request: Request) -> Response:
        """Log in: with ``{"key"}``, with ``{"ticket"}``, or with neither where no key is needed."""
        head = read_head(request.scope)
        if foreign(head):
            raise cross_site()
        require_json(head)
        await self._admit(_given(await read_body(request.receive, head, MAX_BODY, None)), head)
        session = self._sessions.begin()
        return _json(self._told(session.expires), cookie(session, secure=_secure(request, head)))

    async def end(self, request: Request) -> Response:
        """Log out."""
        head = read_head(request.scope)
        if self._sessions.admits(head, changes=True):
            self._sessions.end(head)
        gone = cookie(None, secure=_secure(request, head))
        return Response(status_code=204, headers={"set-cookie": gone, "cache-control": "no-store"})

    async def _admit(self, given: Mapping[str, str], head: Mapping[bytes, bytes]) -> None:
        if "ticket" in given:
            if self._tickets.redeem(given["ticket"]):
                return
            if not self._guard.open:
                raise Unauthorized("This address was used, or is too old. Log in with the admin key.")
        try:
            await self._guard.admit_key(given.get("key", ""), head)
        except Unauthorized as error:
            if "key" not in given:
                raise
            raise Unauthorized("This key is wrong: it is not the admin key.", headers=error.headers) from None

    def _told(self, expires: int) -> dict[str, Any]:
        return {
            "object": "console.session",
            "expires": expires,
            "open": self._guard.open,
            "auth": self._features.auth,
            "keeps": {"keys": self._features.keys, "ledger": self._features.ledger},
            "workers": self._features.workers,
            "version": __version__,
        }


def _given(body: bytes) -> dict[str, str]:
    """``key`` or ``ticket``, or nothing. Raises ``BadRequest``."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The request body is not valid JSON.", code="invalid_json") from None
    if not isinstance(fields, dict) or len(fields) > 1 or not fields.keys() <= {"key", "ticket"}:
        raise BadRequest("Send {key} or {ticket}, or {} where no key is needed.", code="invalid_value")
    for name, value in fields.items():
        if not isinstance(value, str) or not value:
            raise BadRequest(f"{name}: must be text.", param=name, code="invalid_value")
    return fields


def _secure(request: Request, head: Mapping[bytes, bytes]) -> bool:
    """Whether the browser came over TLS, also where what stands in front ends it."""
    return request.url.scheme == "https" or head.get(b"origin", b"").startswith(b"https://")


def _json(value: Any, set_cookie: str | None = None) -> Response:
    headers = {"cache-control": "no-store"} | ({"set-cookie": set_cookie} if set_cookie else {})
    return Response(orjson.dumps(value), headers=headers, media_type="application/json")
