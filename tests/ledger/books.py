"""A ledger to try things with: requests, the ledger of this process, and what its database holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, select

from gateway.core.events import Usage
from gateway.ledger import Intent, Ledger
from gateway.record import Record
from gateway.store.config import Store
from gateway.store.engine import open_engine, reading
from gateway.store.tables import days, hours, requests

NOON = 1_793_534_400.0  # 2026-11-01T12:00:00Z
FOREVER = 36_500  # days: what tests write keeps its date, whenever they run
BOUND = 20.0  # seconds until a test gives up waiting


def intent(id: str, at: float = NOON, **other: Any) -> Intent:
    values = {"key_id": "k1", "key": "anna", "team": None, "asked": "gpt-4", "model": "m", "upstream": "u"}
    return Intent(id, at, **{**values, "route": "chat", "streamed": True, **other})


def record(id: str, at: float = NOON, **other: Any) -> Record:
    """A request of 10 and 5 tokens, 2 s of GPU and a thousandth of a dollar."""
    values: dict[str, Any] = {
        "request_id": id, "route": "chat", "key": "anna", "asked": "gpt-4", "model": "m", "upstream": "u",
        "status": 200, "code": None, "streamed": True, "started": 100.0, "first_event": 100.25,
        "finished": 101.5, "usage": Usage(10, 5), "finish": "stop", "time": at, "key_id": "k1",
        "gpu": 2_000_000_000, "gpu_source": "reported", "cost": 1_000_000,
    }  # fmt: skip
    return Record(**{**values, **other})


def store(url: str, tmp_path: Path, **other: Any) -> Store:
    values = {"url": url, "spool": str(tmp_path / "spool"), "fsync": "never", "retain_days": FOREVER}
    return Store(**{**values, **other})


@asynccontextmanager
async def books(url: str, tmp_path: Path, **other: Any) -> AsyncIterator[Ledger]:
    """The ledger of this process, running."""
    ledger = Ledger(store(url, tmp_path, **other), tmp_path)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def served(ledger: Ledger, id: str, at: float = NOON, **other: Any) -> None:
    """One request from its beginning to its end."""
    known = {name: value for name, value in other.items() if name in Intent._fields}
    await ledger.begin(intent(id, at, **known))
    ledger.observe(record(id, at, **other))


def look(url: str, table: Table = requests) -> list[dict[str, Any]]:
    """All rows of a table."""
    engine = database(url)
    try:
        with reading(engine) as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]
    finally:
        engine.dispose()


def ids(url: str) -> list[str]:
    return sorted(row["id"] for row in look(url))


def database(url: str) -> Engine:
    return open_engine(Store(url=url).url, Path())


def totals(url: str) -> list[tuple[int, ...]]:
    """The sums of hours and of days."""
    names = ("requests", "errors", "prompt_tokens", "completion_tokens", "gpu_ns", "cost")
    return [tuple(sum(row[name] for row in look(url, table)) for name in names) for table in (hours, days)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread or process brings about."""
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)
