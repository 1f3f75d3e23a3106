"""The spool: what this process knows and the database does not yet, in files that outlive the process.

Rule: appended to by the event loop: one write for all that begins in one of its turns, one for each end; read
by others. Nothing is taken back: what could not be written whole was never written. A file that somebody
removed is noticed before the next request begins, and made again with what it held. Knows no database.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from gateway.ledger.owners import claim, held, lock_of, mark, segment_of
from gateway.ledger.rows import head

Fsync: TypeAlias = Literal["never", "batch", "always"]

SEGMENT = 4 * 1024 * 1024  # bytes after which the next file begins
BATCH = 0.05  # seconds until what was written is forced to disk, with `batch`
RETRY = 1.0  # seconds until ends that could not be written are tried again
QUIET = 60.0  # seconds between two complaints about the same
CLOSE = 5.0  # seconds for the disk at the end

log = logging.getLogger("gateway.ledger")


class Unforced(OSError):
    """It was written, and a killed process leaves it; whether a machine that stops does is not known."""


class Spool:
    """The files of this process. Made and used on the event loop; ``written`` may be read by any thread."""

    def __init__(self, folder: Path, fsync: Fsync) -> None:
        """Raises ``OSError``."""
        self.folder = folder
        self.owner, self._lock = claim(folder)
        self.written = (0, 0)  # the newest file's number, and its bytes that are valid
        self.refused = 0  # requests that were not begun because this could not be written
        self._fsync = fsync
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, "ledger-disk")
        self._file = -1
        self._lock_mark = self._mark = mark(lock_of(folder, self.owner), self._lock)
        self._begins: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._forcing: list[asyncio.Future[None]] = []  # who waits for the sync that goes on
        self._ends: list[bytes] = []
        self._due: asyncio.Handle | None = None
        self._retry: asyncio.Handle | None = None
        self._closed = False
        self._syncing: asyncio.Future[None] | None = None
        self._unsynced: list[asyncio.Future[None]] | None = None  # None: all is on disk
        self._behind: list[int] = []  # files that ended since the last sync began
        self._overdue = False  # what came during a sync is due before it ended
        self._complained = float("-inf")
        self._next_file()

    @property
    def stuck(self) -> bool:
        """Whether what should be written cannot be just now."""
        return self._retry is not None

    def gone(self) -> bool:
        """Whether somebody removed the newest file or the lock. For any thread."""
        return not (self._mark.there() and self._lock_mark.there())

    def mend(self) -> None:
        """Make again what is gone, soon. For any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._mend)

    def begin(self, line: bytes) -> asyncio.Future[None]:
        """Done once the line is where a killed process does not take it along; else an ``OSError``.

        ``Unforced`` is one whose line stays, so that its end has to follow.
        """
        written = self._loop.create_future()
        self._begins.append(line)
        self._waiting.append(written)
        if self._due is None:
            self._due = self._loop.call_soon(self.flush)
        return written

    def end(self, lines: Iterable[bytes]) -> None:
        """Written at once; if that fails, again and again. As many wait as requests were running."""
        self._ends.extend(lines)
        self.flush()

    def flush(self) -> None:
        """Write all that waits. Never raises."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        waiting, lines = self._waiting, self._begins + self._ends
        if not lines:
            return
        self._waiting, self._begins = [], []
        if self._closed:
            settle(waiting, OSError(errno.EBADF, "the spool is closed"))
            return
        try:
            self._append(b"".join(lines), look=bool(waiting))
        except OSError as error:
            self._refuse(waiting, error)
            return
        self._ends.clear()
        if self._fsync == "always":
            self._unsynced = (self._unsynced or []) + waiting
            self._force()
            return
        settle(waiting, None)
        if self._fsync == "batch" and self._unsynced is None:
            self._unsynced = []
            self._loop.call_later(BATCH, self._force)

    async def aclose(self) -> None:
        """Write what waits, and tell all who wait what became of it. The files stay, and so does the lock."""
        self.flush()
        self._mend()
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE):
                while self._syncing is not None:  # the next may have begun as one ended
                    await asyncio.wait({self._syncing})
        unsynced, self._unsynced = self._unsynced or [], None
        settle(self._forcing + unsynced, Unforced(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        if self._ends:
            log.error("the spool could not be written: the ends of %d requests are lost", len(self._ends))
        self._disk.submit(_close, [*self._behind, self._file], self._fsync != "never")
        self._disk.shutdown(wait=False)

    def release(self) -> None:
        """Let others have what is left."""
        os.close(self._lock)

    def _append(self, data: bytes, *, look: bool) -> None:
        if look and not self._mark.there():
            self._renew()
        elif self.written[1] >= SEGMENT:
            with suppress(OSError):  # then this one grows
                self._next_file()
        number, size = self.written
        left, at = memoryview(data), size
        try:
            while left:
                done = os.pwrite(self._file, left, at)
                left, at = left[done:], at + done
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise
        self.written = (number, at)

    def _next_file(self, carried: bytes = b"") -> None:
        number = self.written[0] + 1
        path = segment_of(self.folder, self.owner, number)
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        data = head() + carried
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(file)
            path.unlink()
            raise
        if self._fsync != "never":
            self._disk.submit(_sync_folder, self.folder)
        if self._file >= 0 and self._fsync == "never":
            self._disk.submit(os.close, self._file)
        elif self._file >= 0:  # who waits for its sync has to hear of its failure
            self._behind.append(self._file)
        self._file, self._mark, self.written = file, mark(path, file), (number, len(data))

    def _renew(self) -> None:
        """The next file holds all that the removed one did; rows that are booked already count once."""
        if not self._lock_mark.there():
            old, self._lock = self._lock, held(self.folder, self.owner)
            self._lock_mark = mark(lock_of(self.folder, self.owner), self._lock)
            os.close(old)
        if not self._mark.there():
            self._next_file(os.pread(self._file, self.written[1], 0))
        text = "files of the spool %s were removed; they are made again with the rows of the newest"
        log.error(text, self.folder)

    def _mend(self) -> None:
        if self._closed or not self.gone():
            return
        try:
            self._renew()
        except OSError as error:
            self._complain("the spool %s was removed, and cannot be made again: %s", error)

    def _refuse(self, waiting: list[asyncio.Future[None]], error: OSError) -> None:
        self.refused += len(waiting)
        settle(waiting, error)
        if self._ends and self._retry is None:
            self._retry = self._loop.call_later(RETRY, self._again)
        self._complain("the spool %s cannot be written, so requests are refused: %s", error)

    def _complain(self, text: str, error: OSError) -> None:
        if self._loop.time() - self._complained > QUIET:
            self._complained = self._loop.time()
            log.error(text, self.folder, error.strerror)

    def _again(self) -> None:
        self._retry = None
        self.flush()

    def _force(self) -> None:
        """Force to disk what was written so far; those who come meanwhile share the next time."""
        if self._syncing is not None or self._unsynced is None:
            self._overdue = self._unsynced is not None
            return
        self._forcing, self._unsynced, self._overdue = self._unsynced, None, False
        behind, self._behind = self._behind, []
        self._syncing = self._loop.run_in_executor(self._disk, _sync, self._file, behind)
        self._syncing.add_done_callback(self._forced)

    def _forced(self, done: asyncio.Future[None]) -> None:
        waiting, self._forcing, self._syncing = self._forcing, [], None
        error = done.exception()
        if isinstance(error, OSError) and self._fsync == "always":
            self._refuse(waiting, Unforced(error.errno, error.strerror))
        elif isinstance(error, OSError):
            self._complain(
                "the spool %s cannot be forced to disk, and is lost if this machine stops: %s", error
            )
        settle(waiting, None)
        if self._overdue or self._fsync == "always":
            self._force()


def settle(waiting: Iterable[asyncio.Future[None]], error: OSError | None) -> None:
    """Tell those who still wait."""
    for each in waiting:
        if not each.done():
            if error is None:
                each.set_result(None)
            else:
                each.set_exception(error)


def _sync(newest: int, behind: Iterable[int]) -> None:
    """Force these files to disk, and close those that ended. Raises ``OSError`` after all were tried."""
    failed: OSError | None = None
    for file in (*behind, newest):
        try:
            os.fsync(file)
        except OSError as error:
            failed = error
    _close(behind, sync=False)
    if failed is not None:
        raise failed


def _close(files: Iterable[int], sync: bool) -> None:
    for file in files:
        try:
            if sync:
                os.fsync(file)
        except OSError as error:
            log.error("the spool could not be forced to disk: %s", error.strerror)
        finally:
            os.close(file)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk only when its folder is."""
    with suppress(OSError):
        held = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)
