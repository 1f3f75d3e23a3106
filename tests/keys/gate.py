"""A gateway with keys and a store of its own in front of a scripted container, all on loopback.

Rule: looks at the store for changes of keys are far apart unless a test asks for them, so that what a test
sees was caused by what it did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, event

from gateway.app import Site, application
from gateway.settings import settings_from
from tests.serve.house import BOUND, Container, Script, Visit, container, listening, settings

ADMIN = "admin-key-of-this-test"
OWN = "sk-of-the-configuration"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SELDOM = 30.0  # seconds between two looks at the store


async def hello(visit: Visit) -> None:
    await visit.answer({"prompt": "hello", "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


@dataclass
class Gate:
    """``client`` calls the gateway, without a key unless one is given."""

    port: int
    container: Container
    client: httpx.AsyncClient
    folder: Path

    async def admin(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        """A request to the admin API of keys."""
        headers = {"x-api-key": more.pop("key", ADMIN)}
        return await self.client.request(method, f"/admin/keys{path}", headers=headers, **more)

    async def new(self, name: str = "ann", **grant: Any) -> tuple[str, str]:
        """A key of the store: its id and its secret."""
        made = await self.admin("POST", json={"name": name, **grant})
        assert made.status_code == 201, made.text
        return made.json()["id"], made.json()["key"]

    async def ask(self, key: str, **fields: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await self.client.post("/v1/chat/completions", json={**CHAT, **fields}, headers=headers)

    @asynccontextmanager
    async def stream(self, key: str, **fields: Any) -> AsyncIterator[httpx.Response]:
        headers, body = {"authorization": f"Bearer {key}"}, {**CHAT, "stream": True, **fields}
        async with self.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            yield answer


def configured(port: int, poll: float = SELDOM, **top: Any) -> dict[str, Any]:
    """A configuration with one key, an admin key and a model ``m`` at this port."""
    return {
        **settings(port),
        "auth": {"keys": [{"name": "own", "key": OWN}]},
        "admin": {"key": ADMIN},
        "store": {"revocation_poll": poll},
        **top,
    }


@asynccontextmanager
async def serving(config: Mapping[str, Any], folder: Path, *, keeps: bool = True) -> AsyncIterator[int]:
    """A gateway, which has its store if it ``keeps`` anything; its port."""
    site = Site(folder, loopback=True, store=keeps)
    async with listening(application(settings_from(config, {}), site)) as port:
        yield port


@asynccontextmanager
async def gate(
    folder: Path, script: Script = hello, *, keeps: bool = True, **top: Any
) -> AsyncIterator[Gate]:
    """``top`` replaces parts of the configuration; without ``keeps`` there is no store."""
    async with (
        container(script) as behind,
        serving(configured(behind.port, **top), folder, keeps=keeps) as port,
        calling(port) as client,
    ):
        yield Gate(port, behind, client, folder)


def calling(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND)


@contextmanager
def looks() -> Iterator[list[str]]:
    """What the database of keys is asked inside."""
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "keys" in statement:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def kept_in(folder: Path) -> bytes:
    """All that lies in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
