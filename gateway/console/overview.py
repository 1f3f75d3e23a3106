"""What the gateway is doing: the last minutes, today, and since the start.

Rule: one process of all that serve takes a sample each few seconds, and the others read it where they can; a
request pays nothing for it. Times are whole steps since 1970, so that a process that takes over goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway import __version__
from gateway.console.history import STEP, History, Point, Sample, Totals, summed, totals
from gateway.core.errors import LedgerUnavailable
from gateway.http.exchange import read_head
from gateway.ledger.ledger import Ledger
from gateway.ledger.pages import Admit
from gateway.ledger.rows import DAY
from gateway.serve.service import Service
from gateway.telemetry.families import Family

if TYPE_CHECKING:
    from gateway.console.history_file import HistoryFile

AFTER = 0.05  # seconds behind a whole step: who wakes a little early would take a sample of nothing

Sums: TypeAlias = Callable[[], Awaitable[list[Family]]]
"""Of all processes that serve at this address, without a sample for each model."""


class Watch:
    """Samples of ``sums``; ``shared`` is a folder of all workers, None where there is one alone."""

    def __init__(self, sums: Sums, time: Callable[[], float], shared: Path | None) -> None:
        self._sums = sums
        self._time = time
        self._file = _file(shared)
        self._history = History()

    async def keep(self) -> None:
        """Take a sample each ``STEP`` seconds; until cancelled."""
        try:
            while True:
                await self.sample()
                await asyncio.sleep(STEP - self._time() % STEP + AFTER)
        finally:
            if self._file is not None:
                self._file.leave()

    async def sample(self) -> None:
        """Take one, unless another worker does."""
        file = self._file
        if file is not None and not file.held:
            if not file.take():
                return
            self._history = await asyncio.to_thread(file.read)
        self._history.add(Sample(self._time(), totals(await self._sums())))
        if file is not None:
            await asyncio.to_thread(file.write, self._history)

    async def look(self) -> tuple[list[Point], Totals]:
        """The points so far, and what everything has come to by now."""
        history = self._history
        if self._file is not None and not self._file.held:
            history = await asyncio.to_thread(self._file.read)
        return history.points, totals(await self._sums())


def _file(folder: Path | None) -> HistoryFile | None:
    if folder is None:
        return None
    from gateway.console.history_file import HistoryFile  # not every system has what it needs

    return HistoryFile(folder)


@dataclass(slots=True, frozen=True)
class Process:
    """``started`` is of the monotonic clock."""

    started: float
    workers: int


class OverviewPage:
    """The route's handler; ``ledger`` is None where nothing is kept."""

    def __init__(
        self, admit: Admit, service: Service, process: Process, watch: Watch, ledger: Ledger | None
    ) -> None:
        self._admit = admit
        self._service = service
        self._world = service.world
        self._process = process
        self._watch = watch
        self._ledger = ledger

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/admin/overview", self.overview)

    async def overview(self, request: Request) -> Response:
        """The last 15 minutes in steps of 5 seconds, and sums of today and since the start."""
        await self._admit(read_head(request.scope))
        points, now = await self._watch.look()
        told = {
            "object": "overview",
            "now": round(self._world.time(), 3),
            "step": STEP,
            "gateway": {
                "version": __version__,
                "uptime_seconds": round(self._world.monotonic() - self._process.started, 3),
                "workers": self._process.workers,
            },
            "live": {
                "in_flight": round(now.in_flight),
                "streams": round(now.streams),
                "containers": round(now.containers, 3),
            },
            "points": points,
            "today": await self._today(),
            "total": self._unless_priceless(summed(now)),
        }
        return Response(orjson.dumps(told), media_type="application/json")

    async def _today(self) -> dict[str, Any] | None:
        """What the ledger has since midnight UTC; None where there is none, or it does not answer."""
        if self._ledger is None:
            return None
        from gateway.ledger.queries import Asked, usage

        asked = Asked(int(self._world.time() * 1000) // DAY * DAY)
        try:
            lines = await self._ledger.ask(lambda engine: usage(engine, "day", asked))
        except LedgerUnavailable:
            return None
        names = ("requests", "errors", "prompt_tokens", "completion_tokens")
        sums = {name: sum(getattr(line, name) for line in lines) for name in names}
        gpu, cost = (sum(getattr(line, name) for line in lines) / 10**9 for name in ("gpu_ns", "cost"))
        return self._unless_priceless({**sums, "gpu_seconds": gpu, "cost": cost})

    def _unless_priceless(self, sums: dict[str, Any]) -> dict[str, Any]:
        """No cost where no model has a price: nothing is not what it was worth."""
        return sums if sums["cost"] or self._service.routes.priced else {**sums, "cost": None}
