"""Reading a spool: the rows that are complete, and which files are needed no more.

Rule: memory is bounded by the requests that run at the same time, not by the files. A file goes once all its
rows are in the database and all requests that began in it have ended. What is damaged is logged and its
file put aside; it holds up nothing. Knows no database.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gateway.ledger.owners import lock_of, segment_of
from gateway.ledger.rows import BEGIN, COLUMNS, END, HEAD, ID, Row, parsed, renamed

CHUNK = 1 << 20  # bytes read at once; every line is shorter
BATCH = 500  # rows taken at once

log = logging.getLogger("gateway.ledger")


class Reading:
    """One owner's files, in order."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self.owner = owner
        self._files = _numbers(folder, owner)
        self._number = min(self._files, default=1)
        self._offset = 0
        self._columns = COLUMNS
        self._began: dict[str, tuple[int, Row]] = {}  # requests without an end, and the file they began in
        self._needed: Counter[int] = Counter()  # how many of them a file holds
        self._taken: list[Row] = []
        self._done = self._number, 0  # file and byte up to which all is in the database
        self._ended: list[int] = []  # where those began that ended in the rows last taken
        self._behind: set[int] = set()  # files read to their end, and not yet removed
        self._damaged: set[int] = set()

    def take(self, newest: tuple[int, int] | None = None) -> list[Row]:
        """Rows of requests that ended, at most ``BATCH``; none where there are no more yet.

        The same again until they are ``booked``, which is to be called for none too. ``newest`` is the file
        that is still written to and its valid bytes; None for an owner that is gone. Raises ``OSError``.
        """
        while not self._taken:
            end = self._end(newest)
            self._taken = self._rows(end)
            if self._taken:
                break
            if self._offset < end and self._complete(newest):
                self._damage(f"{end - self._offset} bytes after its last whole line")
            if not self._next(newest):
                break
        return self._taken

    def booked(self) -> None:
        """The rows last taken are in the database."""
        self._taken = []
        self._done = self._number, self._offset
        for number, count in Counter(self._ended).items():
            self._needed[number] -= count
        self._ended.clear()
        for number in sorted(self._behind):
            if self._needed[number] <= 0:
                self._remove(number)

    def spoiled(self) -> None:
        """A row last taken cannot be booked at all: keep its file for a person."""
        self._damaged.add(self._number)

    def unfinished(self) -> list[Row]:
        """What becomes of requests that have no end; asked when their owner is gone and all was taken."""
        return [row for _, row in self._began.values()]

    def forget(self) -> None:
        """All is in the database: nothing is left of this owner."""
        self._began.clear()
        self._needed.clear()
        for number in (*self._behind, self._number):
            self._remove(number)
        lock_of(self._folder, self.owner).unlink(missing_ok=True)

    def waiting(self, newest: tuple[int, int]) -> int:
        """Bytes that are not in the database yet, those of ``newest`` included."""
        first, offset = self._done
        total = -offset
        for number in range(first, newest[0]):
            with suppress(FileNotFoundError):
                total += self._path(number).stat().st_size
        return max(total + newest[1], 0)

    def _path(self, number: int) -> Path:
        return segment_of(self._folder, self.owner, number)

    def _complete(self, newest: tuple[int, int] | None) -> bool:
        """Whether more files follow, so that this one should have ended with a whole line."""
        return self._number < (newest[0] if newest else max(self._files, default=0))

    def _end(self, newest: tuple[int, int] | None) -> int:
        if newest and newest[0] == self._number:
            return newest[1]
        try:
            return self._path(self._number).stat().st_size
        except FileNotFoundError:
            return 0

    def _next(self, newest: tuple[int, int] | None) -> bool:
        """Go on to the next file; false if this is the last."""
        if not self._complete(newest):
            return False
        self._behind.add(self._number)
        later = [number for number in self._files if number > self._number]
        self._number = self._number + 1 if newest else min(later)
        self._offset, self._columns = 0, COLUMNS
        return True

    def _rows(self, end: int) -> list[Row]:
        """Rows from here to ``end``, of this file alone."""
        rows: list[Row] = []
        while self._offset < end and len(rows) < BATCH:
            with self._path(self._number).open("rb") as file:
                file.seek(self._offset)
                chunk = file.read(min(CHUNK, end - self._offset))
            whole = chunk.rfind(b"\n") + 1
            if not whole:
                if len(chunk) < CHUNK:
                    break  # the rest of the line is missing
                self._damage("a line without an end")
                whole = len(chunk)
            self._offset += self._lines(chunk[:whole], rows)
        return rows

    def _lines(self, chunk: bytes, rows: list[Row]) -> int:
        """Add what these lines hold to ``rows``; how many bytes were used."""
        at = 0
        while at < len(chunk) and len(rows) < BATCH:
            end = chunk.find(b"\n", at)
            found = parsed(chunk[at:end] if end >= 0 else chunk[at:])
            if found is None:
                self._damage(f"the line at byte {self._offset + at}")
            else:
                self._line(*found, rows)
            at = end + 1 if end >= 0 else len(chunk)
        return at

    def _line(self, kind: bytes, row: Row, rows: list[Row]) -> None:
        if kind == HEAD:
            self._columns = COLUMNS if tuple(row) == COLUMNS else tuple(row)
            return
        if self._columns is not COLUMNS:
            row = renamed(row, self._columns)
        if kind == BEGIN:
            if (known := self._began.get(row[ID])) is not None:  # its file was removed, and made again
                self._ended.append(known[0])
            self._began[row[ID]] = (self._number, row)
            self._needed[self._number] += 1
        elif kind == END:
            rows.append(row)
            if (began := self._began.pop(row[ID], None)) is not None:
                self._ended.append(began[0])

    def _damage(self, what: str) -> None:
        if self._number not in self._damaged:
            log.error("%s is damaged and will be put aside: %s", self._path(self._number).name, what)
        self._damaged.add(self._number)

    def _remove(self, number: int) -> None:
        self._behind.discard(number)
        del self._needed[number]
        path = self._path(number)
        with suppress(FileNotFoundError):
            if number in self._damaged:
                os.replace(path, path.with_suffix(".damaged"))
            else:
                path.unlink()


def _numbers(folder: Path, owner: str) -> list[int]:
    return sorted(int(path.suffixes[-2][1:]) for path in folder.glob(f"{owner}.*.spool"))
