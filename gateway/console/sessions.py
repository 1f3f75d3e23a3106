"""Who is logged in to the console: a signed cookie, and addresses that log in once.

Rule: a session is its own proof, so that every process with the same secret takes it; what was logged out is
remembered in this one. What another site could have sent is refused, whatever cookie came along. Knows
nothing about keys.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from secrets import token_bytes, token_hex, token_urlsafe
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.core.errors import Forbidden

COOKIE = "gateway_session"
LASTS = 12 * 3600  # seconds of a session
TICKET_LASTS = 600.0  # seconds of an address that logs in once
ENDED = 4096  # sessions that were logged out and are remembered
TICKETS = 100  # that are open at the same time

_TOKEN = re.compile(rb"([0-9]{10,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class Session(NamedTuple):
    """``expires``: seconds since 1970."""

    token: str
    expires: int


class Sessions:
    """``secret`` signs; ``time`` gives seconds since 1970."""

    def __init__(self, secret: bytes, time: Callable[[], float]) -> None:
        self._secret = secret
        self._time = time
        self._ended: OrderedDict[bytes, int] = OrderedDict()  # when these expire, by their ids
        self._floor = 0  # what expires at this moment, or earlier, was perhaps logged out

    def begin(self) -> Session:
        """Somebody is logged in from now on."""
        expires = int(self._time()) + LASTS
        said = f"{expires}.{token_hex(16)}"
        return Session(f"{said}.{self._signature(said.encode())}", expires)

    def expires(self, head: Mapping[bytes, bytes]) -> int | None:
        """When the session that these headers bring will end; None if they bring none."""
        return max((expires for _, expires in self._brought(head)), default=None)

    def end(self, head: Mapping[bytes, bytes]) -> None:
        """Log out: what these headers bring opens nothing any more."""
        for id, expires in self._brought(head):
            self._ended[id] = expires
        while len(self._ended) > ENDED:
            self._floor = max(self._floor, self._ended.popitem(last=False)[1])

    def admits(self, head: Mapping[bytes, bytes], *, changes: bool) -> bool:
        """Whether these headers bring a session.

        Raises ``Forbidden`` where one came along with what another site may have sent; ``changes``: it is no
        request that only looks.
        """
        if self.expires(head) is None:
            return False
        if changes and not (same_origin(head) and _plain(head)):
            raise cross_site()
        return True

    def _brought(self, head: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, int]]:
        """Ids of the sessions, and when they expire."""
        for pair in head.get(b"cookie", b"").split(b";"):
            name, _, token = pair.strip().partition(b"=")
            parts = _TOKEN.fullmatch(token) if name == COOKIE.encode() else None
            if parts is None:
                continue
            said, signature = token.rpartition(b".")[::2]
            if not hmac.compare_digest(self._signature(said).encode(), signature):
                continue
            id, expires = parts[2], int(parts[1])
            if expires > max(self._time(), self._floor) and id not in self._ended:
                yield id, expires

    def _signature(self, said: bytes) -> str:
        return hmac.new(self._secret, said, sha256).hexdigest()


def secret_of(admin_key: str, seed: bytes | None = None) -> bytes:
    """What signs sessions: the same wherever the admin key is; without one ``seed``, or chance."""
    if admin_key:
        return hmac.new(admin_key.encode(), b"modal-gateway: sessions of the console", sha256).digest()
    return seed or token_bytes(32)


def cookie(session: Session | None, *, secure: bool) -> str:
    """The header that sets the cookie; None takes it away."""
    value, age = (session.token, LASTS) if session is not None else ("", 0)
    flags = "; Secure" if secure else ""
    return f"{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age}{flags}"


class Tickets:
    """Secrets that log in once, within ``TICKET_LASTS``; in memory alone."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._open: OrderedDict[bytes, float] = OrderedDict()  # until when, by their SHA-256

    def new(self) -> str:
        ticket = token_urlsafe(24)
        self._open[sha256(ticket.encode()).digest()] = self._time() + TICKET_LASTS
        while len(self._open) > TICKETS:
            self._open.popitem(last=False)
        return ticket

    def redeem(self, ticket: str) -> bool:
        """Whether it is good; never again afterwards."""
        until = self._open.pop(sha256(ticket.encode("utf-8", "replace")).digest(), None)
        return until is not None and self._time() < until


# --- other sites ---


def same_origin(head: Mapping[bytes, bytes]) -> bool:
    """Whether a page of this gateway sent it, as far as browsers tell."""
    site = head.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    return own_origin(head)


def own_origin(head: Mapping[bytes, bytes]) -> bool:
    """Whether the page that sent it has our host."""
    try:
        origin = urlsplit(head.get(b"origin", b"").decode("ascii"))
    except ValueError:
        return False
    if origin.scheme not in ("http", "https") or not origin.netloc:
        return False
    return origin.netloc.lower().encode() == head.get(b"host", b"").lower()


def foreign(head: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another site may have sent it; programs, and who types an address, are no page."""
    site = head.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    return b"origin" in head and not own_origin(head)


def cross_site() -> Forbidden:
    """For what another site may have sent."""
    return Forbidden(
        "With a session of the console, changes are taken from its own pages alone, as application/json. "
        "Programs send a key.",
        code="cross_site",
    )


def _plain(head: Mapping[bytes, bytes]) -> bool:
    """Whether it has no body, or one of JSON, which no form can send."""
    if head.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in head:
        return True
    return head.get(b"content-type", b"").lower().startswith(b"application/json")
