"""Everything that observes requests, made once at start: metrics, the log of requests, spans, lag.

Rule: wiring only; what is not wanted is not there, and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.record import Record
from gateway.telemetry import log
from gateway.telemetry.families import Family, exposition
from gateway.telemetry.lag import lag
from gateway.telemetry.lines import Style, as_json, as_text
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.requests import RequestLog, to_descriptor
from gateway.telemetry.trace import Spans

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Tracing
    from gateway.telemetry.workers import Workers

STANDARD_ERROR = 2  # by its number: Python's own object is written to by others

_LOGGER = logging.getLogger("gateway")


@dataclass(slots=True, frozen=True)
class Telemetry:
    """``workers`` and ``tracing`` are None where there are none."""

    metrics: Metrics
    requests: RequestLog | None = None
    workers: Workers | None = None
    tracing: Tracing | None = None

    @property
    def observers(self) -> tuple[Callable[[Record], None], ...]:
        """Who hears of each request's end."""
        return self.metrics.observe, self.requests.observe if self.requests is not None else log.observe

    async def exposition(self) -> bytes:
        """What Prometheus scrapes, of all workers."""
        if self.workers is not None:
            return await self.workers.exposition()
        return await asyncio.to_thread(exposition, self.metrics.families())

    async def sums(self) -> list[Family]:
        """The few that a glance at all models and workers needs, summed up as far as that costs nothing."""
        return await self.workers.sums() if self.workers is not None else self.metrics.sums()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be entered first and left last, so that the last request is observed too."""
        async with AsyncExitStack() as stack:
            for each in (self.requests, self.workers, self.tracing):
                if each is not None:
                    await stack.enter_async_context(each.running())
            look = asyncio.get_running_loop().create_task(lag(self.metrics.lag.observe))
            try:
                yield
            finally:
                look.cancel()


def telemetry(style: Style | None, shared: Path | None, spans: Spans) -> Telemetry:
    """``style`` of a line for each request, None: failures alone; ``shared`` is a folder of all workers."""
    metrics = Metrics()
    requests = None
    if style is not None:
        render = as_json if style.json else partial(as_text, color=style.color)
        requests = RequestLog(render, to_descriptor(STANDARD_ERROR))
    return Telemetry(metrics, requests, _workers(shared, metrics), _tracing(spans))


def _workers(shared: Path | None, metrics: Metrics) -> Workers | None:
    if shared is None:
        return None
    from gateway.telemetry.workers import Workers  # not every system has what it needs

    return Workers(shared, metrics.families, metrics.sums)


def _tracing(spans: Spans) -> Tracing | None:
    if spans.endpoint is None:
        return None
    try:
        from gateway.telemetry.tracing import Tracing
    except ModuleNotFoundError:  # the address may be meant for other programs
        _LOGGER.warning("no spans are made: they need pip install 'modal-gateway[otel]'")
        return None
    return Tracing(spans)
