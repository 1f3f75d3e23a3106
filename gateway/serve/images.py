"""Images that a request names by an address: fetched where the configuration allows it, to be sent as data.

Rule: only from hosts of ``server.image_hosts``, over TLS unless the host is this machine; bounded in size,
time and number. What comes must say that it is an image and begin like one. A request whose images are data
already passes through as it is. Knows nothing about models.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator

from gateway.core.errors import BadRequest, RateLimited
from gateway.core.images import MAX_IMAGES, Place, images, kind_of, replaced
from gateway.core.wire import ChatRequest
from gateway.serve.together import together
from gateway.upstreams.download import LOOPBACK, File, NotFetched, download

R = TypeVar("R", bound=ChatRequest)

MAX_BYTES = 20 << 20  # of all images of one request together
TIMEOUT = 30.0  # seconds for all of them
TURN = 10.0  # seconds until they may be fetched
AT_ONCE = 4  # of one request
REQUESTS = 16  # that fetch at a time: each may hold MAX_BYTES
PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _host(text: str) -> str:
    name = text.lower().rstrip(".")
    if not _HOST.fullmatch(name):
        raise ValueError(f"{text!r} is no host: write example.org, *.example.org or localhost:8080")
    return name


ImageHost: TypeAlias = Annotated[str, AfterValidator(_host)]
"""A host, or ``*.`` and the end of several; with a port, if it is another than the scheme's."""

Fetch: TypeAlias = Callable[[str, Callable[[str], None], Callable[[int], None]], Awaitable[File]]


class Images:
    """What makes data URLs of addresses; ``hosts`` are ``ImageHost``."""

    def __init__(self, hosts: Iterable[str] = (), fetch: Fetch = download) -> None:
        self._hosts = frozenset(hosts)
        self._fetch = fetch
        self._turns = asyncio.Semaphore(REQUESTS)

    async def inlined(self, request: R) -> R:
        """The request with each address replaced by what is there.

        Raises ``BadRequest``, or ``RateLimited`` while too many others fetch theirs.
        """
        named = [place for place in images(request.messages) if _is_address(place.url)]
        if not named:
            return request
        for place in named:
            self._check(place.url, place)
        if len(named) > MAX_IMAGES:
            raise _refused(named[MAX_IMAGES], f"at most {MAX_IMAGES} images are accepted")
        urls = await self._fetched({place.url: place for place in named})
        at = {(place.message, place.part): urls[place.url] for place in named}
        return request.model_copy(update={"messages": replaced(request.messages, at)})

    async def _fetched(self, places: dict[str, Place]) -> dict[str, str]:
        """The data URL of each address, when it is this request's turn."""
        try:
            async with asyncio.timeout(TURN):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._all(places)
        except TimeoutError:
            first = next(iter(places.values()))
            raise _refused(first, f"the images did not come within {TIMEOUT:g} seconds") from None
        finally:
            self._turns.release()

    async def _all(self, places: dict[str, Place]) -> dict[str, str]:
        """The data URL of each address; one that fails ends the others."""
        left = MAX_BYTES
        turns = asyncio.Semaphore(AT_ONCE)

        def take(size: int, place: Place) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise _refused(place, f"the images have more than {MAX_BYTES} bytes together")

        async def one(url: str, place: Place) -> str:
            async with turns:
                data = await self._one(url, place, lambda size: take(size, place))
            return await asyncio.to_thread(_data_url, data)

        urls = await together(partial(one, url, place) for url, place in places.items())
        return dict(zip(places, urls, strict=True))

    async def _one(self, url: str, place: Place, take: Callable[[int], None]) -> bytes:
        try:
            file = await self._fetch(url, lambda each: self._check(each, place), take)
        except NotFetched as exc:
            raise _refused(place, f"the image cannot be fetched: {exc}") from None
        if not file.kind.startswith("image/") or kind_of(file.data) is None:
            raise _refused(place, "what is at this address is no PNG, JPEG, WebP or GIF image")
        return file.data

    def _check(self, url: str, place: Place) -> None:
        """Raise ``BadRequest`` for an address that may not be asked."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _refused(place, "is no valid address") from None
        if not _plain(url) or "@" in parts.netloc or parts.scheme not in ("http", "https"):
            raise _refused(place, "is no address that an image is fetched from")
        if not self._allowed(host, None if port == PORTS[parts.scheme] else port):
            raise _refused(
                place,
                f"images are not fetched from {_printable(host)}: it is not in server.image_hosts. "
                "Send a data URL (data:image/png;base64,...)",
            )
        if parts.scheme != "https" and host not in LOOPBACK:
            raise _refused(place, "images are fetched over https alone")

    def _allowed(self, host: str, port: int | None) -> bool:
        end = f":{port}" if port is not None else ""
        shown = f"[{host}]" if ":" in host else host.rstrip(".")
        labels = shown.split(".")
        wider = ("*." + ".".join(labels[at:]) for at in range(1, len(labels)))
        return any(name + end in self._hosts for name in (shown, *wider))


def _is_address(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _plain(url: str) -> bool:
    """Whether a request line can carry it as it stands."""
    return url.isascii() and url.isprintable() and " " not in url and len(url) <= 8192


def _printable(host: str) -> str:
    return "".join(c for c in host[:128] if c.isprintable())


def _data_url(data: bytes) -> str:
    return f"data:image/{kind_of(data)};base64,{b64encode(data).decode()}"


def _busy() -> RateLimited:
    message = f"The images of {REQUESTS} other requests are being fetched. Please try again in 1s."
    return RateLimited(message, headers={"retry-after": "1", "retry-after-ms": "1000"})


def _refused(place: Place, why: str) -> BadRequest:
    return BadRequest(f"{place.where}: {why}.", param=place.where, code="unsupported_content")
