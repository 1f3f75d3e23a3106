"""The history that several workers share, in a file of the one that takes the samples.

Rule: whoever holds the lock beside it takes them, and nobody waits for it; the lock comes free however its
holder ends. A file that cannot be read or written costs the past and nothing else.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from gateway.console.history import Buckets, History, Sample, Totals

INFINITE = float("inf")


class HistoryFile:
    """In a folder of all workers; whoever holds its lock writes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "history"
        self._lock: int | None = None

    @property
    def held(self) -> bool:
        return self._lock is not None

    def take(self) -> bool:
        """Whether this process takes the samples from now on."""
        file = -1
        try:
            file = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if file >= 0:
                os.close(file)
            return False
        self._lock = file
        return True

    def leave(self) -> None:
        """Another may take them."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> History:
        """In a thread. An empty one where there is nothing that can be read."""
        with suppress(OSError, ValueError, TypeError):
            time, values, points = orjson.loads(self._path.read_bytes())
            return History(Sample(time, _totals(values)), map(dict, points))
        return History()

    def write(self, history: History) -> None:
        """In a thread. Whoever reads it finds the old or the new."""
        new, last = self._path.with_suffix(".new"), history.last
        with suppress(OSError):
            if last is not None:
                new.write_bytes(orjson.dumps((last.time, _values(last.totals), history.points)))
                os.replace(new, self._path)


def _values(found: Totals) -> list[Any]:
    """For JSON, which has no end that is infinite."""
    *numbers, ttft, gap = found
    return [*numbers, *([(None if end == INFINITE else end, n) for end, n in each] for each in (ttft, gap))]


def _totals(values: list[Any]) -> Totals:
    *numbers, ttft, gap = values
    return Totals._make([*numbers, _buckets(ttft), _buckets(gap)])


def _buckets(values: list[Any]) -> Buckets:
    return tuple((INFINITE if end is None else end, n) for end, n in values)
