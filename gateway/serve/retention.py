"""What the Responses API remembers: answers that a later request can go on from, and their items by id.

Rule: every key has shelves of its own, bounded in number, size and age; the oldest goes first. All together
are bounded too: then the largest shelves give. In memory: a restart forgets all, and two processes know
nothing of each other. Knows nothing about requests or routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

MAX_RESPONSES = 32 << 20  # bytes of JSON on one key's shelf of responses
MAX_ITEMS = 8 << 20  # and on its shelf of items: thousands of messages
MAX_ALL = 256 << 20  # bytes on the shelves of one sort of all keys
ENTRY = 256  # bytes that the smallest entry takes

V = TypeVar("V")


class Retain(BaseModel):
    """How many responses are kept, and for how long; how long items can be referred to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retain: int = Field(0, ge=0, le=100_000, description="responses kept for each key; 0 keeps none")
    ttl: float = Field(3600, gt=0, le=30 * 86400, description="seconds for which they are kept")
    item_ttl: float = Field(
        3600, ge=0, le=30 * 86400, description="seconds for which items are known by their ids; 0: not at all"
    )


@dataclass(slots=True, frozen=True)
class Kept:
    """One response as it was answered, and the chat up to its end but for the instructions."""

    response: bytes
    messages: bytes  # a list in JSON
    items: tuple[str, ...]  # ids of what it said
    size: int  # bytes of JSON


class Retention(Protocol):
    """Where responses and items are; ``owner`` is the id of a key, which finds only its own."""

    def put(self, owner: str, id: str, kept: Kept) -> None: ...

    def get(self, owner: str, id: str) -> Kept | None: ...

    def drop(self, owner: str, id: str) -> bool:
        """Forget the response and its items; false if it was not there."""
        ...

    def remember(self, owner: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Know these by their ids for a while."""
        ...

    def item(self, owner: str, id: str) -> Mapping[str, Any] | None:
        """The output item with this id."""
        ...


def compact(value: Any) -> bytes:
    """JSON in no more memory than it needs: orjson's bytes keep the buffer that they were written to."""
    return bytes(memoryview(orjson.dumps(value)))


class Memory:
    """A ``Retention`` in this process. ``clock`` in seconds."""

    def __init__(self, config: Retain, clock: Callable[[], float]) -> None:
        item_ttl = max(config.item_ttl, config.ttl) if config.retain else config.item_ttl
        self._responses: _Shelves[Kept] = _Shelves(clock, config.ttl, config.retain, MAX_RESPONSES)
        self._items: _Shelves[bytes] = _Shelves(clock, item_ttl, MAX_ITEMS // ENTRY, MAX_ITEMS)

    def put(self, owner: str, id: str, kept: Kept) -> None:
        self._responses.put(owner, id, kept, kept.size)

    def get(self, owner: str, id: str) -> Kept | None:
        return self._responses.get(owner, id)

    def drop(self, owner: str, id: str) -> bool:
        kept = self._responses.drop(owner, id)
        for item in kept.items if kept else ():
            self._items.drop(owner, item)
        return kept is not None

    def remember(self, owner: str, items: Iterable[Mapping[str, Any]]) -> None:
        for item in items:
            written = compact(item)
            self._items.put(owner, item["id"], written, len(written))

    def item(self, owner: str, id: str) -> Mapping[str, Any] | None:
        written = self._items.get(owner, id)
        found: Mapping[str, Any] | None = orjson.loads(written) if written else None
        return found


class _Shelf(Generic[V]):
    """One key's entries with their sizes and ends of life, in the order in which they came. Never empty."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[V, int, float]] = {}
        self.size = 0


class _Shelves(Generic[V]):
    """One sort of entries, by key. Each lives ``ttl`` seconds; ``most`` and ``size`` bound one key's."""

    def __init__(self, clock: Callable[[], float], ttl: float, most: int, size: int) -> None:
        self._clock, self._ttl, self._most, self._max = clock, ttl, most, size
        self._shelves: dict[str, _Shelf[V]] = {}  # the one that was added to last comes last
        self._size = 0

    def put(self, owner: str, id: str, value: V, size: int) -> None:
        """Add a new entry; what has no room any more is gone."""
        if self._ttl <= 0:
            return
        self._tidy(owner)
        self._tidy(next(iter(self._shelves), owner))  # of keys that never come back nothing stays either
        shelf = self._shelves[owner] = self._shelves.pop(owner, _Shelf())
        size += ENTRY
        shelf.entries[id] = (value, size, self._clock() + self._ttl)
        shelf.size += size
        self._size += size
        self._make_room(owner)

    def get(self, owner: str, id: str) -> V | None:
        self._tidy(owner)
        shelf = self._shelves.get(owner)
        found = shelf.entries.get(id) if shelf else None
        return found[0] if found else None

    def drop(self, owner: str, id: str) -> V | None:
        """Forget it; what it was."""
        found = self.get(owner, id)
        if found is not None:
            self._pop(owner, id)
        return found

    def _make_room(self, owner: str) -> None:
        shelf = self._shelves[owner]
        while len(shelf.entries) > self._most or shelf.size > self._max:
            self._pop(owner, next(iter(shelf.entries)))
        if self._size > MAX_ALL:
            self._thin(owner)

    def _thin(self, newest: str) -> None:
        """The largest shelves lose their older half, until there is room for more than the next entry."""
        for owner in sorted(self._shelves, key=lambda each: self._shelves[each].size, reverse=True):
            ids = list(self._shelves[owner].entries)
            for id in ids[: (len(ids) + (owner != newest)) // 2]:
                self._pop(owner, id)
            if self._size <= MAX_ALL - MAX_ALL // 64:
                return

    def _tidy(self, owner: str) -> None:
        """Remove what is too old; what came first expires first."""
        now, shelf = self._clock(), self._shelves.get(owner)
        while shelf and shelf.entries:
            oldest, (_, _, expires) = next(iter(shelf.entries.items()))
            if expires > now:
                return
            self._pop(owner, oldest)

    def _pop(self, owner: str, id: str) -> None:
        shelf = self._shelves[owner]
        _, size, _ = shelf.entries.pop(id)
        shelf.size -= size
        self._size -= size
        if not shelf.entries:
            del self._shelves[owner]
