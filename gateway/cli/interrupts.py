"""Ctrl-C and its kin while something starts: modules that are imported, processes and folders that are made.

Rule: nothing is raised from a handler here. An import may lose an exception or hide it in another, and what
is being cleared away must not be left half done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # exit code
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def importing() -> Iterator[None]:
    """Ctrl-C inside ends the process at once, without a word; nothing may be open that outlives it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.getsignal(signal.SIGINT)
    if old is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _leave(_: int, __: FrameType | None) -> None:
    os._exit(INTERRUPTED)


class Stops:
    """What a signal to stop does; ``code`` is the exit code that tells of it, 0 while none came."""

    def __init__(self) -> None:
        self.code = 0
        self._stop: Callable[[], None] = _nothing

    def by(self, stop: Callable[[], None]) -> None:
        """From now on ``stop`` is called, from the main thread; at once if it is too late for the signal."""
        self._stop = stop
        if self.code:
            stop()

    def take(self, number: int, _: FrameType | None) -> None:
        """The signal's handler."""
        self.code = self.code or 128 + number
        self._stop()


@contextmanager
def stops() -> Iterator[Stops]:
    """Takes Ctrl-C, SIGTERM and a terminal that is closed inside, but for those that are ignored."""
    made = Stops()
    old = {number: signal.getsignal(number) for number in STOPS}
    taken = {number: handler for number, handler in old.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, made.take)
    try:
        yield made
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _nothing() -> None:
    """Before anything was started."""
