"""A token parsed, before anybody believes it (RFC 7515, RFC 7519).

Rule: what two readers could read differently is no token: names that occur twice, numbers that are none,
base64 with loose ends. Only the algorithm and the name of the key are taken from its header: a key or an
address that stands there is never looked at. Knows neither keys nor providers.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_KEY_ID = 256  # characters
FORM = re.compile(rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""What a token looks like; nothing else is taken for one."""
OTHERS = ("logout+jwt", "secevent+jwt", "dpop+jwt")
"""Types of what a provider or a client signs for other ends (RFC 8417, RFC 9449, Back-Channel Logout 2.4)."""


class Refused(Exception):
    """A token that opens nothing. ``why`` is for the log: fixed words, nothing of the token."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True, frozen=True)
class Token:
    """What a token says of itself; true only once its signature was checked."""

    algorithm: str
    key: str | None
    claims: Mapping[str, Any]

    def __repr__(self) -> str:
        return "Token()"  # of whom it tells is nobody's business


def parse(secret: bytes) -> Token:
    """What this token says. Raises ``Refused``."""
    if not FORM.fullmatch(secret):
        raise Refused("it is no token")
    first, second, third = secret.split(b".")
    header, claims = _object(_bytes(first)), _object(_bytes(second))
    _bytes(third)
    algorithm, key, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise Refused("it does not say how it is signed")
    if key is not None and (not isinstance(key, str) or len(key) > MAX_KEY_ID):
        raise Refused("it names no key that could be")
    if "crit" in header or "b64" in header:  # extensions that must be understood (RFC 7515 4.1.11)
        raise Refused("it asks for an extension")
    if isinstance(kind, str) and kind.lower().removeprefix("application/") in OTHERS:
        raise Refused("it is signed for another end")
    return Token(algorithm, key, claims)


def _bytes(part: bytes) -> bytes:
    """Raises ``Refused`` for a text that is not the only one for these bytes (RFC 4648 3.5)."""
    try:
        data = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise Refused("it is no base64") from None
    if urlsafe_b64encode(data).rstrip(b"=") != part:
        raise Refused("it is no base64")
    return data


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_nothing)
    except (ValueError, RecursionError):
        raise Refused("it is no JSON that can be read in one way") from None
    if not isinstance(found, dict):
        raise Refused("it is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _nothing(_: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are no JSON
