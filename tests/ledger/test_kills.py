"""Processes are killed at any moment: what a client was answered has its row, once, within seconds."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ledger.books import books, look, totals, until

RECOVERED = 5.0  # seconds
CLIENTS = 4  # of one process


@dataclass
class Scene:
    """What the clients of all processes saw."""

    nursery: asyncio.subprocess.Process
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    alive: set[int] = field(default_factory=set)
    asked: int = 0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def born(self) -> tuple[int, int]:
        """The process id and the port of another server."""
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        async with self.starting:
            self.nursery.stdin.write(b"\n")
            said = (await self.nursery.stdout.readline()).split()
        self.alive.add(int(said[0]))
        return int(said[0]), int(said[1])

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.alive.discard(pid)

    async def client(self, port: int) -> None:
        """Request after request until the server is gone."""
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while True:
                    self.asked += 1
                    id = f"r{self.asked:06}"
                    writer.write(f"{id}\n".encode())
                    assert await reader.readexactly(1) == b"+"
                    self.begun.add(id)
                    assert await reader.readexactly(1) == b"="
                    self.ended.add(id)
            finally:
                writer.close()

    async def life(self, longest: float) -> None:
        """A server from its birth to its violent end, some time after it answered for the first time."""
        pid, port = await self.born()
        clients = asyncio.gather(*(self.client(port) for _ in range(CLIENTS)))
        await asyncio.sleep(random.random() * longest)
        self.kill(pid)
        await clients


@asynccontextmanager
async def scene(url: str, folder: Path) -> AsyncIterator[Scene]:
    pipe = asyncio.subprocess.PIPE
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ledger.victim", url, str(folder), cwd=ROOT, stdin=pipe, stdout=pipe
    )
    found = Scene(nursery)
    try:
        yield found
    finally:
        for pid in found.alive:
            os.kill(pid, signal.SIGKILL)
        nursery.kill()
        await nursery.wait()


async def killed(url: str, folder: Path, kills: int, longest: float) -> Scene:
    """Nothing is lost and nothing doubled, with several processes at a time, each killed at random."""
    async with books(url, folder), scene(url, folder) as found:
        left = iter(range(kills))

        async def lives() -> None:
            for _ in left:
                await found.life(longest)

        await asyncio.gather(*(lives() for _ in range(4)))
        ended = time.monotonic()
        spool = folder / "spool"
        await until(lambda: len(list(spool.glob("*.lock"))) == 1)  # ours
        assert time.monotonic() - ended < RECOVERED
    rows = [row for row in look(url) if row["kind"] == "request"]
    idle = [row for row in look(url) if row["kind"] == "idle"]
    booked = [row["id"] for row in rows]
    assert len(booked) == len(set(booked))
    assert found.begun <= set(booked)
    assert {row["id"] for row in rows if not row["lost"]} >= {row["id"][:-5] for row in idle}
    cost = sum(row["cost"] or 0 for row in rows)
    gpu = sum(row["gpu_ns"] or 0 for row in rows + idle)
    lost = sum(row["lost"] for row in rows)
    tokens = (sum(row[name] or 0 for row in rows) for name in ("prompt_tokens", "completion_tokens"))
    expected = (len(rows), lost, *tokens, gpu, cost)
    assert totals(url) == [expected, expected]
    return found


async def test_ten_killed_processes_lose_and_double_nothing(database_url: str, tmp_path: Path) -> None:
    found = await killed(database_url, tmp_path, 10, 0.2)
    assert len(found.ended) > 10


@pytest.mark.soak
async def test_two_hundred_killed_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    found = await killed(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path, 200, 1.5)
    assert len(found.ended) > 10_000
