"""Engine, contract app and gateway together, each on a socket of its own; no model, no pause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from gateway.app import build_app
from gateway.conformance.fit import Credentials
from gateway.conformance.run import examine
from gateway.conformance.verdict import Result
from gateway.settings import settings_from
from modal_backend.contract import contract_app
from modal_backend.engine import Answer, Request
from modal_backend.engines import make_engine
from tests.backend.conftest import Host, Wire
from tests.bench.load import Question, Window, answers
from tests.bench.pacing import SLOTS, Hand, Paced, every
from tests.bench.upstream import text
from tests.cli.process import run
from tests.serve.house import BOUND, listening, settings, soon

FIRST = b"w00000 "
BODY = {"model": "m", "messages": [{"role": "user", "content": "go on"}], "stream": True}


def request(port: int, **fields: object) -> bytes:
    body = json.dumps({**BODY, **fields}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int) -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(port))
    return Wire(reader, writer)


@asynccontextmanager
async def before(engine: Paced) -> AsyncIterator[int]:
    """The port of a gateway before a contract app before this engine."""
    async with listening(contract_app(engine)) as container:
        app = build_app(settings_from(settings(container), {}), loopback=True)
        async with listening(app) as port:
            yield port


async def test_the_demo_engine_conforms(host: Host) -> None:
    url = host.serve(contract_app(make_engine("demo", {"delay": 0})))
    report = await soon(examine(url, Credentials(), BOUND))
    assert report.good, report.verdicts
    others = {name: found.result for name, found in report.verdicts.items() if found.result != Result.OK}
    assert others == {"fields": Result.UNSUPPORTED, "BOS": Result.INCONCLUSIVE}


class Watched(Paced):
    """Tells when a request has come, when one was closed, and how many steps there had been."""

    def __init__(self, complete: Callable[[], bool], slots: int) -> None:
        super().__init__(slots, complete)
        self.came = asyncio.Semaphore(0)
        self.closed = asyncio.Event()
        self.steps_at_close = 0

    async def generate(self, request: Request) -> Answer:
        self.came.release()
        try:
            async with aclosing(super().generate(request)) as items:
                async for item in items:
                    yield item
        finally:
            self.steps_at_close = self.steps
            self.closed.set()


async def test_a_client_that_leaves_frees_its_slot_within_two_steps() -> None:
    hand = Hand()
    engine = Watched(hand, slots=2)
    async with before(engine) as port:
        leaving, staying = [await ask(port) for _ in range(2)]
        for _ in range(2):
            await soon(engine.came.acquire())
        hand.allow(1)
        await leaving.until(FIRST)
        await staying.until(FIRST)
        waiting = await ask(port)
        await soon(engine.came.acquire())
        await leaving.leave()
        await soon(engine.closed.wait())
        hand.allow(2)
        await waiting.until(FIRST)
        assert engine.steps - engine.steps_at_close <= 2
        assert engine.running == 2
        await staying.leave()
        await waiting.leave()
    hand.end()
    await engine.close()


async def test_as_many_streams_as_there_are_slots_all_complete() -> None:
    engine = Paced(complete=every(0.001))
    async with before(engine) as port:
        asked = Question(port, request(port, max_tokens=40), text(40), streamed=True)
        tally = await soon(answers(asked, SLOTS, Window(0, 0)))
    assert not tally.failures
    assert tally.intact >= SLOTS
    await engine.close()


def test_a_model_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("backend", "demo", "--local", "--engine", "transformers", "--model", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "--model: there is no folder nowhere\n"
