"""The ledger of one process: what ``serve`` calls.

Rule: ``begin`` is awaited before the first byte of an answer; ``observe`` and ``idle`` return at once and
never raise; questions wait for the database, in threads of their own, and raise ``LedgerUnavailable``. No SQL
on the event loop, and none imported before the ledger starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from gateway.core.errors import LedgerUnavailable
from gateway.ledger.rows import BEGIN, END, Idle, Intent, line, of_idle, of_intent, of_record
from gateway.record import Record
from gateway.settings import ConfigError
from gateway.store.config import Store

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from gateway.ledger.spool import Spool
    from gateway.ledger.writer import Health, Writer

CLOSE = 10.0  # seconds for the database at the end
ASK = 15.0  # seconds for an answer of the database
CATCH_UP = 1.0  # seconds that a question waits for rows that are not booked yet
RETRY_AFTER = "5"  # seconds

log = logging.getLogger("gateway.ledger")
T = TypeVar("T")


class Spent(NamedTuple):
    """What a key, a team or a model used: whole numbers."""

    tokens: int
    cost: int  # billionths of a dollar
    gpu: int  # nanoseconds


class Ledger:
    """``start`` on the event loop that serves, ``aclose`` at its end."""

    def __init__(self, store: Store, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """``folder`` is where relative paths start; ``clock`` gives seconds since 1970."""
        self._store = store
        self._clock = clock
        self._folder = folder
        self._running: set[str] = set()
        self._spool: Spool | None = None
        self._writer: Writer | None = None
        self._engine: Engine | None = None  # for questions; the writer has its own
        self._asking: ThreadPoolExecutor | None = None

    def check(self) -> None:
        """Raise ``ConfigError`` if the configuration names what cannot be used; before a start."""
        from gateway.store.engine import open_engine

        open_engine(self._store.url, self._folder).dispose()
        path = self._folder / self._store.spool
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"store.spool: {path} cannot be made: {error.strerror}") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigError(f"store.spool: {path} cannot be written")

    async def start(self) -> None:
        """Open the spool, and begin to take over what others left that are gone. Raises ``ConfigError``."""
        from gateway.ledger.spool import Spool
        from gateway.ledger.writer import Writer
        from gateway.store.engine import POOL, open_engine

        engine = partial(open_engine, self._store.url, self._folder)
        self._engine = await asyncio.to_thread(engine)
        path = self._folder / self._store.spool
        try:
            self._spool = Spool(path, self._store.fsync)
        except OSError as error:
            raise ConfigError(f"store.spool: {path} cannot be written: {error.strerror}") from None
        self._asking = ThreadPoolExecutor(POOL, "ledger-questions")
        self._writer = Writer(engine, self._spool, self._store.retain_days, self._clock)

    async def aclose(self) -> None:
        """Bring what is left into the database, or leave it in the spool for whoever starts next."""
        spool, self._spool = self._spool, None
        if spool is None or self._writer is None:
            return
        try:
            await spool.aclose()
            await asyncio.wait_for(asyncio.wrap_future(self._writer.call(self._writer.finish)), CLOSE)
        except TimeoutError:
            log.error("the ledger's database does not answer; the rest waits in the spool")
        finally:
            spool.release()
            if self._asking is not None:
                self._asking.shutdown(wait=False, cancel_futures=True)
                self._asking = None
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    async def begin(self, intent: Intent) -> None:
        """Note a request where a killed process does not take it along.

        Raises ``LedgerUnavailable`` if that cannot be written: without a row nothing is served.
        """
        if self._spool is None:
            raise _refused()
        self._running.add(intent.request_id)
        try:
            await self._spool.begin(line(BEGIN, of_intent(intent)))
        except OSError as error:
            from gateway.ledger.spool import Unforced

            if not isinstance(error, Unforced):  # else its line is there, and its end has to follow
                self._running.discard(intent.request_id)
            raise _refused() from None

    def observe(self, record: Record, content: Mapping[str, Any] | None = None) -> None:
        """Note its end, or that it was refused before it began; ``content`` counts if it is to be kept.

        Afterwards a killed process does not take it along.
        """
        begun = record.request_id in self._running
        self._running.discard(record.request_id)
        if self._spool is None or (self._spool.stuck and not begun):  # else whoever is refused could pile up
            return
        kept = content if self._store.log_content else None
        self._spool.end((line(END, of_record(record, kept)),))

    def idle(self, rows: Iterable[Idle]) -> None:
        """Note containers that waited for nobody."""
        if self._spool is not None:
            self._spool.end([line(END, of_idle(row)) for row in rows])

    async def spent(self, scope: Literal["key", "team", "model"], id: str, since: float) -> Spent:
        """What was used since then, seconds since 1970, with all that this process has noted.

        What other processes noted in the last second may be missing. Raises ``LedgerUnavailable``.
        """
        return Spent(*await self._asked(lambda writer: writer.spent(scope, id, int(since * 1000))))

    async def ask(self, question: Callable[[Engine], T]) -> T:
        """The answer of the database, with all that this process has noted where it takes that in at once.

        In one of as many threads as it has connections. Raises ``LedgerUnavailable``.
        """
        from sqlalchemy.exc import SQLAlchemyError

        from gateway.store.engine import Replaced

        engine = self._engine
        if engine is None or self._asking is None:
            raise _unreachable()
        await self._catch_up()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, question, engine)
        except Replaced:
            await self._reopen(engine)
            raise _unreachable() from None
        except SQLAlchemyError:
            raise _unreachable() from None

    async def _catch_up(self) -> None:
        if self._spool is not None and self._writer is not None:
            booked = asyncio.wrap_future(self._writer.call(self._writer.catch_up))
            with suppress(TimeoutError):
                await asyncio.wait_for(booked, CATCH_UP)

    async def _reopen(self, old: Engine) -> None:
        """From now on questions go to the database that is there now."""
        from gateway.store.engine import open_engine

        with suppress(ConfigError):
            engine = await asyncio.to_thread(open_engine, self._store.url, self._folder)
            if self._engine is old:
                self._engine = engine

    async def settle(self) -> None:
        """Return once all that is noted is in the database. Raises ``LedgerUnavailable``."""
        await self._asked(lambda writer: writer.settle())

    def health(self) -> Health | None:
        """None while it does not run."""
        return None if self._writer is None else self._writer.health

    def refused(self) -> int:
        """Requests that were refused because they could not be noted."""
        return 0 if self._spool is None else self._spool.refused

    async def _asked(self, work: Callable[[Writer], T]) -> T:
        from gateway.ledger.writer import Unreachable

        if self._spool is None or self._writer is None:
            raise _unreachable()
        self._spool.flush()
        answer: Awaitable[T] = asyncio.wrap_future(self._writer.call(partial(work, self._writer)))
        try:
            return await asyncio.wait_for(answer, ASK)
        except (Unreachable, TimeoutError):
            raise _unreachable() from None


def _refused() -> LedgerUnavailable:
    message = "The gateway cannot write its books, so it serves nothing just now. Try again."
    return LedgerUnavailable(message, headers={"retry-after": RETRY_AFTER})


def _unreachable() -> LedgerUnavailable:
    message = "The gateway's ledger cannot be asked just now. Try again."
    return LedgerUnavailable(message, headers={"retry-after": RETRY_AFTER})
