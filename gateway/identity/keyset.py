"""The public keys of a provider (RFC 7517), and whether one of them signed a token. PyJWT does the counting.

Rule: a key serves only the algorithms of its kind, and only to check signatures; what cannot serve is left
out. A name of a key is looked up and nothing else. Knows no claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.identity.config import Algorithm
from gateway.identity.token import Refused

MAX_KEYS = 100  # of use, of one provider; the rest is left out
RSA_BITS = range(2048, 8193)  # shorter can be broken, longer takes milliseconds for each token
MAX_EXPONENT = 2**32  # larger takes milliseconds too; that of nearly all keys is 65537
KINDS: Mapping[Algorithm, str] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}
"""The kind of key that each algorithm takes: its curve, where it has one."""

_SIGNED = jwt.PyJWS(algorithms=list(KINDS))


@dataclass(slots=True, frozen=True)
class PublicKey:
    """``algorithm`` is the only one it serves, if there is one."""

    kind: str
    algorithm: str | None
    key: Any  # as its library has it


@dataclass(slots=True, frozen=True)
class KeySet:
    """Keys by name and kind; of those without a name only one of a kind can be found."""

    keys: Mapping[tuple[str | None, str], PublicKey]

    def find(self, name: str | None, algorithm: Algorithm) -> PublicKey | None:
        """The key of this name for this algorithm; without a name the only one there is."""
        kind = KINDS[algorithm]
        if name is not None:
            found = [self.keys.get((name, kind))]
        else:
            found = [key for key in self.keys.values() if key.kind == kind]
        fit = [key for key in found if key is not None and key.algorithm in (None, algorithm)]
        return fit[0] if len(fit) == 1 else None


def read(data: bytes) -> KeySet:
    """The keys of a JWK Set. Raises ``ValueError`` where there is none that could serve."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is no JSON that can be read") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    keys: dict[tuple[str | None, str], PublicKey] = {}
    for entry in listed if isinstance(listed, list) else ():
        if len(keys) == MAX_KEYS:
            break
        if isinstance(entry, dict) and (key := _public(entry)) is not None:
            name = entry.get("kid")
            keys.setdefault((name if isinstance(name, str) else None, key.kind), key)
    if not keys:
        raise ValueError("there is no public key of use in it")
    return KeySet(keys)


def check(secret: bytes, key: PublicKey, algorithm: Algorithm) -> None:
    """Raises ``Refused`` unless this key signed it."""
    try:
        _SIGNED.decode(secret, key.key, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Refused("its signature is wrong") from None


def _public(entry: Mapping[str, Any]) -> PublicKey | None:
    """None for what is no key that checks signatures."""
    kind = entry.get("kty") if entry.get("kty") == "RSA" else entry.get("crv")
    fits = [algorithm for algorithm, each in KINDS.items() if each == kind]
    alone = entry.get("alg")
    uses = entry.get("key_ops", ["verify"])
    if not fits or alone not in (None, *fits) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    if not isinstance(uses, list) or "verify" not in uses:
        return None
    try:
        key = jwt.PyJWK.from_dict(dict(entry), algorithm=fits[0]).key
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return PublicKey(str(kind), alone, key) if _quick(key) else None


def _quick(key: Any) -> bool:
    """Whether it is neither weak nor takes long."""
    if not isinstance(key, RSAPublicKey):
        return True
    return key.key_size in RSA_BITS and key.public_numbers().e <= MAX_EXPONENT
