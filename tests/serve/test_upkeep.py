"""What goes on beside the requests goes on, whatever fails of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gateway import lifespan as upkeep
from gateway.app import Site, application
from gateway.settings import settings_from
from gateway.world import World
from tests.ledger.books import look, until
from tests.serve.house import House, container, listening, soon
from tests.serve.test_chat import post
from tests.serve.test_reload import RELOADED, changing, models, open_door, speak
from tests.serve.test_warm import ALWAYS

MINUTES = 600.0  # longer than an idle container stays


@dataclass
class Strange:
    """A world whose clock can be set, and that can stop working."""

    ahead: float = 0.0
    broken: bool = False
    ids: Iterator[int] = field(default_factory=count)

    def monotonic(self) -> float:
        if self.broken:
            raise RuntimeError("on purpose")
        return time.monotonic() + self.ahead

    def new_id(self) -> str:
        if self.broken:
            raise RuntimeError("on purpose")
        return f"{next(self.ids):024x}"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores that hardly pause."""
    monkeypatch.setattr(upkeep, "BOOK", 0.01)
    monkeypatch.setattr(upkeep, "AGAIN", 0.01)


@pytest.mark.usefixtures("hurried")
async def test_a_chore_that_fails_again_and_again_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, gone, over = loop.time, 0.0, asyncio.Event()
    monkeypatch.setattr(loop, "time", lambda: real() + gone)
    turns = iter((0.0, 0.0, upkeep.WELL, 0.0))

    async def chore() -> None:
        nonlocal gone
        if (took := next(turns, None)) is None:
            over.set()
            await asyncio.Event().wait()
        else:
            gone += took
            raise ValueError("on purpose")

    async with asyncio.TaskGroup() as group:
        going = group.create_task(upkeep._kept_up("a chore", chore))
        await soon(over.wait(), 200.0)
        going.cancel()
    assert [record.getMessage() for record in caplog.records] == ["a chore failed; it begins again"] * 2


@pytest.mark.usefixtures("hurried")
async def test_a_chore_that_fails_begins_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange, url = Strange(), f"sqlite:///{tmp_path / 'books.db'}"
    world = World(time.time, strange.monotonic, strange.new_id)

    def rows(kind: str) -> int:
        return sum(row["kind"] == kind for row in look(url))

    async def serve(at: House) -> None:
        """One more request, until all is done for it."""
        before = rows("request")
        assert (await post(at)).status_code == 200
        await until(lambda: rows("request") > before)

    async with container(speak) as behind:
        config = settings_from({**open_door(m=behind.port), "store": {"url": url}}, {})
        site = Site(tmp_path, loopback=True, store=True)
        async with listening(application(config, site, world)) as port:
            at = House(port, behind)
            await serve(at)
            strange.broken = True
            await until(lambda: caplog.text.count("idle time of m could not be booked") > 1)
            strange.broken = False
            for booked in (1, 2):
                strange.ahead += MINUTES
                await until(lambda booked=booked: rows("idle") == booked)  # type: ignore[misc]
                await serve(at)
        assert rows("idle") == 3  # at the end, what is not over


@contextmanager
def no_hours() -> Iterator[None]:
    """No schedule of a model can begin inside."""
    loop = asyncio.get_running_loop()

    def made(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Future[Any]:
        if coroutine.__qualname__ == "Schedule.run":
            coroutine.close()
            raise RuntimeError("on purpose")
        return asyncio.Task(coroutine, loop=loop, **more)

    loop.set_task_factory(made)  # type: ignore[arg-type]
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def test_a_reload_says_that_it_was_one_though_hours_cannot_be_kept(tmp_path: Path) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        at, wanted = gateway.at(behind), models(n={"port": behind.port, "warm": ALWAYS})
        with no_hours():
            assert (await gateway.become(models=wanted)).startswith("models.*.warm: ")
            assert await asyncio.wait_for(gateway.outcomes.get(), 20) == RELOADED
            assert (await post(at, model="m")).status_code == 404
            assert (await post(at, model="n")).status_code == 200
        before = len(behind.visits)
        assert await gateway.become() == RELOADED
        await until(lambda: len(behind.visits) > before)  # its hours are kept from now on
