"""A gateway whose workers are killed answers on, and its books say what each client was told."""

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.process import BOUND, Running, children, running
from tests.ledger.books import look, until

CONFIG = """
auth: {mode: none}
models: {m: {upstream: {kind: demo, responses: ["one two three four"], delay: 0.005}}}
"""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "count"}]}
CLIENTS = 8
KILLS = 5


class Clients:
    """Ids of requests whose answer began, and of those that a client saw to their end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.whole: list[str] = []
        self.leave = False

    async def one(self, at: Running, streamed: bool) -> None:
        async with httpx.AsyncClient(base_url=at.root, timeout=BOUND) as client:
            while not self.leave:
                try:
                    await self._ask(client, streamed)
                except httpx.TransportError:  # the worker was killed; another takes the next
                    await asyncio.sleep(0.01)

    async def _ask(self, client: httpx.AsyncClient, streamed: bool) -> None:
        request = {**CHAT, "stream": streamed}
        async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
            assert answer.status_code == 200
            self.begun.append(answer.headers["x-request-id"])
            body = await answer.aread()
            if b"[DONE]" in body or not streamed:
                self.whole.append(self.begun[-1])


@pytest.mark.slow
async def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    spool, clients = tmp_path / "gateway.spool", Clients()
    serve = ("serve", "--config", "gateway.yaml", "--port", "0", "--workers", "2")
    with running(*serve, cwd=tmp_path, until="base URL") as at:
        calling = asyncio.gather(*(clients.one(at, number % 2 == 0) for number in range(CLIENTS)))
        for _ in range(KILLS):
            await until(lambda: len(workers(at, spool)) == 2)
            await asyncio.sleep(random.random() / 2)
            os.kill(pid := random.choice(workers(at, spool)), signal.SIGKILL)
            await until(lambda pid=pid: pid not in workers(at, spool))  # type: ignore[misc]
        await until(lambda: len(workers(at, spool)) == 2)
        clients.leave = True
        await calling
        code, _, _ = await asyncio.to_thread(at.stop)
    assert code == 0 and list(spool.iterdir()) == []
    rows = {row["id"]: row for row in look(f"sqlite:///{tmp_path / 'gateway.db'}")}
    assert len(clients.whole) > 10 * KILLS
    assert set(clients.begun) <= set(rows)
    assert all(rows[id]["status"] == 200 and rows[id]["completion_tokens"] == 4 for id in told(clients, rows))
    assert any(row["lost"] for row in rows.values())


def told(clients: Clients, rows: dict[str, dict[str, Any]]) -> list[str]:
    """Those seen to their end; of the last ones before a kill the end may be missing in the books."""
    lost = [id for id in clients.whole if rows[id]["lost"]]
    assert len(lost) <= KILLS * CLIENTS
    return [id for id in clients.whole if not rows[id]["lost"]]


def workers(at: Running, spool: Path) -> list[int]:
    """Processes that serve: those with a spool of their own."""
    owners = {int(path.name.partition("-")[0]) for path in spool.glob("*.lock")}
    return [pid for pid in children(at.process.pid) if pid in owners]
