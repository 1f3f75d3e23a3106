"""An identity provider on loopback: its keys, its two documents, and the tokens that it signs.

Rule: what it answers, and whether it does, is for the test to say; every question is counted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.serve.house import Visit, container

AUDIENCE = "gateway"
Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def private(name: str) -> Private:
    """A key made once for all tests; how its name begins says of what kind it is."""
    if name.startswith("es"):
        curves = {"es384": ec.SECP384R1(), "es512": ec.SECP521R1()}
        return ec.generate_private_key(curves.get(name[:5], ec.SECP256R1()))
    if name.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if name.startswith("short") else 2048)


def jwk(name: str, **fields: Any) -> dict[str, Any]:
    """The public half as a provider publishes it."""
    key = private(name).public_key()
    algorithms = (RSAAlgorithm, ECAlgorithm, OKPAlgorithm)
    [kind] = [each for each in algorithms if isinstance(key, _kinds(each))]
    return {**kind.to_jwk(key, as_dict=True), "kid": name, "use": "sig", **fields}  # type: ignore[attr-defined]


def _kinds(algorithm: type) -> tuple[type, ...]:
    kinds: Mapping[type, type] = {
        RSAAlgorithm: rsa.RSAPublicKey,
        ECAlgorithm: ec.EllipticCurvePublicKey,
        OKPAlgorithm: ed25519.Ed25519PublicKey,
    }
    return (kinds[algorithm],)


def encoded(value: Any) -> str:
    """One part of a token; bytes as they are, all else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, payload: Any, key: str) -> str:
    """A token of these parts, whatever they are, with an honest signature of RS256."""
    parts = f"{encoded(header)}.{encoded(payload)}"
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    signature = algorithm.sign(parts.encode(), private(key))  # type: ignore[arg-type]
    return f"{parts}.{encoded(signature)}"


class Idp:
    """``asked`` are the paths it was asked for; while ``away`` it answers that it cannot."""

    def __init__(self, *keys: str) -> None:
        self.port = 0
        self.keys = [jwk(key) for key in keys]
        self.away = False
        self.asked: list[str] = []
        self.held: asyncio.Event | None = None  # answers wait for it
        self.answers: dict[str, bytes | Mapping[str, str]] = {}  # by path: a body, or headers of a redirect

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/realm"

    def entry(self, **fields: Any) -> dict[str, Any]:
        """Its entry in ``auth.oidc``."""
        return {"issuer": self.issuer, "audience": AUDIENCE, **fields}

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Claims of a good token; null takes one away."""
        now = int(time.time())
        mine = {"iss": self.issuer, "aud": AUDIENCE, "sub": "u-1", "iat": now, "exp": now + 600, **claims}
        return {name: value for name, value in mine.items() if value is not None}

    def token(self, key: str = "rs-1", algorithm: str = "RS256", **claims: Any) -> str:
        headers = {"kid": key}
        return jwt.encode(self.claims(**claims), private(key), algorithm=algorithm, headers=headers)

    async def __call__(self, visit: Visit) -> None:
        self.asked.append(visit.path)
        if self.held is not None:
            await self.held.wait()
        answer = self.answers.get(visit.path)
        if self.away:
            await visit.answer({}, status="503 Service Unavailable")
        elif isinstance(answer, bytes):
            await visit.answer(answer)
        elif answer is not None:
            lines = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
            await visit.send(f"HTTP/1.1 302 Found\r\n{lines}content-length: 0\r\n\r\n".encode())
        elif visit.path == "/realm/.well-known/openid-configuration":
            await visit.answer({"issuer": self.issuer, "jwks_uri": f"http://127.0.0.1:{self.port}/keys"})
        elif visit.path == "/keys":
            await visit.answer({"keys": self.keys})
        else:
            await visit.answer({}, status="404 Not Found")


@asynccontextmanager
async def provider(*keys: str) -> AsyncIterator[Idp]:
    made = Idp(*(keys or ("rs-1",)))
    async with container(made) as behind:
        made.port = behind.port
        yield made
