"""A key that ends: who hears of it, how soon, what becomes of what it runs; with and without the store."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from gateway.keys.key import Grant, new_secret
from gateway.keys.key_store import KeyStore
from gateway.store.config import Store
from gateway.store.engine import open_engine, writing
from gateway.store.tables import keys
from tests.cli.process import children
from tests.keys.gate import CHAT, OWN, Gate, calling, configured, gate, serving
from tests.serve.house import BOUND, Visit, soon
from tests.services import Server, new_database, postgres

TALK = {"messages": CHAT["messages"]}
DEFAULT = Store().revocation_poll
REACHES = 1.0  # seconds in which every gateway knows that a key was revoked
ENDS = 5.0  # seconds in which its streams end
TURNS = 3  # that are tried: a busy machine may hold up one


@contextmanager
def elsewhere(folder: Path, url: str = "sqlite:///gateway.db") -> Iterator[KeyStore]:
    """The store from another process's view, as the command line has it."""
    with closing(KeyStore(SecretStr(url), folder)) as key_store:
        yield key_store


class Endless:
    """A container that begins an answer and goes on when it is told to."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.visits: list[Visit] = []
        self.left = asyncio.Event()  # the gateway closed a connection

    async def __call__(self, visit: Visit) -> None:
        self.visits.append(visit)
        if not visit.json.get("stream"):
            await self._until(visit)
            return
        await visit.start_stream()
        await visit.event({"prompt": "one "})
        await self._until(visit)
        await visit.event({"prompt": "two"})
        await visit.event({"prompt": "", "finish_reason": "stop"})
        await visit.event("[DONE]")
        await visit.end_stream()

    async def _until(self, visit: Visit) -> None:
        """Wait for the word, or for the gateway to hang up."""
        loop = asyncio.get_running_loop()
        either = loop.create_task(self.end.wait()), loop.create_task(visit.until_closed())
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for task in either:
            task.cancel()
        await asyncio.wait(either)
        if not self.end.is_set():
            self.left.set()
            raise ConnectionResetError


class Stream:
    """An open stream, and what it says until its end."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.said = ""
        self.cut = False
        self._pieces = answer.aiter_text()

    async def until(self, text: str) -> None:
        while text not in self.said:
            self.said += await anext(self._pieces)

    async def rest(self) -> None:
        try:
            async for piece in self._pieces:
                self.said += piece
        except httpx.RemoteProtocolError:
            self.cut = True


@asynccontextmanager
async def streaming(
    here: Gate, key: str, path: str = "/v1/chat/completions", **body: Any
) -> AsyncIterator[Stream]:
    """A stream whose first words have come."""
    asked, headers = {"model": "m", "stream": True, **(body or TALK)}, {"authorization": f"Bearer {key}"}
    async with here.client.stream("POST", path, json=asked, headers=headers) as answer:
        stream = Stream(answer)
        await soon(stream.until("one "))
        yield stream


async def refused_after(here: Gate, key: str) -> float:
    """The time from now until this key is refused."""
    began = time.monotonic()
    while (answer := await here.ask(key)).status_code == 200:
        assert time.monotonic() - began < BOUND
        await asyncio.sleep(0.02)
    assert answer.status_code == 401
    return time.monotonic() - began


# --- how soon ---


async def test_a_key_that_is_revoked_elsewhere_is_refused_within_a_second(tmp_path: Path) -> None:
    """Twenty keys that are in use, revoked one after the other at all points between two looks."""
    with elsewhere(tmp_path) as key_store:
        async with gate(tmp_path, store={"revocation_poll": DEFAULT}) as here:
            for turn in range(TURNS):
                took = await revoked_in_turn(
                    key_store, here, [f"key {turn} {number}" for number in range(20)]
                )
                if max(took) < REACHES:
                    break
            assert (await here.ask(OWN)).status_code == 200
    assert len(took) == 20
    assert max(took) < REACHES


async def revoked_in_turn(key_store: KeyStore, here: Gate, names: Sequence[str]) -> list[float]:
    """How long each of these keys opened the door after it was revoked."""
    took: list[float] = []
    secrets = {name: (await here.new(name))[1] for name in names}

    async def revoked(name: str) -> None:
        await asyncio.to_thread(key_store.revoke, name)
        took.append(await refused_after(here, secrets[name]))

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(revoked(name))
            await asyncio.sleep(DEFAULT * 3 / len(names))
    return took


