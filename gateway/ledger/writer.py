"""The one thread that brings rows from the spool into the database.

Rule: what is in the database came from the spool, so there is one way: reading on where the last commit
ended, in our own files and in those of processes that are gone, which hold up nothing if they cannot be read.
Without the database rows stay where they are; it is asked less and less often. Knows nothing about requests.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.ledger.booking import book, sweep
from gateway.ledger.owners import being_taken_over, owners, taken_over
from gateway.ledger.queries import Scope, spent
from gateway.ledger.reading import BATCH, Reading
from gateway.ledger.rows import DAY, ID, Row
from gateway.ledger.spool import Spool
from gateway.settings import ConfigError
from gateway.store.engine import unmoved
from gateway.store.schema import prepare

TICK = 0.25  # seconds between two looks at the spool
LOOK = 2.0  # seconds between two looks for processes that are gone
SWEEP = 3600.0  # seconds between two looks for rows that are too old
SLICE = 20  # batches of rows of others, or too old, until our own come first again
FIRST = 1.5  # seconds that a question waits for what others left before this process began
AGAIN = 0.02  # seconds between two looks at what another process reads
BARRED = 60.0  # seconds until files of others that cannot be read are tried again
PAUSE = 0.5, 10.0  # seconds until the database is asked again, at first and at most

log = logging.getLogger("gateway.ledger")
T = TypeVar("T")


class Unreachable(Exception):
    """The database does not answer; the rows wait."""


class Health(NamedTuple):
    """How the ledger is."""

    reachable: bool  # the database
    waiting: int  # bytes of the spool that are not in it
    spoiled: int  # rows that it would not take at all


class Writer:
    """Owns the engine's writing side; all but ``call`` and ``health`` runs in its thread."""

    def __init__(
        self, open_engine: Callable[[], Engine], spool: Spool, retain_days: int, clock: Callable[[], float]
    ) -> None:
        """``clock`` gives seconds since 1970."""
        self._open = open_engine
        self._spool = spool
        self._clock = clock
        self._folder: Path = spool.folder
        self._retain = retain_days * DAY
        self._engine: Engine | None = None
        self._own = Reading(spool.folder, spool.owner)
        self._gone: dict[int, Reading] = {}  # by the lock that is held of it
        self._barred: dict[str, float] = {}  # whose files cannot be read, and when they are tried again
        self._pause = 0.0
        self._readable = True  # the spool
        self._again = 0.0  # the database is left alone until then
        self._look = self._sweep = 0.0
        self._began = False  # all that was left before us is in the database
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.health = Health(True, 0, 0)
        threading.Thread(target=self._run, name="ledger", daemon=True).start()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do this in the thread, between two batches."""
        result: Future[T] = Future()

        def job() -> None:
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(work())
                except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
                    result.set_exception(error)

        self._jobs.put(job)
        return result

    def catch_up(self) -> None:
        """Book what this process wrote so far, if the database can be reached."""
        self._tick(alone=True)

    def settle(self) -> None:
        """Book what was written so far, here and, if it can be read, by the gone. Raises ``Unreachable``."""
        self._look = 0.0
        while True:
            if not self._tick():
                raise Unreachable
            if not self._gone:
                return

    def spent(self, scope: Scope, id: str, since: int) -> tuple[int, int, int]:
        """As ``queries.spent``, with all that this process has written, and what others left before it began.

        Raises ``Unreachable``.
        """
        if not self._inherited() or not self._tick(alone=True) or self._engine is None:
            raise Unreachable
        try:
            return spent(self._engine, scope, id, since)
        except SQLAlchemyError as error:
            self._failed(error)
            raise Unreachable from None

    def finish(self) -> None:
        """The last of all: book what can be booked, and let others have the rest."""
        self._look = 0.0
        if self._tick() and not self._own.unfinished():
            self._own.forget()
        for lock in self._gone:
            os.close(lock)
        if self._engine is not None:
            self._engine.dispose()
        self._jobs.put(None)

    def _inherited(self) -> bool:
        """Whether all is booked that others left before this process began; waits for that for a while."""
        end = time.monotonic() + FIRST
        while not self._began:
            self._look = 0.0
            if not self._tick():
                return False
            if not self._gone and not being_taken_over(self._folder, self._barred):
                self._began = True
            elif time.monotonic() >= end:
                return False
            elif not self._gone:
                time.sleep(AGAIN)
        return True

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=TICK)
            except queue.Empty:
                self._tick()
                continue
            if job is None:
                return
            job()

    def _tick(self, *, alone: bool = False) -> bool:
        """Whatever is to be done now, or our own rows ``alone``; false if the database was not reached."""
        now = time.monotonic()
        if self._spool.gone():
            self._spool.mend()
            return False
        if now < self._again:
            return False
        try:
            self._work(now, alone)
        except (SQLAlchemyError, ConfigError) as error:
            self._failed(error)
            return False
        except OSError as error:
            self._unread(error)
            return False
        except Exception:
            log.exception("the ledger failed; it tries again")
            self._again = time.monotonic() + PAUSE[1]
            return False
        if not self.health.reachable:
            log.warning("the ledger's database can be reached again")
        self._pause = 0.0
        self._readable = True
        self._tell(reachable=True)
        return True

    def _work(self, now: float, alone: bool) -> None:
        if self._engine is None:
            engine = self._open()
            prepare(engine)
            self._engine = engine
        unmoved(self._engine)
        while not self._drain(self._engine, self._own, self._spool.written):
            continue
        if alone:
            return
        if now >= self._look:
            self._look = now + LOOK
            self._recover(self._engine, now)
        if now >= self._sweep:
            before = (int(self._clock() * 1000) - self._retain) // DAY * DAY
            for _ in range(SLICE):
                if not sweep(self._engine, before):
                    self._sweep = now + SWEEP
                    break

    def _drain(self, engine: Engine, reading: Reading, newest: tuple[int, int] | None = None) -> bool:
        """Book some of its rows; true if there are no more."""
        for _ in range(SLICE):
            rows = reading.take(newest)
            if rows and not self._book(engine, rows):
                reading.spoiled()
            reading.booked()
            if not rows:
                return True
        return False

    def _book(self, engine: Engine, rows: list[Row]) -> bool:
        """False if one of them cannot be booked at all."""
        try:
            book(engine, rows)
            self._tell()
            return True
        except (DataError, IntegrityError, OverflowError) as error:
            if len(rows) == 1:
                log.error("the database refuses the row %s: %s", rows[0][ID], type(error).__name__)
                self._tell(spoiled=1)
                return False
        singly = [self._book(engine, [row]) for row in rows]
        return all(singly)

    def _recover(self, engine: Engine, now: float) -> None:
        """Take over from processes that are gone."""
        there = owners(self._folder)
        self._barred = {owner: again for owner, again in self._barred.items() if owner in there}
        known = {reading.owner for reading in self._gone.values()} | {self._spool.owner}
        for owner in there:
            if owner in known or now < self._barred.get(owner, now):
                continue
            try:
                if (lock := taken_over(self._folder, owner)) is not None:
                    self._gone[lock] = Reading(self._folder, owner)
            except OSError as error:
                self._bar(owner, error)
        for lock, reading in list(self._gone.items()):
            try:
                if not self._inherit(engine, reading):
                    self._look = 0.0
                    continue
            except OSError as error:
                self._bar(reading.owner, error)
            del self._gone[lock]
            os.close(lock)

    def _inherit(self, engine: Engine, reading: Reading) -> bool:
        """Book some rows of one that is gone; true if that was all: what never ended becomes rows as lost."""
        if not self._drain(engine, reading):
            return False
        lost = reading.unfinished()
        for at in range(0, len(lost), BATCH):
            self._book(engine, lost[at : at + BATCH])
        if lost:
            log.warning("%d requests were lost with the process that served them", len(lost))
        reading.forget()
        return True

    def _bar(self, owner: str, error: OSError) -> None:
        if owner not in self._barred:
            log.error("%s.* in the spool cannot be read; rows there wait: %s", owner, _said(error))
        self._barred[owner] = time.monotonic() + BARRED

    def _unread(self, error: OSError) -> None:
        self._later()
        if self._readable:
            log.error("the ledger's spool %s cannot be read: %s", self._folder, _said(error))
        self._readable = False

    def _later(self) -> None:
        first, most = PAUSE
        self._pause = min(max(self._pause * 2, first), most)
        self._again = time.monotonic() + self._pause

    def _failed(self, error: Exception) -> None:
        self._later()
        if self.health.reachable:
            log.error("the ledger's database cannot be used, rows wait in the spool: %s", _said(error))
        self._tell(reachable=False)
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None  # what comes back may be another, or empty

    def _tell(self, *, reachable: bool | None = None, spoiled: int = 0) -> None:
        old = self.health
        self.health = Health(
            old.reachable if reachable is None else reachable,
            self._own.waiting(self._spool.written),
            old.spoiled + spoiled,
        )


def _said(error: Exception) -> str:
    """One line of what the driver says; it names host and user, never a password."""
    said = str(getattr(error, "orig", None) or error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0] if said else ''}"
