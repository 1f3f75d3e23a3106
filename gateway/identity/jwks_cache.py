"""The public keys of one provider in memory (its JWK Set, RFC 7517), kept up with it.

Rule: asked for anew every few minutes, and once more when a token names a key that is not known, but for that
only every ``SPARING`` seconds, whatever is sent. Whoever waits for an answer waits for the same one, and
nobody who leaves takes it from the others. While the provider is away its keys count for a while. Answers are
bounded in size and time, over TLS unless the provider is on this machine; no redirect leads to another host.
Knows no token, and nothing of what they open.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import TypeAdapter, ValidationError

from gateway.identity.config import Algorithm, Url
from gateway.identity.keyset import KeySet, PublicKey, read
from gateway.upstreams.download import NotFetched, download

DISCOVERY = "/.well-known/openid-configuration"  # behind the issuer (OpenID Connect Discovery 4)
FRESH = 300.0  # seconds for which keys count, whatever becomes of the provider
REFRESH = 270.0  # seconds after which they are asked for again: sooner, so that a second question is in time
AGAIN = 10.0  # seconds after a question without an answer
SPARING = 30.0  # seconds between two questions for the sake of a token
TIMEOUT = 5.0  # seconds for a question, both addresses together
MAX_BYTES = 256 << 10  # of an answer; some providers add certificates, tens of KiB

Get: TypeAlias = Callable[[str], Awaitable[bytes]]
"""What is at an address. Raises ``NotFetched``."""

log = logging.getLogger("gateway")
_url = TypeAdapter(Url)


class JwksCache:
    """``jwks_url`` is where the keys are; None: where the issuer's discovery document says.

    Keys count for ``keep`` seconds beyond ``FRESH``, which may be replaced when the configuration is.
    ``generation`` changes whenever the keys do. ``clock`` gives monotonic seconds.
    """

    def __init__(self, issuer: str, jwks_url: str | None, keep: float, clock: Callable[[], float]) -> None:
        self.jwks_url = jwks_url
        self.keep = keep
        self.generation = 0
        self._issuer = issuer
        self._clock = clock
        self._keys: KeySet | None = None
        self._data = b""
        self._seen: float | None = None  # when the provider was last asked with success
        self._next = float("-inf")  # when it is asked again
        self._sparing = float("-inf")  # from when on a token may have it asked
        self._late = False  # the last question had no answer
        self._asking: asyncio.Task[None] | None = None

    @property
    def current(self) -> bool:
        """Whether its keys count."""
        return self._seen is not None and self._clock() - self._seen < FRESH + self.keep

    @property
    def late(self) -> bool:
        """Whether the provider had no answer when it was last asked."""
        return self._late

    @property
    def due(self) -> bool:
        return self._clock() >= self._next

    def find(self, name: str | None, algorithm: Algorithm) -> PublicKey | None:
        """The key of this name for this algorithm, as far as is known by now."""
        return self._keys.find(name, algorithm) if self._keys is not None and self.current else None

    async def look(self) -> None:
        """Ask for the sake of a token, unless that was done lately; never raises."""
        if self._asking is None:
            if self._clock() < self._sparing:
                return
            self._sparing = self._clock() + SPARING
        await self.refresh()

    async def refresh(self) -> None:
        """Ask now, or wait for the question that is under way; never raises."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        await asyncio.wait({self._asking})

    async def aclose(self) -> None:
        """Nobody asks any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(TIMEOUT):
                data = await self._fetch()
            keys = self._keys if data == self._data else read(data)
        except TimeoutError:
            self._failed("it takes too long")
        except (NotFetched, ValueError) as error:
            self._failed(str(error))
        except (OSError, RecursionError) as error:  # its texts may hold anything
            self._failed(type(error).__name__)
        else:
            if data != self._data:
                self._keys, self._data = keys, data
                self.generation += 1
            if self._late:
                log.warning("keys of the identity provider %s can be read again", self._issuer)
            self._seen, self._late, self._next = began, False, began + REFRESH
        finally:
            self._asking = None

    def _failed(self, why: str) -> None:
        if not self._late:
            end = "; those that are known count on" if self.current else ""
            log.error("keys of the identity provider %s cannot be read: %s%s", self._issuer, why, end)
        self._late, self._next = True, self._clock() + AGAIN

    async def _fetch(self) -> bytes:
        if self.jwks_url is not None:
            return await get(self.jwks_url)
        issuer = self._issuer
        found = json.loads(await get(issuer.rstrip("/") + DISCOVERY))
        if not isinstance(found, dict) or found.get("issuer") != issuer:
            raise ValueError("its discovery document is of another issuer")
        try:
            url = _url.validate_python(found.get("jwks_uri"))
        except ValidationError:
            raise ValueError("its discovery document has no jwks_uri that can be used") from None
        if urlsplit(url).scheme != "https" and issuer.startswith("https:"):
            raise ValueError("its jwks_uri is not https")
        return await get(url)


async def get(url: str) -> bytes:
    """What is at this address. Raises ``NotFetched``."""
    size, home = 0, _origin(urlsplit(url))

    def check(each: str) -> None:
        if _origin(urlsplit(each)) != home:
            raise NotFetched("it redirects to another host")

    def take(more: int) -> None:
        nonlocal size
        size += more
        if size > MAX_BYTES:
            raise NotFetched(f"its answer has more than {MAX_BYTES} bytes")

    return (await download(url, check, take)).data


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port