async def test_two_gateways_on_one_store_hear_of_each_other(tmp_path: Path) -> None:
    async with gate(tmp_path, Endless(), store={"revocation_poll": DEFAULT}) as one:
        config = configured(one.container.port, DEFAULT, store={"revocation_poll": DEFAULT, "spool": "other"})
        async with serving(config, tmp_path) as port, calling(port) as client:
            two = Gate(port, one.container, client, tmp_path)
            id, secret = await one.new("ann")
            async with streaming(two, secret) as stream:  # unknown there until it is used
                began = time.monotonic()
                assert (await one.admin("DELETE", f"/{id}")).status_code == 200
                assert (await one.ask(secret)).status_code == 401  # at once where it was done
                assert await refused_after(two, secret) < REACHES
                await soon(stream.rest())
                assert time.monotonic() - began < ENDS
                assert "key_revoked" in stream.said and stream.cut


# --- what it runs ---

STREAMS = [
    ("/v1/chat/completions", {}, '"code":"key_revoked"'),
    ("/v1/completions", {"prompt": "hi"}, '"code":"key_revoked"'),
    ("/v1/prompt/m", {"prompt": "hi"}, '"code":"key_revoked"'),
    ("/v1/messages", {**TALK, "max_tokens": 9}, '"type":"authentication_error"'),
    ("/v1/responses", {"input": "hi"}, "This API key was revoked."),
]


@pytest.mark.parametrize(("path", "body", "told"), STREAMS, ids=lambda value: str(value)[:24])
async def test_the_streams_of_a_revoked_key_end_with_the_error_and_no_others(
    tmp_path: Path, path: str, body: dict[str, Any], told: str
) -> None:
    behind = Endless()
    async with gate(tmp_path, behind) as here:
        id, secret = await here.new("ann")
        _, other = await here.new("bob")
        async with streaming(here, other) as kept, streaming(here, secret, path, **body) as ended:
            began = time.monotonic()
            await here.admin("DELETE", f"/{id}")
            await soon(ended.rest())
            assert time.monotonic() - began < ENDS
            assert ended.cut and told in ended.said and "[DONE]" not in ended.said
            await soon(behind.left.wait())  # the container's connection is closed with it
            behind.end.set()
            await soon(kept.rest())
            assert not kept.cut and "two" in kept.said and kept.said.endswith("data: [DONE]\n\n")


WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", TALK),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/prompt/m", {"prompt": "hi"}),
    ("/v1/messages", {**TALK, "max_tokens": 9}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/embeddings", {"input": "hi"}),
]


async def test_a_whole_answer_that_is_waited_for_becomes_a_401(tmp_path: Path) -> None:
    behind = Endless()
    async with gate(tmp_path, behind) as here:
        _, secret = await here.new("ann")
        _, other = await here.new("bob")
        async with asyncio.TaskGroup() as group:
            headers = {"authorization": f"Bearer {secret}"}
            asked = [
                group.create_task(here.client.post(path, json={"model": "m", **body}, headers=headers))
                for path, body in WHOLE
            ]
            kept = group.create_task(here.ask(other, stream=True))
            while len(behind.visits) < len(WHOLE) + 1:  # noqa: ASYNC110 # the container tells nobody
                await asyncio.sleep(0.001)
            await here.admin("DELETE", "/ann")
            for task in asked:
                answer = await soon(task)
                assert answer.status_code == 401
                assert "key_revoked" in answer.text or "authentication_error" in answer.text
            assert not kept.done()
            behind.end.set()
        assert kept.result().text.endswith("[DONE]\n\n")


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (
            lambda key_store: key_store.change("ann", {"limits": {"concurrent": 5}, "models": ["other"]}),
            False,
        ),
        (lambda key_store: key_store.change("ann", {"name": "anne", "team": "x"}), False),
        (lambda key_store: key_store.change("ann", {"disabled": True}), True),
        (lambda key_store: key_store.rotate("ann", new_secret()), True),
        (lambda key_store: key_store.revoke("ann"), True),
    ],
    ids=["limits", "name", "disabled", "rotated", "revoked"],
)
async def test_streams_end_when_their_key_opens_nothing_and_not_when_it_changes(
    tmp_path: Path, change: Callable[[KeyStore], object], ends: bool
) -> None:
    behind = Endless()
    with elsewhere(tmp_path) as key_store:
        async with gate(tmp_path, behind, store={"revocation_poll": 0.01}) as here:
            _, secret = await here.new("ann")
            async with streaming(here, secret) as stream:
                await asyncio.to_thread(change, key_store)
                key_store.add(Grant(name="later"), later := new_secret())
                await here.ask(
                    later, max_tokens=0
                )  # refused as a request: who knows this key knows the change
                if not ends:
                    behind.end.set()
                await soon(stream.rest())
                assert stream.cut is ends
                assert ("key_revoked" in stream.said) is ends
                assert ("[DONE]" in stream.said) is not ends


