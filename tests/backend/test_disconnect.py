"""A client that leaves ends its request, wherever it was."""

from __future__ import annotations

import asyncio

import pytest

from modal_backend.contract import contract_app
from modal_backend.engine import Piece
from tests.backend.conftest import Host, Wire
from tests.backend.scripted import Embedder, Scripted


async def happens(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 30)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_piece_closes_the_engine(
    host: Host, wire: type[Wire], stream: bool
) -> None:
    engine = Scripted(asyncio.Event())
    held = await wire.post(host.serve(contract_app(engine)), {"prompt": "p", "stream": stream})
    await happens(engine.started)
    await held.leave()
    await happens(engine.closed)


async def test_leaving_a_stream_closes_the_engine(host: Host, wire: type[Wire]) -> None:
    engine = Scripted(Piece("one"), asyncio.Event())
    held = await wire.post(host.serve(contract_app(engine)), {"prompt": "p", "stream": True})
    await held.until(b"one")
    await held.leave()
    await happens(engine.closed)


async def test_leaving_a_whole_answer_that_has_begun_closes_the_engine(host: Host, wire: type[Wire]) -> None:
    begun = asyncio.Event()

    class Begun(Scripted):
        async def generate(self, request: object) -> object:  # type: ignore[override]
            try:
                yield Piece("one")
                begun.set()
                await asyncio.Event().wait()
            finally:
                self.closed.set()

    engine = Begun()
    held = await wire.post(host.serve(contract_app(engine)), {"prompt": "p"})
    await happens(begun)
    await held.leave()
    await happens(engine.closed)


async def test_leaving_stops_an_engine_that_never_pauses_for_long(host: Host, wire: type[Wire]) -> None:
    class Endless(Scripted):
        async def generate(self, request: object) -> object:  # type: ignore[override]
            try:
                while True:
                    await asyncio.sleep(0)
                    yield Piece("more ")
            finally:
                self.closed.set()

    engine = Endless()
    held = await wire.post(host.serve(contract_app(engine)), {"prompt": "p", "stream": True})
    await held.until(b"more")
    await held.leave()
    await happens(engine.closed)


async def test_leaving_ends_an_embedding(host: Host, wire: type[Wire]) -> None:
    engine = Embedder(asyncio.Event())
    held = await wire.post(host.serve(contract_app(engine)), {"input": ["a"]})
    await happens(engine.started)
    await held.leave()
    await happens(engine.closed)


async def test_leaving_with_half_a_body_asks_no_engine(host: Host, wire: type[Wire]) -> None:
    engine = Scripted()
    app = contract_app(engine)
    returned = asyncio.Event()

    async def watched(scope: object, receive: object, send: object) -> None:
        try:
            await app(scope, receive, send)  # type: ignore[arg-type]
        finally:
            returned.set()

    held = await wire.send(host.serve(watched), b'{"prompt":', length=1000)
    await held.leave()
    await happens(returned)
    assert engine.requests == []


async def test_a_client_that_leaves_does_not_disturb_another(host: Host, wire: type[Wire]) -> None:
    gate = asyncio.Event()

    class Two(Scripted):
        async def generate(self, request: object) -> object:  # type: ignore[override]
            try:
                yield Piece("one ")
                await gate.wait()
                yield Piece("two ")
            finally:
                self.closed.set()

    engine = Two()
    url = host.serve(contract_app(engine))
    leaving = await wire.post(url, {"prompt": "p", "stream": True})
    staying = await wire.post(url, {"prompt": "p", "stream": True})
    await leaving.until(b"one")
    await staying.until(b"one")
    await leaving.leave()
    await happens(engine.closed)
    gate.set()
    await staying.until(b"two")
    await staying.leave()


async def test_cancelling_the_server_s_task_closes_the_engine() -> None:
    # On Modal a departed client may show as the cancellation of the application's task.
    engine = Scripted(asyncio.Event())
    body = [{"type": "http.request", "body": b'{"prompt": "p"}'}]

    async def receive() -> object:
        return body.pop() if body else await asyncio.Event().wait()

    async def send(message: object) -> None:
        raise AssertionError(f"nothing may be sent: {message}")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(contract_app(engine)(scope, receive, send))  # type: ignore[arg-type]
        await happens(engine.started)
        running.cancel()
    assert engine.closed.is_set()
