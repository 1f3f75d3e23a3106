"""One uvicorn server on loopback for all tests of the backend, and a client that speaks to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn

from modal_backend.__main__ import listen
from modal_backend.contract import ASGIApp, Receive, Scope, Send


class Host:
    """A server with many applications, each below a path of its own: one server for each would be slow."""

    def __init__(self) -> None:
        self.url = ""
        self._apps: dict[str, ASGIApp] = {}

    def serve(self, app: ASGIApp) -> str:
        name = f"app{len(self._apps)}"
        self._apps[name] = app
        return f"{self.url}/{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, name, path = (scope["path"] + "/").split("/", 2)
        await self._apps[name]({**scope, "path": "/" + path.removesuffix("/")}, receive, send)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@pytest.fixture(scope="session")
async def host(anyio_backend: str) -> AsyncIterator[Host]:
    apps = Host()
    server = _Server(uvicorn.Config(apps, lifespan="off", ws="none", log_config=None))
    listening = listen("127.0.0.1", 0)
    apps.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listening]))
        await server.ready.wait()
        yield apps
        server.should_exit = True


@pytest.fixture(scope="session")
async def client(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as speaking:
        yield speaking


class Wire:
    """A connection held by hand: it sends one request, reads as it likes, and leaves when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def post(cls, url: str, fields: dict[str, Any]) -> Wire:
        return await cls.send(url, json.dumps(fields).encode())

    @classmethod
    async def send(cls, url: str, body: bytes, length: int | None = None) -> Wire:
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        size = len(body) if length is None else length
        head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return cls(reader, writer)

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), 30)

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture(scope="session")
def wire() -> type[Wire]:
    return Wire
