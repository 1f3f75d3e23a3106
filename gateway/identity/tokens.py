"""Tokens at the door: who has one, and which were seen lately.

Rule: a token that was believed is known by its SHA-256 until it ends, its provider's keys change, or nobody
can say any more whether they count. A provider that cannot be asked is a 503 and never a 401, and only for
tokens that claim to be of it. Why a token was refused is for the log alone. A signature is checked on the
event loop: it takes half a millisecond at most, and a thread would cost as much. Knows nothing about headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from gateway.allowances import Holder
from gateway.auth import Caller
from gateway.core.errors import KeysUnavailable
from gateway.identity.claims import EXPIRED, caller_from, denied
from gateway.identity.config import Provider
from gateway.identity.token import Refused, Token, parse

if TYPE_CHECKING:
    from gateway.identity.jwks_cache import JwksCache

KNOWN = 8192  # tokens that are remembered
LOOK = 2.0  # seconds between two looks whether keys have to be asked for
QUIET = 60.0  # seconds in which the log says a thing once
MESSAGE = (
    "Tokens cannot be checked just now: the identity provider does not answer. Try again in a few seconds."
)

log = logging.getLogger("gateway")


class _Issuer(NamedTuple):
    """A provider as it is configured, and its keys."""

    provider: Provider
    cache: JwksCache


class _Seen(NamedTuple):
    caller: Caller
    cache: JwksCache
    generation: int


class Tokens:
    """``time`` gives seconds since 1970, ``clock`` monotonic ones.

    ``ended`` hears that some whom ``opens`` let in may be let in no more. ``most`` tokens are remembered.
    """

    def __init__(
        self,
        time: Callable[[], float],
        clock: Callable[[], float],
        ended: Callable[[], None],
        most: int = KNOWN,
    ) -> None:
        self._time = time
        self._clock = clock
        self._ended = ended
        self._most = most
        self._issuers: dict[str, _Issuer] = {}  # by their names
        self._providers: dict[bytes, Provider] = {}  # by fingerprint
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._said: dict[tuple[str, str], float] = {}  # when, by issuer and words
        self._changed = asyncio.Event()
        self._left: list[JwksCache] = []  # nobody needs them, but they may be asking

    @property
    def expected(self) -> bool:
        """Whether there is a provider."""
        return bool(self._issuers)

    def configure(self, providers: Sequence[Provider]) -> None:
        """These count from now on; keys are kept where they come from the same address."""
        before, self._issuers = self._issuers, {}
        for provider in providers:
            known = before.get(provider.issuer)
            if known is not None and known.cache.jwks_url == provider.jwks_url:
                known.cache.keep = provider.keep
                self._issuers[provider.issuer] = _Issuer(provider, known.cache)
            else:
                self._issuers[provider.issuer] = _Issuer(provider, _cache(provider, self._clock))
        kept = [issuer.cache for issuer in self._issuers.values()]
        self._left += [issuer.cache for issuer in before.values() if issuer.cache not in kept]
        self._providers = {provider.fingerprint: provider for provider in providers}
        self._seen.clear()
        self._said.clear()
        self._changed.set()
        self._ended()

    def find(self, digest: bytes) -> Caller | None:
        """Who has the token of this SHA-256, if it was believed and its keys count still."""
        seen = self._seen.get(digest)
        if seen is None:
            return None
        if seen.generation != seen.cache.generation or not seen.cache.current:
            del self._seen[digest]
            return None
        self._seen.move_to_end(digest)
        return seen.caller

    async def verify(self, secret: bytes, digest: bytes) -> Caller | None:
        """Who has this token; None if it opens nothing. Raises ``KeysUnavailable``."""
        issuer = None
        try:
            token = parse(secret)
            name = token.claims.get("iss")
            issuer = self._issuers.get(name) if isinstance(name, str) else None
            if issuer is None:
                return None
            await self._believe(token, secret, issuer)
            if self._issuers.get(issuer.provider.issuer) is not issuer:
                return await self.verify(secret, digest)  # the configuration is another meanwhile
            caller = caller_from(issuer.provider, token.claims, self._time())
        except Refused as refused:
            if issuer is not None:
                self._say(issuer.provider.issuer, refused.why)
            return None
        self._seen[digest] = _Seen(caller, issuer.cache, issuer.cache.generation)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return caller

    def opens(self, caller: Caller) -> bool:
        """Whether the provider that let this caller in would do so still."""
        provider = self._providers.get(caller.credential)
        return provider is not None and not denied(provider, caller)

    def budgeted(self) -> list[Holder]:
        """The people with budgets whose tokens were believed lately, in this process."""
        callers = {seen.caller.id: seen.caller for seen in self._seen.values() if seen.caller.budgets}
        return [Holder("key", id, caller.name, caller.budgets) for id, caller in callers.items()]

    async def watch(self) -> None:
        """Keeps the keys of all providers up; until cancelled."""
        while True:
            self._changed.clear()
            await self._close_left()
            caches = [issuer.cache for issuer in self._issuers.values()]
            await asyncio.gather(*(cache.refresh() for cache in caches if cache.due))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK if caches else None):
                    await self._changed.wait()

    async def aclose(self) -> None:
        """Nobody is asked any more."""
        self._left += [issuer.cache for issuer in self._issuers.values()]
        await self._close_left()

    async def _believe(self, token: Token, secret: bytes, issuer: _Issuer) -> None:
        """Raises ``Refused`` unless a key of this provider signed it."""
        from gateway.identity.keyset import check

        provider, cache = issuer
        algorithm = next((each for each in provider.algorithms if each == token.algorithm), None)
        if algorithm is None:
            raise Refused("its algorithm is none of those in auth.oidc.algorithms")
        key = cache.find(token.key, algorithm)
        if key is None:
            await cache.look()
            key = cache.find(token.key, algorithm)
        if key is None and (cache.late or not cache.current):
            raise KeysUnavailable(MESSAGE, headers={"retry-after": "5"})
        if key is None:
            raise Refused("its key is none of the provider's")
        check(secret, key, algorithm)

    async def _close_left(self) -> None:
        while self._left:
            await self._left[-1].aclose()
            self._left.pop()

    def _say(self, issuer: str, why: str) -> None:
        """Once in a while; that tokens expire is nothing to tell."""
        now = self._clock()
        if why != EXPIRED and now - self._said.get((issuer, why), -QUIET) >= QUIET:
            self._said[issuer, why] = now
            log.warning("a token of %s was refused: %s", issuer, why)


def _cache(provider: Provider, clock: Callable[[], float]) -> JwksCache:
    from gateway.identity.jwks_cache import JwksCache  # with PyJWT, which only those have who need it

    return JwksCache(provider.issuer, provider.jwks_url, provider.keep, clock)
