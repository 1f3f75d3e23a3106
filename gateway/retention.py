"""Responses that are kept for a while, so that a later request can refer to them.

Rule: every key has a shelf of its own, bounded in number, size and age; the oldest goes first. In memory: a
restart forgets all, and two processes know nothing of each other. Knows nothing about requests or routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

MAX_SIZE = 32 << 20  # bytes of JSON on one key's shelf


class Retain(BaseModel):
    """How many responses are kept, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retain: int = Field(0, ge=0, le=100_000, description="responses kept for each key; 0 keeps none")
    ttl: float = Field(3600, gt=0, le=30 * 86400, description="seconds for which they are kept")


@dataclass(slots=True, frozen=True)
class Kept:
    """One response as it was answered, and the chat up to its end but for the instructions."""

    response: bytes
    messages: tuple[Mapping[str, Any], ...]
    items: Mapping[str, Mapping[str, Any]]  # what it said, by the ids of the items
    size: int  # bytes of JSON


class Retention(Protocol):
    """Where responses are kept; ``owner`` is the name of a key, which finds only its own."""

    def put(self, owner: str, id: str, kept: Kept) -> None: ...

    def get(self, owner: str, id: str) -> Kept | None: ...

    def item(self, owner: str, id: str) -> Mapping[str, Any] | None:
        """The output item with this id."""
        ...

    def drop(self, owner: str, id: str) -> bool:
        """Forget it; false if it was not there."""
        ...


class Memory:
    """A ``Retention`` in this process. ``clock`` in seconds."""

    def __init__(self, config: Retain, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}  # at most one for each key of the configuration

    def put(self, owner: str, id: str, kept: Kept) -> None:
        shelf = self._shelves.setdefault(owner, _Shelf())
        self._tidy(shelf)
        shelf.add(id, kept, self._clock() + self._config.ttl)
        while len(shelf.kept) > self._config.retain or shelf.size > MAX_SIZE:
            shelf.remove(next(iter(shelf.kept)))

    def get(self, owner: str, id: str) -> Kept | None:
        found = self._shelf(owner).kept.get(id)
        return found[0] if found else None

    def item(self, owner: str, id: str) -> Mapping[str, Any] | None:
        return self._shelf(owner).items.get(id)

    def drop(self, owner: str, id: str) -> bool:
        shelf = self._shelf(owner)
        if id not in shelf.kept:
            return False
        shelf.remove(id)
        return True

    def _shelf(self, owner: str) -> _Shelf:
        shelf = self._shelves.get(owner) or _Shelf()
        self._tidy(shelf)
        return shelf

    def _tidy(self, shelf: _Shelf) -> None:
        """Remove what is too old; what came first expires first."""
        now = self._clock()
        while shelf.kept:
            oldest, (_, expires) = next(iter(shelf.kept.items()))
            if expires > now:
                return
            shelf.remove(oldest)


class _Shelf:
    """One key's responses with their ends of life, in the order in which they came."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Kept, float]] = {}
        self.items: dict[str, Mapping[str, Any]] = {}
        self.size = 0

    def add(self, id: str, kept: Kept, expires: float) -> None:
        self.kept[id] = (kept, expires)
        self.items.update(kept.items)
        self.size += kept.size

    def remove(self, id: str) -> None:
        kept, _ = self.kept.pop(id)
        for item in kept.items:
            self.items.pop(item, None)
        self.size -= kept.size
