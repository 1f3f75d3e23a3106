"""A new configuration while requests run: on SIGHUP, or when its file changes.

Rule: read and checked as a whole first; what is wrong with it is one line in the log, and nothing changes. A
file is read once it has been the same for a moment, since editors write in steps. Knows nothing about what a
configuration means.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from gateway.settings import ConfigError, Settings

LOOK = 1.0  # seconds between two looks at the file

Adopt: TypeAlias = Callable[[Settings, Settings], Awaitable[list[str]]]
"""Given the settings of the start and the new ones; the keys that count only after a restart.

Raises ``ConfigError``.
"""

Stamp: TypeAlias = tuple[int, int, int]
"""What changes when a file does."""

log = logging.getLogger("gateway")


def stamp(path: Path) -> Stamp | None:
    """None while there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Watch:
    """Whether a file has changed; ``seen`` is its stamp from before it was read."""

    def __init__(self, path: Path, seen: Stamp | None) -> None:
        self._path = path
        self._seen = self._before = seen
        self._gone = False

    def changed(self) -> bool:
        """Whether it differs from what was seen, and is as it was at the last look; once a change."""
        now = stamp(self._path)
        self._tell(gone=now is None and self._before is None)
        settled = now is not None and now == self._before and now != self._seen
        if settled:
            self._seen = now
        self._before = now
        return settled

    def _tell(self, *, gone: bool) -> None:
        """Once, when it has not been there for a moment."""
        if gone and not self._gone:
            log.warning("the configuration file %s is gone; what was read of it stays", self._path)
        self._gone = gone

    def mark(self) -> None:
        """It is about to be read, whoever asked for that."""
        self._seen = stamp(self._path)


class Reloader:
    """Reads a configuration again; ``read`` raises ``ConfigError``.

    Without a ``watch`` somebody else looks at the file, and sends the signal.
    """

    def __init__(self, read: Callable[[], Settings], watch: Watch | None = None) -> None:
        self._read = read
        self._watch = watch
        self._asked = asyncio.Event()

    @asynccontextmanager
    async def going(self, started: Settings, adopt: Adopt) -> AsyncIterator[None]:
        """Looks at the file and listens for the signal inside; ``adopt`` takes over what is new."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._answer(started, adopt))]
        if self._watch is not None:
            tasks.append(loop.create_task(self._look(self._watch)))
        try:
            with _listening(self.ask):
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def ask(self) -> None:
        """Read the configuration again, soon."""
        self._asked.set()

    async def _answer(self, started: Settings, adopt: Adopt) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                later = await adopt(started, await asyncio.to_thread(self._latest))
            except ConfigError as error:
                log.error("the configuration was not reloaded, the old one stays: %s", error)
            except Exception:
                log.exception("the configuration could not be reloaded, the old one stays")
            else:
                log.warning("the configuration was reloaded%s", _restart(later))

    def _latest(self) -> Settings:
        if self._watch is not None:
            self._watch.mark()
        return self._read()

    async def _look(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if await asyncio.to_thread(watch.changed):
                self.ask()


def _restart(keys: list[str]) -> str:
    return f"; these keys count only after a restart: {', '.join(keys)}" if keys else ""


@contextmanager
def _listening(ask: Callable[[], None]) -> Iterator[None]:
    """Calls ``ask`` on SIGHUP, also for one that was held back until now."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGHUP, ask)
    except (AttributeError, RuntimeError, ValueError, NotImplementedError):
        yield  # not the main thread, or no such signals here
        return
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        yield
    finally:
        with suppress(RuntimeError):
            loop.remove_signal_handler(signal.SIGHUP)
