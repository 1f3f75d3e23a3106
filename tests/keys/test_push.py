"""Word of changed keys by Redis: how soon others know, and what if Redis is away or says nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from gateway.keys import push
from gateway.keys.push import CHANNEL, listen, tell
from tests.cli.process import run
from tests.keys.gate import SELDOM, Gate, calling, configured, gate, serving
from tests.keys.test_revocation import REACHES, elsewhere, refused_after
from tests.serve.house import soon
from tests.services import Server, redis

pytestmark = pytest.mark.database


@pytest.fixture
def server() -> Iterator[Server]:
    """A Redis of this test's own, which it may stop."""
    with redis() as running:
        yield running


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


async def met(condition: Callable[[], bool]) -> None:
    """Wait for something that another process brings about."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # it tells nobody
            await asyncio.sleep(0.01)


async def heard_by(server: Server, listeners: int) -> None:
    """Wait until so many gateways listen."""
    with Redis.from_url(url(server.port)) as client:
        await met(lambda: client.pubsub_numsub(CHANNEL)[0][1] == listeners)


@asynccontextmanager
async def two_gateways(
    folder: Path, server: Server, poll: float = SELDOM
) -> AsyncIterator[tuple[Gate, Gate]]:
    """Both on one store and one Redis."""
    shared = {"redis": {"url": url(server.port)}}
    async with gate(folder, store={"revocation_poll": poll}, **shared) as one:
        store = {"revocation_poll": poll, "spool": "other"}
        config = configured(one.container.port, poll, store=store, **shared)
        async with serving(config, folder) as port, calling(port) as client:
            await heard_by(server, 2)
            yield one, Gate(port, one.container, client, folder)


async def known(here: Gate, name: str, **grant: Any) -> str:
    """A key that was used there, so that it is no longer looked for."""
    _, secret = await here.new(name, **grant)
    assert (await here.ask(secret)).status_code == 200
    return secret


# --- two gateways that look for themselves only every half minute ---


async def test_a_change_on_one_gateway_is_known_on_the_other_within_a_second(
    tmp_path: Path, server: Server
) -> None:
    async with two_gateways(tmp_path, server) as (one, two):
        for number in range(5):
            secret = await known(two, f"key {number}")
            assert (await one.ask(secret)).status_code == 200
            await one.admin("DELETE", f"/key {number}")
            assert await refused_after(two, secret) < REACHES


async def test_a_change_by_the_command_line_is_known_within_a_second(tmp_path: Path, server: Server) -> None:
    async with two_gateways(tmp_path, server) as (one, two):
        secret = await known(two, "ann")
        config = configured(one.container.port, redis={"url": url(server.port)})
        (tmp_path / "gateway.yaml").write_text(json.dumps(config))
        command = ("keys", "revoke", "ann", "--config", "gateway.yaml")
        revoked = await asyncio.to_thread(run, *command, cwd=tmp_path)
        assert (revoked.returncode, revoked.stderr) == (0, "")
        assert await refused_after(two, secret) < REACHES


async def test_redis_may_be_killed_and_come_back(tmp_path: Path, server: Server) -> None:
    async with two_gateways(tmp_path, server) as (one, two):
        missed, later = await known(two, "missed"), await known(two, "later")
        server.end = signal.SIGKILL
        server.stop()
        assert (await one.admin("DELETE", "/missed")).status_code == 200
        assert (await one.ask(missed)).status_code == 401
        assert (await two.ask(missed)).status_code == 200  # it heard nothing, and looks seldom
        server.start()
        await refused_after(two, missed)  # it looks when it hears again
        await heard_by(server, 2)
        await one.admin("DELETE", "/later")
        assert await refused_after(two, later) < REACHES


async def test_while_redis_is_silent_gateways_look_for_themselves(tmp_path: Path, server: Server) -> None:
    async with two_gateways(tmp_path, server, poll=0.3) as (one, two):
        secret = await known(two, "ann")
        with elsewhere(tmp_path) as key_store:
            server.signal(signal.SIGSTOP)
            began = time.monotonic()
            await asyncio.to_thread(key_store.revoke, "ann")
            await asyncio.gather(refused_after(one, secret), refused_after(two, secret))
            assert time.monotonic() - began < REACHES


async def test_nobody_waits_long_to_tell_a_silent_redis(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.to_thread(tell, SecretStr(url(server.port)))
    assert time.monotonic() - began < 2 * push.PATIENCE
    assert "Redis does not answer" in caplog.text


# --- a line that says nothing any more ---


class Line:
    """A way to Redis that can fall silent without an end, as behind a firewall that forgets."""

    def __init__(self, port: int) -> None:
        self.lines = 0  # that were opened
        self.silent = 0  # of them, those that carry nothing
        self.asked = 0  # how often it was asked whether a line stands
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        number = self.lines
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with suppress(ConnectionError):
            await asyncio.gather(
                self._carry(number, reader, far_writer), self._carry(number, far_reader, writer)
            )

    async def _carry(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                self.asked += data.count(b"PING")
                if number > self.silent:
                    writer.write(data)
        finally:
            writer.close()


async def test_a_silent_line_is_given_up_and_made_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ALIVE", 0.1)
    monkeypatch.setattr(push, "PATIENCE", 0.2)
    looked = asyncio.Queue[None]()

    async def look() -> None:
        looked.put_nowait(None)

    line = Line(server.port)
    async with await asyncio.start_server(line, "127.0.0.1", 0) as way:
        port = way.sockets[0].getsockname()[1]
        listening = asyncio.get_running_loop().create_task(listen(SecretStr(url(port)), look))
        try:
            await soon(looked.get())  # it began to listen
            await asyncio.to_thread(tell, SecretStr(url(server.port)))
            await soon(looked.get())
            line.silent = line.lines
            await asyncio.to_thread(tell, SecretStr(url(server.port)))
            await soon(looked.get())  # over another line
            assert line.lines > line.silent
            stands, enough = line.lines, line.asked + 5
            await met(lambda: line.asked >= enough)
            await asyncio.to_thread(tell, SecretStr(url(server.port)))
            await soon(looked.get())
            assert line.lines == stands  # a quiet line that answers stays
        finally:
            listening.cancel()
            await asyncio.wait({listening})