# --- without the store ---


async def test_without_its_store_known_keys_go_on_and_unknown_ones_are_no_401(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        _, secret = await here.new("ann")
        with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
            database.execute("ALTER TABLE keys RENAME TO hidden")
            answer = await here.ask(new_secret())
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "keys_unavailable"
            assert answer.headers["retry-after"] == "1"
            assert (await here.ask(secret)).status_code == 200
            assert (await here.ask(OWN)).status_code == 200
            assert (await here.ask("malformed")).status_code == 401
            database.execute("ALTER TABLE hidden RENAME TO keys")
        assert (await here.ask(new_secret())).status_code == 401


async def test_a_store_that_is_set_back_ends_what_it_does_not_have(tmp_path: Path, database_url: str) -> None:
    """As after a backup was restored: a key it has not, one that was revoked since, and new ones."""
    async with gate(tmp_path, Endless(), store={"url": database_url, "revocation_poll": 0.05}) as here:
        id, revoked = await here.new("ann")
        backup = await asyncio.to_thread(_restored, database_url, None)
        await here.admin("DELETE", f"/{id}")
        _, secret = await here.new("bob")
        async with streaming(here, secret) as stream:
            await asyncio.to_thread(_restored, database_url, backup)
            await soon(stream.rest())
            assert stream.cut and "key_revoked" in stream.said
        assert (await here.ask(secret)).status_code == 401
        assert (await here.ask(revoked, max_tokens=0)).status_code == 400
        assert (await here.ask((await here.new("bob"))[1], max_tokens=0)).status_code == 400


def _restored(url: str, rows: Sequence[Any] | None) -> Sequence[Any]:
    """Put these rows in place of the keys; the rows that were there."""
    engine = open_engine(SecretStr(url), Path())
    with writing(engine) as connection:
        found = [dict(row) for row in connection.execute(keys.select()).mappings()]
        if rows is not None:
            connection.execute(keys.delete())
            connection.execute(keys.insert(), rows)
    engine.dispose()
    return found


def _removed(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_keys_end_with_the_file_that_held_them(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "gateway.db"
    async with gate(tmp_path, store={"revocation_poll": 0.05}) as here:
        made = [await here.new(name) for name in ("ann", "bob", "carl")]
        other = tmp_path / "other.db"
        with elsewhere(tmp_path, "sqlite:///other.db") as key_store:
            key_store.add(Grant(name="dora"), new := new_secret())
        _removed(path)
        if replaced:
            os.replace(other, path)
        for _, secret in made:
            began = time.monotonic()
            while (await here.ask(secret)).status_code != 401:
                assert time.monotonic() - began < BOUND
        assert (await here.admin("GET", f"/{made[0][0]}")).status_code == 404
        if not replaced:
            _, new = await here.new("dora")
        assert (await here.ask(new)).status_code == 200


@pytest.mark.database
@pytest.mark.parametrize("silent", [False, True], ids=["stopped", "silent"])
async def test_postgresql_may_be_away_and_come_back(tmp_path: Path, silent: bool) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        url = new_database(server)
        async with gate(tmp_path, store={"url": url, "revocation_poll": 0.1}) as here:
            _, secret = await here.new("ann")
            id, doomed = await here.new("bob")
            await asyncio.to_thread(_away, server, silent)
            answers = await asyncio.gather(*(here.ask(new_secret()) for _ in range(5)))
            assert {answer.status_code for answer in answers} == {503}
            assert {(await here.ask(key)).status_code for key in (secret, OWN, doomed)} == {200}
            assert (await here.ask("malformed")).status_code == 401
            await asyncio.to_thread(_back, server, silent)
            with elsewhere(tmp_path, url) as key_store:
                await asyncio.to_thread(key_store.revoke, id)
            assert await refused_after(here, doomed) < BOUND
            assert (await here.ask(secret)).status_code == 200
            await here.new("carl")


def _away(server: Server, silent: bool) -> None:
    if silent:
        _signal_all(server, signal.SIGSTOP)
    else:
        server.stop()


def _back(server: Server, silent: bool) -> None:
    if silent:
        _signal_all(server, signal.SIGCONT)
    else:
        server.start()


def _signal_all(server: Server, number: int) -> None:
    """To the server and to those of its processes that have connections."""
    assert server.process is not None
    for pid in [server.process.pid, *children(server.process.pid)]:
        os.kill(pid, number)
