"""The simulated edge in the test's own event loop, on a real socket, in front of an app that a test scripts.

Rule: nothing waits for time to pass; ``until`` wakes at every line of the journal, and is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from uvicorn.server import ServerState

from gateway.core import modal
from gateway.http.server import listen
from gateway.simulate.call import app_at
from gateway.simulate.edge import Edge
from gateway.simulate.journal import Counts, Journal, Line
from gateway.simulate.options import Boot, Options
from gateway.simulate.server import Resettable, configured
from gateway.upstreams.client import Client, Origin
from tests.upstreams.fake import soon

AT_ONCE = Boot(0.0, 0.0)
LONG = Boot(3600.0, 3600.0)  # a boot that no test sees the end of


class Simulated:
    """A running edge: its address, and what happened there."""

    def __init__(self, app_url: str, options: Options) -> None:
        self.lines: list[Line] = []
        self._moved = asyncio.Event()
        journal = Journal(self._write, asyncio.get_running_loop().time)
        self.counts: Counts = journal.counts
        self.edge = Edge(app_at(app_url), options, journal)
        self.url = ""

    @property
    def state(self) -> dict[str, Any]:
        return self.edge.state()

    async def until(self, reached: Callable[[], object]) -> None:
        """Wait until this is true; it is asked after every line of the journal."""

        async def wait() -> None:
            while not reached():
                self._moved.clear()
                await self._moved.wait()

        await soon(wait())

    def _write(self, line: Line) -> None:
        self.lines.append(line)
        asyncio.get_running_loop().call_soon(self._moved.set)  # once the step that wrote it is done


@asynccontextmanager
async def simulated(app_url: str, options: Options) -> AsyncIterator[Simulated]:
    """Serve the edge in front of ``app_url``; at the end its connections are broken.

    uvicorn's own server looks every tenth of a second whether it should end, which many tests would wait for.
    """
    made = Simulated(app_url, options)
    config = configured(made.edge)
    config.load()
    state, lifespan = ServerState(), config.lifespan_class(config)
    await lifespan.startup()
    loop = asyncio.get_running_loop()
    with listen("127.0.0.1", 0) as sock:
        made.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = await loop.create_server(
            lambda: Resettable(config=config, server_state=state, app_state={}), sock=sock, backlog=1000
        )
        try:
            yield made
        finally:
            server.close()
            for connection in list(state.connections):
                connection.transport.abort()
            if state.tasks:
                await soon(asyncio.wait(state.tasks))
            await lifespan.shutdown()


async def visit(made: Simulated, body: bytes) -> tuple[int, bytes]:
    """One request over a connection of its own, followed to its result; for crowds, as it costs little."""
    http = Client(Origin("127.0.0.1", urlsplit(made.url).port or 0), {}, 10.0)
    try:
        answer = await http.request("POST", "/", {}, body)
        while answer.status == modal.POLL_STATUS:
            there = urlsplit(answer.headers["location"])
            answer.close()
            answer = await http.request("GET", f"{there.path}?{there.query}", {})
        parts = []
        while part := await answer.read():
            parts.append(part)
        return answer.status, b"".join(parts)
    finally:
        http.close()


def client(made: Simulated) -> httpx.AsyncClient:
    """Follows no redirects; many connections; bounded waits."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=made.url, limits=limits, timeout=10.0, trust_env=False)
