"""All keys in memory: those of the configuration, and those of the store, kept up with it.

Rule: whoever is known costs no store. One that is not known, but looks like a key of the store, waits for one
look there, the same for all who wait; if the store cannot be asked that is a 503 and never a 401. Known keys
go on without it for ``STALE`` seconds. Another store than was read, or an earlier state of it, is read anew,
and what it does not have ends. Knows nothing about headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Protocol

from gateway.auth import Caller, configured
from gateway.core.errors import KeysUnavailable
from gateway.keys.key import Key, counted
from gateway.settings import ApiKey, Auth

STALE = 900.0  # seconds for which keys are believed while the store cannot be asked
LOOK = 2.0  # seconds that one look may take

PAGE = 1000  # keys that are read at once
MESSAGE = "Keys cannot be checked just now: the database of keys does not answer. Try again in a few seconds."

log = logging.getLogger("gateway")


class Store(Protocol):
    """Where keys are kept; called in a thread of its own."""

    def since(self, revision: int, most: int, bound: float) -> Sequence[Key]:
        """Keys that changed after this revision, in the order of their changes; the first ``most``.

        ``bound``: seconds that this may take.
        """
        ...

    def close(self) -> None: ...


class KeyCache:
    """``ended`` hears the id of a key that opens nothing any more; ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        auth: Auth,
        store: Store | None,
        clock: Callable[[], float],
        ended: Callable[[str], None],
    ) -> None:
        self._auth = auth
        self._configured = configured(auth)
        self._store = store
        self._clock = clock
        self._ended = ended
        self._stored: dict[bytes, Caller] = {}  # by the digest of the key
        self._digests: dict[str, bytes] = {}  # by its id
        self._last: Key | None = None  # whose change is the latest that was read; None: read all
        self._looks = 0  # that began
        self._seen: float | None = None  # when the store was last asked with success
        self._late = False  # the last look found nothing out
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "keys")

    @property
    def stored(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    @property
    def written(self) -> list[ApiKey]:
        """The keys of the configuration that count, those that are disabled too."""
        return counted(self._auth)

    def find(self, digest: bytes) -> Caller | None:
        """Who has the key of this SHA-256, as far as it is known by now."""
        found = self._configured.get(digest)
        if found is None and self._seen is not None and self._clock() - self._seen < STALE:
            found = self._stored.get(digest)
        return found

    def opens(self, caller: Caller) -> bool:
        """Whether what this caller came with opens anything still, as far as is known by now."""
        digest = caller.credential
        return not digest or digest in self._configured or digest in self._stored

    def configure(self, auth: Auth) -> None:
        """Another configuration counts from now on."""
        now = configured(auth)
        left = {caller.id for caller in self._configured.values()}
        kept = {self._configured[digest].id for digest in now if digest in self._configured}
        self._auth, self._configured = auth, now
        for id in left - kept:
            self._ended(id)

    async def look(self) -> None:
        """Know what the store knows now. Raises ``KeysUnavailable``."""
        asked = self._looks
        async with self._lock:
            if self._looks == asked:  # else one has begun since, and is over
                self._looks += 1
                await self._refresh()
            elif self._seen is None or self._late:
                raise KeysUnavailable(MESSAGE, headers={"retry-after": "1"})

    async def watch(self, poll: float) -> None:
        """Looks each ``poll`` seconds; until cancelled."""
        while True:
            with suppress(KeysUnavailable):
                await self.look()
            await asyncio.sleep(poll)

    def close(self) -> None:
        """Nobody looks any more. Does not wait for a look that goes on."""
        if self._store is not None:
            self._thread.submit(self._store.close)
        self._thread.shutdown(wait=False)

    async def _refresh(self) -> None:
        late, self._late = self._late, True
        began = self._clock()
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 # a driver's, or a row nobody can read: nothing is known
            self._last = None  # what answers next may be another store
            if not late:
                kind = type(error).__name__
                log.error("keys of the store cannot be read (%s); those that are known stay valid", kind)
            raise KeysUnavailable(MESSAGE, headers={"retry-after": "1"}) from None
        self._seen, self._late = began, False
        if late:
            log.warning("keys of the store can be read again")

    async def _follow(self) -> None:
        """Take over what has changed, or all there is where that cannot be told."""
        last = self._last
        if last is not None:
            changed = await self._since(last.revision - 1)
            if _goes_on(changed, last):
                await self._take_all([key for key in changed if key != last])
                return
            log.warning("the store was replaced or set back: all its keys are read anew")
        every = await self._since(0)
        self._end_others(every)
        self._last = None
        await self._take_all(every)

    async def _since(self, revision: int) -> list[Key]:
        """All that changed after this revision, a page at a time."""
        found: list[Key] = []
        while True:
            page = await self._page(revision)
            found += page
            if len(page) < PAGE:
                return found
            revision = page[-1].revision

    async def _page(self, revision: int) -> Sequence[Key]:
        assert self._store is not None
        look = partial(self._store.since, revision, PAGE, LOOK)
        async with asyncio.timeout(LOOK):
            return await asyncio.get_running_loop().run_in_executor(self._thread, look)

    def _end_others(self, every: Sequence[Key]) -> None:
        """Forget the keys that are not among these."""
        gone = self._digests.keys() - {key.id for key in every}
        for id in gone:
            del self._stored[self._digests.pop(id)]
            self._ended(id)
        if gone:
            log.error("%d keys are no longer in the store: they open nothing any more", len(gone))

    async def _take_all(self, changed: Sequence[Key]) -> None:
        """In the order of their changes, with room for others now and then."""
        for number, key in enumerate(changed, 1):
            self._take(key)
            self._last = key
            if number % PAGE == 0:
                await asyncio.sleep(0)

    def _take(self, key: Key) -> None:
        before = self._digests.pop(key.id, None)
        if before is not None:
            del self._stored[before]
        if key.usable:
            self._stored[key.digest] = key.caller()
            self._digests[key.id] = key.digest
        if before is not None and self._digests.get(key.id) != before:
            self._ended(key.id)


def _goes_on(changed: Sequence[Key], last: Key) -> bool:
    """Whether the store in which ``last`` was the latest change can have come to this since.

    No key is ever deleted and no revision is given twice: it is as it was, or was changed again.
    """
    same = [key for key in changed if key.id == last.id or key.revision == last.revision]
    return len(same) == 1 and same[0].id == last.id and (same[0] == last or same[0].revision > last.revision)
