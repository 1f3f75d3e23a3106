"""A file from an address that a client named, over the lean HTTP client.

Rule: each address is asked about before it is connected to, those of redirects too; nothing is sent but the
address; the body is bounded while it is read, and the connection is closed in the end. How long all of it may
take is the caller's business. Knows nothing about images.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import gateway
from gateway.upstreams.client import Client, Origin, Response
from gateway.upstreams.connections import target

CONNECT = 5.0  # seconds
HOPS = 5  # redirects that are followed
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # this machine, which alone is asked without TLS
REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {
    "accept": "*/*",
    "accept-encoding": "identity",
    "user-agent": f"modal-gateway/{gateway.__version__}",
}


class NotFetched(Exception):
    """Why there is no file, in words for the client; no address is repeated."""


class File(NamedTuple):
    """``kind`` is the content type, in lower case and without parameters."""

    kind: str
    data: bytes


async def download(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
    """The file at ``url``.

    ``check`` raises for an address that may not be asked, ``take`` if so many more bytes are too many. Raises
    ``NotFetched``.
    """
    for _ in range(HOPS + 1):
        check(url)
        parts = urlsplit(url)
        client = Client(_origin(parts), _HEADERS, CONNECT)
        try:
            response = await client.request("GET", target(parts), {})
            if response.status not in REDIRECTS:
                return await _file(response, take)
            url = urljoin(url, response.headers.get("location", ""))
        except (OSError, ValueError) as exc:  # of which TimeoutError and BadAnswer are
            raise NotFetched(_why(exc)) from None
        finally:
            client.close()
    raise NotFetched(f"there are more than {HOPS} redirects")


async def _file(response: Response, take: Callable[[int], None]) -> File:
    if response.status != 200:
        raise NotFetched(f"its host answers with status {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise NotFetched("its host compresses it")
    data = bytearray()
    while chunk := await response.read():
        take(len(chunk))
        data += chunk
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return File(kind, bytes(data))


def _origin(parts: SplitResult) -> Origin:
    secure = parts.scheme == "https"
    return Origin(parts.hostname or "", parts.port or (443 if secure else 80), _trusted() if secure else None)


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


def _why(exc: Exception) -> str:
    match exc:
        case ssl.SSLError():  # a ValueError too, where the certificate is wrong
            return "its host cannot be trusted: check its certificate"
        case ValueError():
            return "its host does not answer as HTTP wants it"
        case TimeoutError():
            return "there is no connection to its host in time"
        case _:
            return "there is no connection to its host"
