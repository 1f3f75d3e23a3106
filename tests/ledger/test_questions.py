"""Questions have threads of their own: nothing else waits for a slow one, and none goes on without an end."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from gateway.core.errors import LedgerUnavailable
from gateway.ledger import ledger as ledgers
from gateway.store.engine import POOL, reading
from tests.ledger.books import books, served, until

MANY = 40  # more than threads that asyncio has


class Slow:
    """Questions that are not answered yet."""

    def __init__(self) -> None:
        self.begun: list[None] = []
        self.go_on = threading.Event()

    def __call__(self, engine: Engine) -> int:
        with reading(engine) as connection:
            self.begun.append(None)
            assert self.go_on.wait(20)
            return len(connection.execute(text("SELECT 1")).all())


def count(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(text("SELECT count(*) FROM requests")).scalar_one())


async def test_an_answer_has_all_that_was_noted_before(tmp_path: Path) -> None:
    async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as ledger:
        for number in range(1, 6):
            await served(ledger, f"r{number}")
            assert await ledger.ask(count) == number


async def test_a_database_that_cannot_be_written_is_asked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.db"
    async with books(f"sqlite:///{path}", tmp_path) as ledger:
        await served(ledger, "r1")
        assert await ledger.ask(count) == 1
        monkeypatch.setattr(ledgers, "CATCH_UP", 0.05)
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            await served(ledger, "r2")
            assert await ledger.ask(count) == 1


async def test_slow_questions_hold_up_nothing_else_and_each_finds_a_connection(tmp_path: Path) -> None:
    slow, loop = Slow(), asyncio.get_running_loop()
    async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as ledger:
        asked = [loop.create_task(ledger.ask(slow)) for _ in range(MANY)]
        try:
            await until(lambda: len(slow.begun) == POOL)
            assert await asyncio.wait_for(asyncio.to_thread(len, "abc"), 5) == 3
            assert len(slow.begun) == POOL
        finally:
            slow.go_on.set()
        assert sum(await asyncio.gather(*asked)) == MANY


async def test_a_question_that_nobody_waits_for_delays_no_end(tmp_path: Path) -> None:
    slow, loop = Slow(), asyncio.get_running_loop()
    try:
        async with books(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path) as ledger:
            asked = [loop.create_task(ledger.ask(slow)) for _ in range(MANY)]
            await until(lambda: len(slow.begun) == POOL)
            for task in asked[:POOL]:
                task.cancel()
        await asyncio.wait_for(asyncio.wait(asked), 5)
        await asyncio.wait_for(loop.shutdown_default_executor(), 5)
        assert len(slow.begun) == POOL
        with pytest.raises(LedgerUnavailable):
            await ledger.ask(slow)
    finally:
        slow.go_on.set()
