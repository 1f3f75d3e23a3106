"""The metrics of all processes that serve at one address, whichever of them is asked.

Each one answers the others over a socket in a folder that they share: a line says what is asked for, all that
is scraped or the sums of it. Who is asked from outside asks them all and adds up.
What a process counted is written there when it ends, and at each scrape, so that no sum goes down because
one of them is gone. Who starts adds what is left of those that are gone to one file.
Rule: nobody waits long for another, and a request pays nothing. What a process that was killed had counted
since the last scrape is lost. Knows nothing about what is counted.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TypeAlias

import orjson

from gateway.telemetry.families import Family, exposition, lasting, total

PATIENCE = 1.0  # seconds for another process
MAX_TOLD = 64 << 20  # bytes that one of them may say
PAST = "past"  # the file of those that are gone
ALL, SUMS = b"all\n", b"sums\n"  # what one asks another for

Tell: TypeAlias = Callable[[], list[Family]]

log = logging.getLogger("gateway")


class Workers:
    """``own`` tells the metrics of this process, ``sums`` a few of them summed up; ``folder`` is shared."""

    def __init__(self, folder: Path, own: Tell, sums: Tell) -> None:
        self._folder = folder
        self._own = own
        self._sums = sums
        self._id = token_hex(4)

    async def exposition(self) -> bytes:
        """The sum of all, as Prometheus scrapes it."""
        families = await self.families()
        return await asyncio.to_thread(exposition, families)

    async def families(self) -> list[Family]:
        """The sum of all."""
        known = await self._asked(ALL)
        past = await asyncio.to_thread(self._remember, known)
        own = self._own()
        return await asyncio.to_thread(lambda: total([own, *known.values(), *past]))

    async def sums(self) -> list[Family]:
        """The sums of each for itself, and whatever is left of those that are gone."""
        known = await self._asked(SUMS)
        own = self._sums()
        past = await asyncio.to_thread(self._past, known, {name for name, *_ in own})
        return [*own, *(family for told in known.values() for family in told), *past]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers the others inside; where that is not possible only this process is told of."""
        await asyncio.to_thread(self._fold)
        try:
            server = await asyncio.start_unix_server(self._tell, self._path(self._id, "sock"))
        except OSError as error:
            log.warning("/metrics tells of one worker only: %s", error.strerror)
            yield
            return
        try:
            yield
        finally:
            server.close()
            with suppress(OSError):
                self._write(self._id, "json", lasting(self._own()))
            self._path(self._id, "sock").unlink(missing_ok=True)

    # --- between processes ---

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            async with asyncio.timeout(PATIENCE):
                if asked := await reader.readline():
                    writer.write(orjson.dumps(self._sums() if asked == SUMS else self._own()))
                    await writer.drain()
        writer.close()

    async def _asked(self, what: bytes) -> dict[str, list[Family]]:
        """What the others tell, those that do not left out."""
        names = [name for name in await asyncio.to_thread(self._names, "sock") if name != self._id]
        told = await asyncio.gather(*(self._ask(name, what) for name in names))
        return {name: each for name, each in zip(names, told, strict=True) if each is not None}

    async def _ask(self, name: str, what: bytes) -> list[Family] | None:
        """What this process tells, None if it does not."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._path(name, "sock"))
                try:
                    writer.write(what)
                    told = bytearray()
                    while len(told) < MAX_TOLD and (chunk := await reader.read(1 << 20)):
                        told += chunk
                finally:
                    writer.close()
            families: list[Family] = orjson.loads(told)
        except (OSError, TimeoutError, ValueError):
            return None
        return families

    # --- files; to be called in a thread ---

    def _path(self, name: str, kind: str) -> Path:
        return self._folder / f"{name}.{kind}"

    def _names(self, kind: str) -> list[str]:
        return [path.stem for path in self._folder.glob(f"*.{kind}")]

    def _remember(self, told: dict[str, list[Family]]) -> list[list[Family]]:
        """Keep what others have told; what there is of those that told nothing."""
        with self._locked(fcntl.LOCK_SH):
            with suppress(OSError):
                for name, families in told.items():
                    self._write(name, "seen", lasting(families))
            return self._gone(told)

    def _past(self, told: Iterable[str], wanted: Collection[str]) -> list[Family]:
        """These families of those that told nothing."""
        with self._locked(fcntl.LOCK_SH):
            return [family for left in self._gone(told) for family in left if family[0] in wanted]

    def _gone(self, told: Iterable[str]) -> list[list[Family]]:
        gone = {*self._names("json"), *self._names("seen")} - {*told, self._id}
        return [self._left(name) for name in sorted(gone)]

    def _left(self, name: str) -> list[Family]:
        """What it wrote at its end, else what it told last."""
        for kind in ("json", "seen"):
            with suppress(OSError, ValueError):
                families: list[Family] = orjson.loads(self._path(name, kind).read_bytes())
                return families
        return []

    def _fold(self) -> None:
        """Add what is left of processes that are gone to one file."""
        with suppress(OSError), self._locked(fcntl.LOCK_EX):
            names = {*self._names("json"), *self._names("seen"), *self._names("sock")} - {PAST}
            if gone := [name for name in sorted(names) if not self._lives(name)]:
                self._write(PAST, "json", total([self._left(PAST), *map(self._left, gone)]))
                for name in gone:
                    for kind in ("json", "seen", "sock"):
                        self._path(name, kind).unlink(missing_ok=True)

    def _lives(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect(str(self._path(name, "sock")))
            except (TimeoutError, BlockingIOError):  # it has too much to do
                return True
            except OSError:
                return False
            return True

    def _write(self, name: str, kind: str, families: Sequence[Family]) -> None:
        """Whoever reads it finds the old or the new."""
        new = self._path(f"{name}-{self._id}", "new")
        new.write_bytes(orjson.dumps(families))
        os.replace(new, self._path(name, kind))

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, how)
            yield
